"""Which settings a search tries, most promising first."""

from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import numpy as np

from imageclust.clustering.config import ClusteringConfig, Mode
from imageclust.clustering.methods import NEIGHBOURS, SharedWork


@dataclass(frozen=True)
class Candidate:
    """One setting to try. ``clusters`` is its exact number of clusters, None when it finds it."""

    method: str
    settings: dict[str, Any]
    clusters: int | None


@dataclass(frozen=True)
class _Plan:
    """Settings a method: numbers of k, restarts, min_samples, and steps of the density methods."""

    kmeans: int
    ward: int
    gmm: int
    restarts: int
    columns: tuple[int, ...]
    samples: tuple[int, ...]
    steps: int


_PLANS: dict[Mode, _Plan] = {
    "fast": _Plan(6, 6, 5, 1, (64,), (5,), 4),
    "balanced": _Plan(16, 16, 14, 1, (64,), (5, 10), 4),
    "comprehensive": _Plan(24, 36, 20, 2, (32, 64), (3, 5, 10, 20), 11),
}
DENSITY = ("dbscan", "hdbscan")


def candidates(
    shared: SharedWork,
    window: tuple[int, ...],
    feasible: tuple[int, int],
    config: ClusteringConfig,
) -> list[Candidate]:
    """Settings for the configuration's method and mode.

    Args:
        shared: work of the rows; the graph is made only where a density method is asked for.
        window: numbers of clusters near the best, rising.
        feasible: fewest and most clusters that the bounds allow. When they are equal, ``auto``
            leaves out the density methods, which find their own number.
        config: the request.
    """
    plan = _PLANS[config.mode]
    fixed = feasible[0] == feasible[1]
    only = None if config.method == "auto" else config.method
    lists: list[list[Candidate]] = []
    # A method that stands alone gets the whole effort of the mode.
    share = 1 if only is None else 2
    if only in (None, "kmeans"):
        ks = _numbers(window, plan.kmeans * share, feasible)
        lists.append(
            [
                Candidate("kmeans", {"clusters": k} | ({"restart": r} if r else {}), k)
                for r in range(plan.restarts)
                for k in ks
            ]
        )
    if only in (None, "ward"):
        ks = _numbers(window, plan.ward * share, feasible)
        lists.append([Candidate("ward", {"clusters": k}, k) for k in ks])
    if only in (None, "gmm"):
        ks = _numbers(window, plan.gmm * share, feasible)
        lists.append(
            [
                Candidate("gmm", {"clusters": k, "columns": columns}, k)
                for columns in plan.columns[::-1]
                for k in ks
            ]
        )
    if only in DENSITY or (only is None and not fixed and len(shared.rows) > 4):
        wanted = DENSITY if only is None else (only,)
        lists += [_density(shared, method, window, plan) for method in wanted]
    # In turns: a time budget that runs out has seen something of every method.
    turns = chain.from_iterable(zip_longest(*lists))
    return [candidate for candidate in turns if candidate is not None]


def _numbers(window: tuple[int, ...], count: int, feasible: tuple[int, int]) -> list[int]:
    """``count`` numbers of clusters, middle of the window first, spilling over its ends."""
    least, most = feasible
    if least == most:
        return [least]
    low, high = window[0], window[-1]
    least = max(least, min(2, most))
    while high - low + 1 < count and (low > least or high < most):
        low, high = max(low - 1, least), min(high + max(1, high // 8), most)
    spread = np.unique(np.round(np.geomspace(low, max(high, low), count)).astype(int))
    if len(spread) < count:
        # Rounding met itself: fill with the numbers that were stepped over.
        missing = np.setdiff1d(np.arange(low, high + 1), spread)[: count - len(spread)]
        spread = np.sort(np.concatenate([spread, missing]))
    middle = float(np.sqrt(window[0] * window[-1]))
    return [int(k) for k in sorted(spread, key=lambda k: (abs(np.log(k / middle)), k))]


def _density(
    shared: SharedWork, method: str, window: tuple[int, ...], plan: _Plan
) -> list[Candidate]:
    n = len(shared.rows)
    made = []
    for samples in plan.samples:
        # DBSCAN counts the row itself, HDBSCAN does not: this way they share a spanning tree.
        neighbours = min(samples - 1, NEIGHBOURS, n - 1)
        if method == "dbscan":
            shares = np.linspace(0.5, 0.97, plan.steps)
            for share in sorted(shares, key=lambda s: abs(s - 0.8)):
                eps = round(shared.core_quantile(neighbours, float(share)), 6)
                made.append(Candidate("dbscan", {"eps": eps, "min_samples": neighbours + 1}, None))
        else:
            mean = n / float(np.sqrt(window[0] * window[-1]))
            smallest = min(max(3.0, mean / 12), n / 2)
            sizes = np.geomspace(smallest, max(mean / 1.5, smallest * 2), plan.steps)
            made += [
                Candidate(
                    "hdbscan",
                    {"min_cluster_size": max(int(size), 2), "min_samples": max(neighbours, 1)},
                    None,
                )
                for size in sizes
            ]
    unique = {(tuple(sorted(c.settings.items()))): c for c in made}
    return list(unique.values())
