"""Ward's hierarchical clustering with a cap on the size of a cluster.

Source: Ward 1963; Lance & Williams 1967 for the update. With a cap, a merge that would exceed it
costs infinity; the method stays reducible, so the greedy closest-pair order is well defined and
merging reciprocal nearest neighbours reaches it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imageclust.clustering.geometry import (
    Doubles,
    Floats,
    Labels,
    Rows,
    blocks,
    rotate,
    squared_distances,
)
from imageclust.clustering.neighbours import NeighbourGraph, neighbour_graph
from imageclust.clustering.parallel import in_parallel

DENSE_LIMIT = 1500
_LIST = 12
_CHEAP_COLUMNS = 48
_SLACK = 1e-6
_TILE_ENTRIES = 4_000_000


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
    rows: Floats,
    *,
    max_size: int | None = None,
    sizes: NDArray[np.int64] | None = None,
    graph: NeighbourGraph | None = None,
) -> WardTree:
    """Merge greedily, closest pair first, as long as the cap allows.

    Args:
        rows: (n, d) float32 points, or centres of groups.
        max_size: most weight in a cluster; None for no cap.
        sizes: (n,) weight of each row; ones when not given.
        graph: a neighbour graph of the rows, if one is at hand (unit rows of weight one only).
    """
    n = len(rows)
    weights = np.ones(n, dtype=np.int64) if sizes is None else sizes.astype(np.int64)
    cap = math.inf if max_size is None else float(max_size)
    if n < 2:
        return _tree(n, [], [], [])
    merging = _Merging(rows, weights, cap)
    if n > DENSE_LIMIT:
        merging.start(graph)
        while merging.crowded:
            merging.round()
    return merging.finish()


class _Merging:
    """Rounds that merge all reciprocal nearest neighbours at once.

    A cluster keeps a short list of candidates and a radius: whatever is not listed costs at least
    the radius. Ward's cost is reducible (a merged pair is no nearer to a third cluster than the
    nearer of the two was), so lists and radii stay true while others merge, and only clusters whose
    nearest neighbour changed are looked at again. A cluster whose best candidate lies beyond its
    radius is compared with all. Slots are places of first members; ties go to the lowest slot.
    """

    def __init__(self, rows: Floats, weights: NDArray[np.int64], cap: float) -> None:
        n = len(rows)
        self.n = n
        self.cap = cap
        self.mean = np.array(rows, dtype=np.float32, order="C")
        self.size = weights.astype(np.float64)
        self.node = np.arange(n)
        self.floor = np.zeros(n)
        self.live = np.arange(n)
        self.pairs: list[NDArray[np.int64]] = []
        self.costs: list[Doubles] = []
        self.weights: list[Doubles] = []
        self.made = 0

    @property
    def crowded(self) -> bool:
        """Too many clusters for a full matrix."""
        return len(self.live) > DENSE_LIMIT

    def start(self, graph: NeighbourGraph | None) -> None:
        """First lists: from a neighbour graph of unit rows of weight one, else from all pairs."""
        n = self.n
        length = np.einsum("ij,ij->i", self.mean, self.mean)
        if not (self.size == 1).all() or np.abs(length - 1.0).max() > 1e-5:
            graph = None
        elif graph is None:
            cheap = rotate(self.mean, _CHEAP_COLUMNS)[0]
            graph = neighbour_graph(self.mean, _LIST, cheap=cheap)
        self.nearest = np.full(n, -1, dtype=np.int64)
        self.best = np.full(n, np.inf)
        self.listed = np.full((n, _LIST), -1, dtype=np.int32)
        self.radius = np.full(n, -np.inf)
        if graph is not None:
            width = min(_LIST, graph.indices.shape[1])
            self.listed[:, :width] = graph.indices[:, :width]
            # Ward's cost of two unit rows is half their squared distance: the cosine distance.
            self.radius[:] = graph.distances[:, width - 1] - _SLACK
            self._look(self.live)
        else:
            self._refresh(self.live)

    def round(self) -> None:
        """Merge every reciprocal pair, then look again where the nearest changed."""
        live = self.live
        open_ = live[np.isfinite(self.best[live])]
        if len(open_) < len(live):
            # No feasible partner is left: sizes only grow, so none will come.
            self.live = live = open_
            if len(live) == 0:
                return
        partner = self.nearest[live]
        first = live[(self.nearest[partner] == live) & (live < partner)]
        least = int(live[self.best[live].argmin()])
        ends = (min(least, int(self.nearest[least])), max(least, int(self.nearest[least])))
        if ends[0] not in first or self.nearest[ends[0]] != ends[1]:
            # A circle of equal costs: the cheapest pair of all is always a right choice.
            first = np.array([ends[0]])
            self.nearest[ends[0]] = ends[1]
        second = self.nearest[first]
        self._merge(first, second)
        target = np.arange(self.n)
        target[second] = first
        self.live = np.setdiff1d(live, second, assume_unique=True)
        changed = np.zeros(self.n, dtype=bool)
        changed[first] = changed[second] = True
        stale = self.live[changed[self.nearest[self.live]] | changed[self.live]]
        self._relist(stale, first, second, target)
        self._look(stale)

    def finish(self) -> WardTree:
        """The last merges on a full matrix, then the tree."""
        live = self.live
        if len(live) > 1:
            mean, size = self.mean[live], self.size[live]
            cost = squared_distances(mean, mean).astype(np.float64)
            cost *= size[:, None] * size[None, :] / (size[:, None] + size[None, :])
            pairs, costs, weights = dense_merges(cost, size.astype(np.int64), self.cap)
            names = np.concatenate([self.node[live], self.n + self.made + np.arange(len(pairs))])
            if pairs:
                self.pairs.append(names[np.array(pairs)])
                self.costs.append(np.maximum(costs, 0.0))
                self.weights.append(np.array(weights, dtype=np.float64))
        if not self.pairs:
            return _tree(self.n, [], [], [])
        return _in_order(
            self.n,
            np.concatenate(self.pairs),
            np.concatenate(self.costs),
            np.concatenate(self.weights),
        )

    def _merge(self, first: Rows, second: Rows) -> None:
        a, b = self.size[first], self.size[second]
        cost = np.maximum(
            self._cost(first, second), np.maximum(self.floor[first], self.floor[second])
        )
        self.pairs.append(np.stack([self.node[first], self.node[second]], axis=1))
        self.costs.append(cost)
        self.weights.append(a + b)
        left = (a / (a + b)).astype(np.float32)[:, None]
        self.mean[first] = left * self.mean[first] + (1.0 - left) * self.mean[second]
        # What neither lists costs at least this much to merge with both (Lance & Williams), for
        # any size from 1 to endless; the update is monotone in the size, so the ends suffice.
        near, far = self.radius[first], self.radius[second]
        small = ((a + 1) * near + (b + 1) * far - cost) / (a + b + 1)
        with np.errstate(invalid="ignore"):
            radius = np.minimum(small, near + far - cost)
        self.radius[first] = np.where(np.isnan(radius), -np.inf, radius)
        self.size[first] = a + b
        self.floor[first] = cost
        self.node[first] = self.n + self.made + np.arange(len(first))
        self.made += len(first)

    def _relist(self, stale: Rows, first: Rows, second: Rows, target: Rows) -> None:
        """Candidates of merged clusters: both lists together, cut to the cheapest."""
        both = np.concatenate([self.listed[first], self.listed[second]], axis=1)
        both = np.where(both >= 0, target[both], -1).astype(np.int32)
        both = _without_repeats(both, first)
        costs = self._list_costs(first, both)
        rank = np.argsort(costs, axis=1, kind="stable")
        both = np.take_along_axis(both, rank, axis=1)
        dropped = np.take_along_axis(costs, rank[:, _LIST : _LIST + 1], axis=1)[:, 0]
        self.radius[first] = np.minimum(self.radius[first], dropped)
        self.listed[first] = both[:, :_LIST]
        others = np.setdiff1d(stale, first, assume_unique=True)
        lists = self.listed[others]
        lists = np.where(lists >= 0, target[lists], -1).astype(np.int32)
        self.listed[others] = _without_repeats(lists, others)
        # Lists of the rest still name merged slots; they are mapped when they are needed.
        rest = np.setdiff1d(self.live, stale, assume_unique=True)
        lists = self.listed[rest]
        self.listed[rest] = np.where(lists >= 0, target[lists], -1)

    def _look(self, rows: Rows) -> None:
        """Find the nearest of each row from its list, or from all if the list is no proof."""
        costs = self._list_costs(rows, self.listed[rows])
        least = costs.min(axis=1)
        names = np.where(costs == least[:, None], self.listed[rows], np.iinfo(np.int32).max)
        self.best[rows] = least
        self.nearest[rows] = names.min(axis=1)
        self._refresh(rows[(least > self.radius[rows]) | (self.listed[rows] < 0).all(axis=1)])

    def _list_costs(self, rows: Rows, lists: NDArray[np.int32]) -> Doubles:
        """(r, l) costs; infinite for an empty place or beyond the cap."""
        costs = np.full(lists.shape, np.inf)
        at, place = np.nonzero(lists >= 0)
        costs[at, place] = self._cost(rows[at], lists[at, place])
        return costs

    def _cost(self, left: Rows, right: Rows | NDArray[np.int32]) -> Doubles:
        result = np.empty(len(left))

        def fill(part: slice) -> None:
            apart = self.mean[left[part]]
            apart -= self.mean[right[part]]
            result[part] = np.einsum("ij,ij->i", apart, apart)

        in_parallel(fill, blocks(len(left), 2048))
        a, b = self.size[left], self.size[right]
        result *= a * b / (a + b)
        result[a + b > self.cap] = np.inf
        return result

    def _refresh(self, rows: Rows) -> None:
        """Compare rows with every live cluster; list the cheapest, and set the radius."""
        if len(rows) == 0:
            return
        live = self.live
        mean = self.mean if len(live) == self.n else self.mean[live]
        turned = mean.T
        norm = np.einsum("ij,ij->i", mean, mean)
        share = (1.0 / self.size[live]).astype(np.float32)
        size = self.size[live]
        place = np.full(self.n, -1, dtype=np.int64)
        place[live] = np.arange(len(live))
        width = min(_LIST, len(live) - 1)
        height = max(_TILE_ENTRIES // len(live), 16)
        full = self.size.max() * 2 > self.cap

        def fill(part: slice) -> None:
            mine = rows[part]
            own = place[mine]
            costs = mean[own] @ turned
            costs *= -2.0
            costs += norm[own, None]
            costs += norm[None, :]
            costs /= share[own, None] + share[None, :]
            costs[np.arange(len(mine)), own] = np.inf
            if full:
                costs[(size[own, None] + size[None, :]) > self.cap] = np.inf
            limit = np.partition(costs, width - 1, axis=1)[:, width - 1]
            hits = np.flatnonzero(costs <= limit[:, None])
            row, column = np.divmod(hits, costs.shape[1])
            starts = np.searchsorted(row, np.arange(len(mine)))
            slot = np.arange(len(row)) - starts[row]
            kept = (slot < width) & np.isfinite(costs.ravel()[hits])
            self.listed[mine] = -1
            self.listed[mine[row[kept]], slot[kept]] = live[column[kept]]
            # Rounding of the product, in units of cost, keeps the radius true.
            slack = _SLACK / (share[own] + share.min())
            self.radius[mine] = np.where(np.isfinite(limit), limit - slack, np.inf)

        in_parallel(fill, blocks(len(rows), height))
        costs = self._list_costs(rows, self.listed[rows])
        least = costs.min(axis=1)
        names = np.where(costs == least[:, None], self.listed[rows], np.iinfo(np.int32).max)
        self.best[rows] = least
        self.nearest[rows] = names.min(axis=1)


def _without_repeats(lists: NDArray[np.int32], own: Rows) -> NDArray[np.int32]:
    """Each name once a row, the row's own name never; -1 fills the rest."""
    lists = np.sort(lists, axis=1)
    lists[:, 1:][lists[:, 1:] == lists[:, :-1]] = -1
    lists[lists == own[:, None]] = -1
    return lists


def _in_order(n: int, pairs: NDArray[np.int64], costs: Doubles, weights: Doubles) -> WardTree:
    """Merges by rising cost, renamed to their new places; a parent comes after its children."""
    rank = np.lexsort((np.arange(len(costs)), costs))
    name = np.arange(n + len(costs))
    name[n + rank] = n + np.arange(len(costs))
    return WardTree(
        n,
        np.sort(name[pairs[rank]], axis=1),
        np.sqrt(2.0 * costs[rank]),
        weights[rank].astype(np.int64),
    )


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
