"""K-Means: greedy k-means++ seeds, restarts in a few principal columns, Lloyd in full.

Source: Arthur & Vassilvitskii 2007 (seeding, with the greedy candidates of its section 4), Lloyd
1982. Ties go to the lowest index everywhere, so a result depends on the data and the seed only.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imageclust.clustering.geometry import (
    Floats,
    Labels,
    blocks,
    cluster_sums,
    squared_distances,
)
from imageclust.clustering.parallel import in_parallel, one_blas_thread

_CHEAP_COLUMNS = 64
_SEED_SAMPLE = 12_000
_TINY_GAIN = 1e-6
_TILE = 4096
_SWAP_TURNS = 3
_SWAPS_A_TURN = 30


@dataclass(frozen=True, eq=False)
class KMeansFit:
    """(n,) labels, (k, d) centres, and the sum of squared distances to them."""

    labels: Labels
    centres: Floats
    inertia: float


@dataclass(frozen=True)
class KMeansEffort:
    """How hard to try.

    Restarts with ``swaps`` each in cheap columns of a sample; then ``last_swaps`` with all rows, in
    cheap columns; then Lloyd rounds in full.
    """

    restarts: int = 3
    swaps: int = 90
    last_swaps: int = 150
    cheap_rounds: int = 30
    full_rounds: int = 30


def kmeans(
    rotated: Floats, k: int, *, seed: int = 0, effort: KMeansEffort | None = None
) -> KMeansFit:
    """Fit K-Means to rows whose first columns hold the most variance.

    Args:
        rotated: (n, d) float32, as ``geometry.rotate`` gives them; n ≥ k ≥ 1.
        k: number of clusters; every one gets at least one row.
        seed: of the seeding.
        effort: restarts and rounds.
    """
    with one_blas_thread():
        return _kmeans(rotated, k, seed, effort or KMeansEffort())


def _kmeans(rotated: Floats, k: int, seed: int, effort: KMeansEffort) -> KMeansFit:
    n, d = rotated.shape
    rng = np.random.default_rng((seed, k))
    if k >= n:
        return KMeansFit(np.arange(n, dtype=np.int32), rotated.copy(), 0.0)
    cheap = np.ascontiguousarray(rotated[:, : min(d, _CHEAP_COLUMNS)])
    sample = cheap
    if n > _SEED_SAMPLE:
        sample = cheap[np.sort(rng.choice(n, max(_SEED_SAMPLE, min(n, 4 * k)), replace=False))]
    best: KMeansFit | None = None
    for _ in range(effort.restarts):
        seeds = seed_centres(sample, k, rng=rng)
        fit = lloyd(sample, seeds, rounds=3)
        for _ in range(_SWAP_TURNS if effort.swaps and k > 1 else 0):
            swapped = swap_centres(sample, fit.centres, effort.swaps // _SWAP_TURNS, rng=rng)
            fit = lloyd(sample, swapped, rounds=4)
        fit = lloyd(sample, fit.centres, rounds=effort.cheap_rounds)
        if best is None or fit.inertia < best.inertia:
            best = fit
    if best is None:
        raise ValueError("effort.restarts must be at least 1")
    if len(sample) < n:
        best = lloyd(cheap, best.centres, rounds=effort.cheap_rounds)
    for _ in range(effort.last_swaps // _SWAPS_A_TURN if k > 1 else 0):
        swapped = swap_centres(cheap, best.centres, _SWAPS_A_TURN, rng=rng)
        fit = lloyd(cheap, swapped, rounds=6)
        if fit.inertia < best.inertia:
            best = fit
    if effort.last_swaps:
        best = lloyd(cheap, best.centres, rounds=effort.cheap_rounds)
    if cheap.shape[1] == d:
        return best
    return lloyd(rotated, _means(rotated, best.labels, k), rounds=effort.full_rounds)


def seed_centres(rows: Floats, k: int, *, rng: np.random.Generator) -> Floats:
    """(k, d) rows chosen by greedy k-means++ (2 + ln k candidates a step).

    Any prefix of the result is itself such a choice, so one call serves every smaller k.
    """
    n = len(rows)
    tries = 2 + int(math.log(k))
    half = 0.5 * np.einsum("ij,ij->i", rows, rows)
    chosen = [int(rng.integers(n))]
    closest = _squared_to(rows, half, np.array(chosen))[0]
    for _ in range(1, k):
        weights = np.cumsum(closest, dtype=np.float64)
        if weights[-1] <= 0:
            chosen.append(int(rng.integers(n)))
            continue
        picks = np.searchsorted(weights, rng.random(tries) * weights[-1], side="right")
        distances = _squared_to(rows, half, np.minimum(picks, n - 1))
        np.minimum(distances, closest, out=distances)
        winner = int(distances.sum(axis=1, dtype=np.float64).argmin())
        closest = distances[winner]
        chosen.append(int(min(picks[winner], n - 1)))
    return rows[chosen].copy()


def swap_centres(rows: Floats, centres: Floats, steps: int, *, rng: np.random.Generator) -> Floats:
    """Local search: a row drawn by its squared distance replaces the centre that it can best spare.

    Source: Lattanzi & Sohler 2019, LS++. A swap is kept only when it lowers the inertia.
    """
    centres = centres.copy()
    k = len(centres)
    half = 0.5 * np.einsum("ij,ij->i", rows, rows)
    distances = squared_distances(rows, centres)
    at = np.arange(len(rows))
    label = distances.argmin(axis=1)
    nearest = distances[at, label]
    second = _second(distances, label, nearest)
    current = float(nearest.sum(dtype=np.float64))
    for _ in range(steps):
        weights = np.cumsum(nearest, dtype=np.float64)
        if weights[-1] <= 0:
            break
        pick = int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))
        pick = min(pick, len(rows) - 1)
        offered = _squared_to(rows, half, np.array([pick]))[0]
        kept = np.minimum(nearest, offered)
        loss = np.bincount(label, np.minimum(second, offered) - kept, minlength=k)
        spared = int(loss.argmin())
        cost = float(kept.sum(dtype=np.float64)) + float(loss[spared])
        if cost >= current:
            continue
        centres[spared] = rows[pick]
        distances[:, spared] = offered
        label = distances.argmin(axis=1)
        nearest = distances[at, label]
        second = _second(distances, label, nearest)
        current = cost
    return centres


def _second(distances: Floats, label: NDArray[np.intp], nearest: Floats) -> Floats:
    """(n,) squared distance to the second nearest centre."""
    at = np.arange(len(label))
    distances[at, label] = np.inf
    second: Floats = distances.min(axis=1)
    distances[at, label] = nearest
    return second


def lloyd(rows: Floats, centres: Floats, *, rounds: int) -> KMeansFit:
    """Lloyd's iteration until no row moves, the gain is tiny, or ``rounds`` are done."""
    n, k = len(rows), len(centres)
    norms = float(np.einsum("ij,ij->i", rows, rows).sum(dtype=np.float64))
    labels = np.full(n, -1, dtype=np.int32)
    sums = np.zeros_like(centres)
    previous = math.inf
    for _ in range(max(rounds, 1)):
        fresh, scores = _assign(rows, centres)
        inertia = max(norms - 2.0 * scores, 0.0)
        moved = np.flatnonzero(fresh != labels)
        if len(moved) == 0:
            break
        if len(moved) > n // 3:
            sums = cluster_sums(rows, fresh, k)
        else:
            part = np.ascontiguousarray(rows[moved])
            sums += cluster_sums(part, fresh[moved], k) - cluster_sums(part, labels[moved], k)
        labels = fresh
        sizes = np.bincount(labels, minlength=k)
        if not sizes.all():
            labels = _refill(rows, centres, labels, sizes)
            sums = cluster_sums(rows, labels, k)
            sizes = np.bincount(labels, minlength=k)
        centres = (sums / sizes[:, None]).astype(np.float32)
        if previous - inertia <= _TINY_GAIN * previous:
            break
        previous = inertia
    centres = _means(rows, labels, k)
    return KMeansFit(labels, centres, inertia_of(rows, labels, centres))


def inertia_of(rows: Floats, labels: Labels, centres: Floats) -> float:
    """Sum of squared distances to the own centre, in float64."""

    def own(part: slice) -> float:
        difference = rows[part] - centres[labels[part]]
        return float(np.einsum("ij,ij->i", difference, difference).sum(dtype=np.float64))

    return sum(in_parallel(own, blocks(len(rows), _TILE)))


def _means(rows: Floats, labels: Labels, k: int) -> Floats:
    sizes = np.maximum(np.bincount(labels, minlength=k), 1)
    means: Floats = (cluster_sums(rows, labels, k) / sizes[:, None]).astype(np.float32)
    return means


def _assign(rows: Floats, centres: Floats) -> tuple[Labels, float]:
    half = 0.5 * np.einsum("ij,ij->i", centres, centres)
    turned = np.ascontiguousarray(centres.T)
    labels = np.empty(len(rows), dtype=np.int32)

    def fill(part: slice) -> float:
        scores = rows[part] @ turned
        scores -= half
        best = scores.argmax(axis=1)
        labels[part] = best
        return float(scores[np.arange(len(best)), best].sum(dtype=np.float64))

    return labels, sum(in_parallel(fill, blocks(len(rows), _TILE)))


def _refill(rows: Floats, centres: Floats, labels: Labels, sizes: NDArray[np.int64]) -> Labels:
    """Give each empty cluster the row farthest from its own centre (of a cluster of ≥ 2)."""
    difference = rows - centres[labels]
    far = np.einsum("ij,ij->i", difference, difference)
    labels, sizes = labels.copy(), sizes.copy()
    candidates = iter(np.argsort(-far, kind="stable"))
    for empty in np.flatnonzero(sizes == 0):
        for row in candidates:
            if sizes[labels[row]] > 1:
                sizes[labels[row]] -= 1
                labels[row] = empty
                sizes[empty] = 1
                break
    return labels


def _squared_to(rows: Floats, half: Floats, picks: NDArray[np.int64]) -> Floats:
    """(len(picks), n) squared distances, never negative."""
    result: Floats = rows[picks] @ rows.T
    result -= half
    result -= half[picks][:, None]
    result *= -2.0
    np.maximum(result, 0.0, out=result)
    # A row is at no distance from itself, whatever rounding says.
    result[np.arange(len(picks)), picks] = 0.0
    return result
