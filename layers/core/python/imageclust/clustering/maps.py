"""The flat map of a collection: t-SNE of exemplars, and every other row placed among its likes."""

import numpy as np

from imageclust.clustering.geometry import (
    Floats,
    Rows,
    blocks,
    distinct_rows,
    rotate,
    squared_distances,
    unit_rows,
)
from imageclust.clustering.parallel import in_parallel, one_blas_thread

FITTED = 4000
"""Most rows that t-SNE itself takes: its time grows with them, that of placing the rest hardly."""

FEWEST = 8
"""Fewer different rows than these have no neighbourhoods to keep."""

_COLUMNS = 50
_PERPLEXITY = 30.0
_ROUNDS = 500
_LIKES = 3


def tsne_map(vectors: Floats, exemplars: Rows, *, seed: int) -> Floats | None:
    """Places in the plane that keep neighbours together; None where there is too little to map.

    Up to 4,000 rows are fitted: the exemplars and others drawn at random. Each row that is left is
    placed at the mean of its nearest fitted rows, the nearer the heavier, as openTSNE's
    ``transform`` begins. Equal rows have one place. One thread, so the same places on every
    machine with the same libraries. Source: van der Maaten & Hinton 2008, Barnes-Hut of
    scikit-learn, begun from the principal components (Kobak & Berens 2019).

    Args:
        vectors: (n, d) real numbers, no NaN; scaled to length one here.
        exemplars: rows that show the clusters, the most telling first.
        seed: of what is drawn.

    Returns:
        (n, 2) float32, centred.
    """
    rows = unit_rows(vectors)
    first, place = distinct_rows(rows)
    if len(first) < FEWEST:
        return None
    with one_blas_thread():
        rotated, _ = rotate(rows if len(first) == len(rows) else rows[first], _COLUMNS)
    fitted = _drawn(len(first), place[exemplars], seed)
    flat = np.empty((len(first), 2), dtype=np.float32)
    flat[fitted] = _fit(rotated[fitted])
    rest = np.setdiff1d(np.arange(len(first)), fitted)
    flat[rest] = _placed(rotated[rest], rotated[fitted], flat[fitted])
    flat -= flat.mean(axis=0, dtype=np.float64).astype(np.float32)
    return flat[place]


def _drawn(n: int, exemplars: Rows, seed: int) -> Rows:
    """The rows to fit, in row order: exemplars first, then others at random."""
    if n <= FITTED:
        return np.arange(n)
    shown = exemplars[np.sort(np.unique(exemplars, return_index=True)[1])][: FITTED // 2]
    others = np.setdiff1d(np.arange(n), shown)
    picked = np.random.default_rng((seed, 81)).choice(others, FITTED - len(shown), replace=False)
    return np.sort(np.concatenate([shown, picked]))


def _fit(rotated: Floats) -> Floats:
    from sklearn.manifold import TSNE  # takes a second or more to load
    from threadpoolctl import threadpool_limits

    start = np.zeros((len(rotated), 2), dtype=np.float32)
    start[:, : rotated.shape[1]] = rotated[:, :2]
    start *= 1e-4 / max(float(start[:, 0].std()), 1e-12)
    made = TSNE(
        perplexity=min(_PERPLEXITY, (len(rotated) - 1) / 3),
        init=start,
        max_iter=_ROUNDS,
        random_state=0,
        n_jobs=1,
    )
    with threadpool_limits(1):  # the sum of repulsions depends on the number of threads
        flat: Floats = made.fit_transform(rotated)
    return flat


def _placed(rotated: Floats, fitted: Floats, flat: Floats) -> Floats:
    """(m, 2) the weighted mean place of the nearest fitted rows of each row."""
    result = np.empty((len(rotated), 2), dtype=np.float32)
    likes = min(_LIKES, len(fitted))

    def fill(part: slice) -> None:
        apart = squared_distances(rotated[part], fitted)
        near = np.argpartition(apart, likes - 1, axis=1)[:, :likes]
        apart = np.take_along_axis(apart, near, axis=1)
        # Weights fall by e from the nearest to the mean distance of those that count.
        apart -= apart.min(axis=1, keepdims=True)
        weights = np.exp(-apart / np.maximum(apart.mean(axis=1, keepdims=True), 1e-12))
        weights /= weights.sum(axis=1, keepdims=True)
        result[part] = np.einsum("ij,ijk->ik", weights, flat[near])

    in_parallel(fill, blocks(len(rotated), 2048))
    return result
