"""Measuring how many clusters there are: silhouette, elbow and gap curves over k.

A silhouette alone favours few clusters: any long cloud cut in two halves scores well. What counts
is therefore how much more it is than that of a cloud with the data's mean and covariance and no
clusters in it, cut into as many. That alone favours many: any few pictures that happen to be alike
stand out of a cloud. So each cluster counts with what its silhouette surely is, two standard errors
below what it is, which is little for a cluster of few.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imageclust.clustering.geometry import Floats, rotate, unit_rows
from imageclust.clustering.kmeans import KMeansEffort, kmeans
from imageclust.clustering.quality import cosine_silhouettes, silhouette_error

_SAMPLE = 6000
_GAP_SAMPLE = 2000
_GAP_REFERENCES = 3
_STEPS = 20
_MOST = 300
_NEAR_BEST = 0.85
_ERRORS = 2.0  # 95 %, one-sided and a little more
_EFFORT = KMeansEffort(restarts=2, swaps=30, last_swaps=0, cheap_rounds=15, full_rounds=10)
_QUICK = KMeansEffort(restarts=1, swaps=0, last_swaps=0, cheap_rounds=10, full_rounds=2)


@dataclass(frozen=True, eq=False)
class MeasuredChoice:
    """What the curves say.

    Attributes:
        window: numbers of clusters whose silhouette surely exceeds the cloud's by nearly the most,
            smallest first.
        best: the number where it does so by the most.
        curves: ``k``, ``inertia``, ``silhouette``, ``silhouette_error``, ``cloud`` (the silhouette
            of a cloud without clusters), ``gap`` and the choices ``elbow_k``, ``silhouette_k``,
            ``gap_k`` as lists of one.
    """

    window: tuple[int, ...]
    best: int
    curves: dict[str, list[float]]

    def cloud_silhouette(self, clusters: int) -> float:
        """What a cloud without clusters scores when cut into as many; 0 where not measured."""
        if clusters < 2 or not self.curves:
            return 0.0
        at = np.log(self.curves["k"])
        return float(np.interp(np.log(clusters), at, self.curves["cloud"]))


def grid_of_k(low: int, high: int, n: int) -> tuple[int, ...]:
    """Numbers of clusters to measure: geometric steps in the feasible range."""
    first = min(max(low, 2), high)
    widest = min(_MOST, max(12, int(3 * np.sqrt(n))), max(n // 2, 2))
    last = min(high, max(widest, 2 * first))
    steps = np.geomspace(first, max(last, first), _STEPS)
    return tuple(sorted({round(float(k)) for k in steps}))


def measure_choice(
    rows: Floats, grid: tuple[int, ...], *, seed: int, references: int = _GAP_REFERENCES
) -> MeasuredChoice:
    """Fit K-Means at each k of the grid on a sample and read the curves.

    Source: silhouette, Rousseeuw 1987; knee of the inertia, Satopää et al. 2011 on a log axis;
    gap statistic, Tibshirani, Walther & Hastie 2001, with reference data drawn uniformly in the
    PCA-aligned bounding box of the data; one Gaussian as the shape of data without clusters, Liu,
    Hayes, Nobel & Marron 2008.

    Args:
        rows: (n, d) float32 unit rows, n ≥ 2.
        grid: rising numbers of clusters, each ≤ n.
        seed: of the sample, the fits and the references.
        references: reference sets of the gap and clouds without clusters, at least 1.
    """
    rng = np.random.default_rng((seed, 71))
    n = len(rows)
    sample = rows
    if n > _SAMPLE:
        sample = rows[np.sort(rng.choice(n, _SAMPLE, replace=False))]
    grid = tuple(k for k in grid if k <= len(sample)) or (min(2, len(sample)),)
    rotated, _ = rotate(sample)
    inertia, silhouette, errors = [], [], []
    for k in grid:
        fit = kmeans(rotated, k, seed=seed, effort=_EFFORT)
        own = cosine_silhouettes(sample, fit.labels)
        inertia.append(fit.inertia)
        silhouette.append(float(own.mean(dtype=np.float64)))
        # All rows make clusters as many times larger as they are more than the sample's.
        errors.append(silhouette_error(own, fit.labels) * math.sqrt(len(sample) / n))
    cloud = cloud_curve(sample, grid, seed=seed, references=references)
    sure = [sure_excess(*three) for three in zip(silhouette, errors, cloud, strict=True)]
    place = int(np.argmax(sure))
    gap, error = gap_curve(rotated, grid, seed=seed, references=references)
    curves: dict[str, list[float]] = {
        "k": [float(k) for k in grid],
        "inertia": [round(value, 6) for value in inertia],
        "silhouette": [round(value, 6) for value in silhouette],
        "silhouette_error": [round(value, 6) for value in errors],
        "cloud": [round(value, 6) for value in cloud],
        "gap": [round(value, 6) for value in gap],
        "gap_error": [round(value, 6) for value in error],
        "silhouette_k": [float(grid[place])],
        "elbow_k": [float(knee(grid, inertia))],
        "gap_k": [float(_gap_choice(grid, gap, error))],
    }
    return MeasuredChoice(_around(grid, sure, near_best(sure[place])), grid[place], curves)


def sure_excess(silhouette: float, error: float, cloud: float) -> float:
    """What a silhouette surely exceeds a cloud's by: that of two standard errors less."""
    return silhouette - _ERRORS * error - cloud


def near_best(sure: float) -> float:
    """The least sure excess that is as good as the best one, ``sure``."""
    return sure * _NEAR_BEST if sure > 0 else sure


def cloud_curve(rows: Floats, grid: tuple[int, ...], *, seed: int, references: int) -> list[float]:
    """Mean silhouette at each k of clouds with the rows' mean and covariance and no clusters.

    Normally distributed sums of the centred rows have exactly their covariance; the clouds are
    scaled to length one as the rows are.
    """
    rng = np.random.default_rng((seed, 73))
    if len(rows) > _GAP_SAMPLE:
        rows = rows[np.sort(rng.choice(len(rows), _GAP_SAMPLE, replace=False))]
    n = len(rows)
    middle = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = (rows - middle) / np.float32(np.sqrt(n))
    table = np.empty((references, len(grid)))
    for drawn in range(references):
        cloud = unit_rows(middle + rng.standard_normal((n, n), dtype=np.float32) @ centred)
        rotated, _ = rotate(cloud)
        for place, k in enumerate(grid):
            labels = kmeans(rotated, min(k, n), seed=seed, effort=_QUICK).labels
            table[drawn, place] = cosine_silhouettes(cloud, labels).mean(dtype=np.float64)
    return [float(value) for value in table.mean(axis=0)]


def _around(grid: tuple[int, ...], score: list[float], floor: float) -> tuple[int, ...]:
    """The numbers next to the best one that reach the floor without a gap."""
    low = high = int(np.argmax(score))
    while low > 0 and score[low - 1] >= floor:
        low -= 1
    while high + 1 < len(grid) and score[high + 1] >= floor:
        high += 1
    return grid[low : high + 1]


def knee(grid: tuple[int, ...], inertia: list[float]) -> int:
    """The k farthest under the chord of the inertia curve over log k (Kneedle)."""
    if len(grid) < 3:
        return grid[0]
    x = np.log(np.array(grid, dtype=np.float64))
    y = np.array(inertia)
    x = (x - x[0]) / (x[-1] - x[0])
    span = y[0] - y[-1]
    if span <= 0:
        return grid[0]
    below = 1.0 - x - (y - y[-1]) / span
    return grid[int(below.argmax())]


def gap_curve(
    rotated: Floats, grid: tuple[int, ...], *, seed: int, references: int
) -> tuple[list[float], list[float]]:
    """Gap and its standard error at each k, for data in principal axes."""
    rng = np.random.default_rng((seed, 72))
    if len(rotated) > _GAP_SAMPLE:
        rotated = rotated[np.sort(rng.choice(len(rotated), _GAP_SAMPLE, replace=False))]
    columns = min(rotated.shape[1], 48)
    data = np.ascontiguousarray(rotated[:, :columns])
    low, high = data.min(axis=0), data.max(axis=0)
    grid = tuple(min(k, len(data)) for k in grid)
    own = _log_inertias(data, grid, seed)
    drawn: list[NDArray[np.float64]] = []
    for _ in range(references):
        box = (low + (high - low) * rng.random(data.shape, dtype=np.float32)).astype(np.float32)
        drawn.append(_log_inertias(box, grid, seed))
    table = np.stack(drawn)
    gap = table.mean(axis=0) - own
    error = table.std(axis=0) * np.sqrt(1.0 + 1.0 / references)
    return [float(value) for value in gap], [float(value) for value in error]


def _log_inertias(data: Floats, grid: tuple[int, ...], seed: int) -> NDArray[np.float64]:
    effort = KMeansEffort(restarts=1, swaps=0, last_swaps=0, cheap_rounds=10, full_rounds=1)
    return np.array(
        [np.log(max(kmeans(data, k, seed=seed, effort=effort).inertia, 1e-12)) for k in grid]
    )


def _gap_choice(grid: tuple[int, ...], gap: list[float], error: list[float]) -> int:
    """The smallest k whose gap is at least the next one's less its error."""
    for place in range(len(grid) - 1):
        if gap[place] >= gap[place + 1] - error[place + 1]:
            return grid[place]
    return grid[-1]
