"""How good a clustering is, with and without known labels."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imageclust.clustering.geometry import (
    Doubles,
    Floats,
    Labels,
    blocks,
    cluster_sizes,
    cluster_sums,
    squared_distances,
)
from imageclust.clustering.parallel import in_parallel

_ROUNDING = 1e-6  # of a cosine or squared distance of unit rows, from float32 products
_TILE = 1024  # rows whose copy in the cache serves the product and the lengths


@dataclass(frozen=True, eq=False)
class _Pass:
    """What one pass over the rows tells of a labelling with two clusters or more.

    (n,) silhouettes and squared distances to the own mean (0 for outliers), (k, d) means and (k,)
    sizes.
    """

    silhouettes: Floats
    apart: Floats
    means: Floats
    sizes: NDArray[np.int64]


def cosine_silhouettes(rows: Floats, labels: Labels) -> Floats:
    """(n,) exact cosine silhouette of each row, in O(n·k·d).

    With unit rows and cluster sums S, the mean cosine distance of x to C is 1 - x·S_C/|C|. Rows
    labelled -1 are left out and score 0, as do the members of a cluster of one (Rousseeuw 1987).

    Args:
        rows: (n, d) float32 of length one (or zero).
        labels: (n,) int32, -1 = outlier, else 0..k-1.
    """
    if labels.max(initial=-1) < 1:
        return np.zeros(len(rows), dtype=np.float32)
    return _pass(rows, labels).silhouettes


def _pass(rows: Floats, labels: Labels) -> _Pass:
    n, k = len(rows), int(labels.max()) + 1
    silhouettes, apart = np.zeros(n, dtype=np.float32), np.zeros(n, dtype=np.float32)
    counts = cluster_sizes(labels, k)
    sizes = counts.astype(np.float32)
    means = cluster_sums(rows, labels, k)
    means /= np.maximum(sizes, 1.0)[:, None]
    turned = np.ascontiguousarray(means.T)
    length = np.einsum("ij,ij->i", means, means)
    empty = np.flatnonzero(counts == 0)

    def fill(part: slice) -> None:
        own, x = labels[part], rows[part]
        inside = np.flatnonzero(own >= 0)
        if len(inside) < len(own):
            own, x = own[inside], x[inside]
        at = np.arange(len(own))
        near = x @ turned
        home = near[at, own]
        itself = np.einsum("ij,ij->i", x, x)
        size = sizes[own]
        a = _known(1.0 - (home * size - itself) / np.maximum(size - 1.0, 1.0))
        near[:, empty] = -np.inf
        near[at, own] = -np.inf
        b = _known(1.0 - near.max(axis=1))
        high = np.maximum(a, b)
        score = np.where(size > 1, (b - a) / np.maximum(high, _ROUNDING), 0.0)
        silhouettes[part.start + inside] = np.clip(score, -1.0, 1.0)
        apart[part.start + inside] = _known(itself - 2.0 * home + length[own])

    in_parallel(fill, blocks(n, _TILE))
    return _Pass(silhouettes, apart, means, counts)


def _known(distances: Floats) -> Floats:
    """Distances, 0 where rounding alone could have made them."""
    return np.where(distances > _ROUNDING, distances, np.float32(0.0))


def silhouette_error(silhouettes: Floats, labels: Labels) -> float:
    """How far the mean silhouette of a cluster is uncertain: mean standard error, by size.

    The spread of silhouettes within clusters over the root of a cluster's size: the more and the
    smaller the clusters, the less each of them is sure. Outliers are left out; 0 for fewer than
    two clusters.

    Args:
        silhouettes: (n,) of each row.
        labels: (n,) int32, -1 = outlier, else 0..k-1, no cluster empty.
    """
    k = int(labels.max(initial=-1)) + 1
    if k < 2:
        return 0.0
    inside = labels >= 0
    own, values = labels[inside], silhouettes[inside].astype(np.float64)
    sizes = np.bincount(own, minlength=k)
    means = np.bincount(own, weights=values, minlength=k) / sizes
    spread = math.sqrt(float(((values - means[own]) ** 2).mean()))
    return spread * float(np.sqrt(sizes).sum()) / len(values)


def balance(sizes: NDArray[Any]) -> float:
    """1 for equal sizes, towards 0 as they part: 1 / (1 + standard deviation / mean).

    One cluster is no grouping at all and scores 0.
    """
    if len(sizes) < 2:
        return 0.0
    return float(1.0 / (1.0 + np.std(sizes) / np.mean(sizes)))


def composite_score(
    silhouette: float, even: float, noise: float, weights: tuple[float, float, float]
) -> float:
    """Weighted mean of silhouette scaled to 0..1, balance, and the share that is not noise."""
    parts = ((silhouette + 1.0) / 2.0, even, 1.0 - noise)
    return sum(w * part for w, part in zip(weights, parts, strict=True)) / sum(weights)


def davies_bouldin(rows: Floats, labels: Labels) -> float:
    """Davies & Bouldin 1979, Euclidean, without outliers; 0 for fewer than two clusters.

    Args:
        rows: (n, d) float32 of length one (or zero).
        labels: (n,) int32, -1 = outlier, else 0..k-1.
    """
    if labels.max(initial=-1) < 1:
        return 0.0
    return _davies_bouldin(_pass(rows, labels), labels)


def _davies_bouldin(seen: _Pass, labels: Labels) -> float:
    members, k = labels >= 0, len(seen.means)
    spread = np.bincount(
        labels[members], weights=np.sqrt(seen.apart[members]), minlength=k
    ) / np.maximum(seen.sizes, 1)
    apart = np.sqrt(_known(squared_distances(seen.means, seen.means)).astype(np.float64))
    # Two equal centres say nothing about the rest: as in scikit-learn they count as infinity apart.
    apart[apart == 0] = np.inf
    return float(((spread[:, None] + spread[None, :]) / apart).max(axis=1).mean())


def calinski_harabasz(rows: Floats, labels: Labels) -> float:
    """Caliński & Harabasz 1974, without outliers; 0 where it is not defined.

    1 where every row lies at the centre of its cluster, as in scikit-learn.

    Args:
        rows: (n, d) float32 of length one (or zero).
        labels: (n,) int32, -1 = outlier, else 0..k-1.
    """
    if labels.max(initial=-1) < 1:
        return 0.0
    return _calinski_harabasz(_pass(rows, labels))


def _calinski_harabasz(seen: _Pass) -> float:
    n, k = int(seen.sizes.sum()), len(seen.means)
    within = float(seen.apart.sum(dtype=np.float64))
    if n <= k:
        return 0.0
    if within <= 0:
        return 1.0
    weight = seen.sizes[:, None].astype(np.float64)
    middle = (weight * seen.means).sum(axis=0) / n
    between = float((weight * (seen.means - middle) ** 2).sum())
    return between * (n - k) / (within * (k - 1))


def measure(
    rows: Floats, labels: Labels, weights: tuple[float, float, float]
) -> tuple[dict[str, float], Floats]:
    """Every score of a labelling, and the (n,) silhouettes.

    Args:
        rows: (n, d) float32, unit rows.
        labels: (n,) int32, -1 = outlier, 0..k-1 else.
        weights: of the composite score.
    """
    n = len(labels)
    k = int(labels.max(initial=-1)) + 1
    seen = _pass(rows, labels) if k > 1 else None
    silhouettes = np.zeros(n, dtype=np.float32) if seen is None else seen.silhouettes
    inside = labels >= 0
    count = int(inside.sum())
    silhouette = float(silhouettes[inside].mean(dtype=np.float64)) if count else 0.0
    noise = 1.0 - count / n if n else 0.0
    sizes = cluster_sizes(labels, k)
    even = balance(sizes)
    return {
        "silhouette": silhouette,
        "silhouette_error": silhouette_error(silhouettes, labels),
        "davies_bouldin": 0.0 if seen is None else _davies_bouldin(seen, labels),
        "calinski_harabasz": 0.0 if seen is None else _calinski_harabasz(seen),
        "balance": even,
        "noise_share": noise,
        "composite": composite_score(silhouette, even, noise, weights),
        "clusters": float(k),
    }, silhouettes


def normalized_mutual_information(first: NDArray[Any], second: NDArray[Any]) -> float:
    """NMI with the arithmetic mean of the entropies, as scikit-learn's default; 0..1."""
    table = contingency(first, second)
    n = table.sum()
    if n == 0 or (table.shape[0] == 1 and table.shape[1] == 1):
        return 1.0
    joint = table / n
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    used = joint > 0
    expected = rows[:, None] * columns[None, :]
    mutual = float((joint[used] * np.log(joint[used] / expected[used])).sum())
    mean = (_entropy(rows) + _entropy(columns)) / 2.0
    return min(max(mutual / mean, 0.0), 1.0) if mean > 0 else 0.0


def adjusted_rand_index(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Hubert & Arabie 1985; 1 for equal partitions, about 0 for chance."""
    table = contingency(first, second)
    n = int(table.sum())
    pairs = _pairs(table).sum()
    rows, columns = _pairs(table.sum(axis=1)).sum(), _pairs(table.sum(axis=0)).sum()
    total = n * (n - 1) / 2.0
    if total == 0:
        return 1.0
    expected = rows * columns / total
    most = (rows + columns) / 2.0
    return 1.0 if most == expected else float((pairs - expected) / (most - expected))


def purity(labels: NDArray[Any], truth: NDArray[Any]) -> float:
    """Share of rows whose true label is the commonest of their cluster."""
    table = contingency(labels, truth)
    return float(table.max(axis=1).sum() / table.sum()) if table.sum() else 1.0


def contingency(first: NDArray[Any], second: NDArray[Any]) -> Doubles:
    """Counts of each pair of labels."""
    left, right = np.unique(first, return_inverse=True), np.unique(second, return_inverse=True)
    shape = (len(left[0]), len(right[0]))
    flat = left[1].ravel() * max(shape[1], 1) + right[1].ravel()
    counts: Doubles = np.bincount(flat, minlength=shape[0] * shape[1]).astype(np.float64)
    return counts.reshape(shape)


def _entropy(shares: Doubles) -> float:
    used = shares[shares > 0]
    return -math.fsum(used * np.log(used))


def _pairs(counts: Doubles) -> Doubles:
    return counts * (counts - 1.0) / 2.0
