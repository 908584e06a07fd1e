"""Ward's hierarchical clustering with a cap on the size of a cluster.

Source: Ward 1963; Lance & Williams 1967 for the update. With a cap, a merge that would exceed it
costs infinity; the method stays reducible, so the greedy closest-pair order is well defined and
merging reciprocal nearest neighbours reaches it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imageclust.clustering.geometry import Doubles, Floats, Labels, squared_distances

DENSE_LIMIT = 4096


@dataclass(frozen=True, eq=False)
class WardTree:
    """A forest of merges over ``n`` leaves, in order of height (SciPy's linkage, maybe short).

    Attributes:
        n: number of leaves.
        pairs: (m, 2) int64; below n a leaf, from n on merge number ``id - n``.
        heights: (m,) float64, never falling; SciPy's scale, the root of twice the added inertia.
        sizes: (m,) int64, total weight of the merged cluster.
    """

    n: int
    pairs: NDArray[np.int64]
    heights: Doubles
    sizes: NDArray[np.int64]

    @property
    def fewest(self) -> int:
        """Clusters that are left when no merge is allowed any more."""
        return self.n - len(self.pairs)

    def cut(self, k: int) -> Labels:
        """(n,) labels with ``k`` clusters, or ``fewest`` when the cap allows no fewer."""
        parent = np.arange(self.n + len(self.pairs))
        steps = min(max(self.n - k, 0), len(self.pairs))
        for step in range(steps):
            parent[self.pairs[step]] = self.n + step
        # Parents have higher numbers: one sweep from the top names every root.
        for node in range(self.n + steps - 1, -1, -1):
            parent[node] = parent[parent[node]]
        return np.unique(parent[: self.n], return_inverse=True)[1].astype(np.int32)


def ward_tree(
    rows: Floats, *, max_size: int | None = None, sizes: NDArray[np.int64] | None = None
) -> WardTree:
    """Merge greedily, closest pair first, as long as the cap allows.

    Args:
        rows: (n, d) float32 points, or centres of groups.
        max_size: most weight in a cluster; None for no cap.
        sizes: (n,) weight of each row; ones when not given.
    """
    n = len(rows)
    weights = np.ones(n, dtype=np.int64) if sizes is None else sizes.astype(np.int64)
    if n < 2:
        return _tree(n, [], [], [])
    squared = squared_distances(rows, rows).astype(np.float64)
    inertia = squared * (weights[:, None] * weights[None, :] / (weights[:, None] + weights[None]))
    merges = dense_merges(inertia, weights, math.inf if max_size is None else max_size)
    return _tree(n, *merges)


def dense_merges(
    cost: Doubles, weights: NDArray[np.int64], cap: float
) -> tuple[list[tuple[int, int]], list[float], list[int]]:
    """Greedy merges on a full (m, m) matrix of added inertia, which is overwritten."""
    m = len(cost)
    weight = weights.astype(np.float64)
    node = np.arange(m)
    cost[weight[:, None] + weight[None, :] > cap] = math.inf
    np.fill_diagonal(cost, math.inf)
    nearest = cost.argmin(axis=1)
    best = cost[np.arange(m), nearest]
    pairs: list[tuple[int, int]] = []
    heights: list[float] = []
    sizes: list[int] = []
    while len(pairs) < m - 1:
        first = int(best.argmin())
        height = float(best[first])
        if height == math.inf:
            break
        second = int(nearest[first])
        first, second = min(first, second), max(first, second)
        pairs.append((int(node[first]), int(node[second])))
        heights.append(height)
        a, b = weight[first], weight[second]
        sizes.append(int(a + b))
        with np.errstate(invalid="ignore"):
            row = ((a + weight) * cost[first] + (b + weight) * cost[second] - weight * height) / (
                a + b + weight
            )
        row[a + b + weight > cap] = math.inf
        row[first] = row[second] = math.inf
        row[np.isnan(row)] = math.inf
        cost[first], cost[:, first] = row, row
        cost[second], cost[:, second] = math.inf, math.inf
        weight[first], weight[second] = a + b, math.inf
        node[first] = m + len(pairs) - 1
        best[second] = math.inf
        stale = np.flatnonzero((nearest == first) | (nearest == second))
        stale = stale[np.isfinite(weight[stale])]
        stale = np.union1d(stale, [first])
        nearest[stale] = cost[stale].argmin(axis=1)
        best[stale] = cost[stale, nearest[stale]]
    return pairs, heights, sizes


def _tree(n: int, pairs: list[tuple[int, int]], costs: list[float], sizes: list[int]) -> WardTree:
    heights = np.sqrt(2.0 * np.maximum(np.array(costs, dtype=np.float64), 0.0))
    heights = np.maximum.accumulate(heights) if len(heights) else heights
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return WardTree(n, table, heights, np.array(sizes, dtype=np.int64))
