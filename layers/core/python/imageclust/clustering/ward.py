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
)
from imageclust.clustering.neighbours import NeighbourGraph, neighbour_graph
from imageclust.clustering.parallel import in_parallel, one_blas_thread

DENSE_LIMIT = 1500
_LIST = 16
_CHEAP_COLUMNS = 48
_SLACK = 1e-6
_TILE_ENTRIES = 4_000_000
_CACHED = 64
_FEW = 0.02
_LARGEST = np.finfo(np.float32).max


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
        return _leaves(n)
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
    radius waits, with no nearest, until few others can merge; then all that wait are compared with
    all, which are fewer by then. Slots are places of first members; ties go to the lowest slot.
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
            # Only what may be the nearest is measured again, free of the product's rounding.
            near = graph.distances[:, :width] <= graph.distances[:, :1] + 2 * _SLACK
            near = near[:, : max(int(near.sum(axis=1).max()), 1)]
            lists = np.where(near, self.listed[:, : near.shape[1]], -1)
            self._settle(self.live, lists, self._list_costs(self.live, lists))
        else:
            self._refresh(self.live)

    def round(self) -> None:
        """Merge every reciprocal pair, then look again where the nearest changed."""
        # No feasible partner is left: sizes only grow, so none will come.
        self.live = live = self.live[self.best[self.live] < np.inf]
        first = self._reciprocal()
        if len(first) < _FEW * len(live):
            self._refresh(live[self.nearest[live] < 0])
            self.live = live = live[self.best[live] < np.inf]
            first = self._reciprocal()
        if len(live) == 0:
            return
        if len(first) == 0:
            # A circle of equal costs: the cheapest pair of all is always a right choice.
            least = int(live[self.best[live].argmin()])
            first = np.array([min(least, int(self.nearest[least]))])
            self.nearest[first] = max(least, int(self.nearest[least]))
        second = self.nearest[first]
        self._merge(first, second)
        target = np.arange(self.n)
        target[second] = first
        self.live = np.setdiff1d(live, second, assume_unique=True)
        # One place more for those that wait: -1 never changes.
        changed = np.zeros(self.n + 1, dtype=bool)
        changed[first] = changed[second] = True
        stale = self.live[changed[self.nearest[self.live]] | changed[self.live]]
        self._relist(first, second, target)
        others = np.setdiff1d(self.live, first, assume_unique=True)
        lists = self.listed[others]
        self.listed[others] = np.where(lists >= 0, target[lists], -1)
        stale = np.setdiff1d(stale, first, assume_unique=True)
        lists = _without_repeats(self.listed[stale], stale)
        self.listed[stale] = lists
        self._settle(stale, lists, self._list_costs(stale, lists))

    def _reciprocal(self) -> Rows:
        """The lower slot of each pair that are one another's nearest."""
        known = self.live[self.nearest[self.live] >= 0]
        partner = self.nearest[known]
        lower: Rows = known[(self.nearest[partner] == known) & (known < partner)]
        return lower

    def finish(self) -> WardTree:
        """The last merges on a full matrix, then the tree."""
        live = self.live
        if len(live) > 1:
            mean, size = self.mean[live], self.size[live]
            cost = _added_inertia(mean, size)
            pairs, costs, weights = dense_merges(cost, size, self.floor[live], self.cap)
            names = np.concatenate([self.node[live], self.n + self.made + np.arange(len(pairs))])
            self.pairs.append(names[pairs])
            self.costs.append(costs)
            self.weights.append(weights)
        if not self.pairs:
            return _leaves(self.n)
        return _in_order(
            self.n,
            np.concatenate(self.pairs),
            np.concatenate(self.costs),
            np.concatenate(self.weights),
        )

    def _merge(self, first: Rows, second: Rows) -> None:
        a, b = self.size[first], self.size[second]
        cost = self._list_costs(first, second[:, None])[:, 0]
        cost = np.maximum(cost, np.maximum(self.floor[first], self.floor[second]))
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

    def _relist(self, first: Rows, second: Rows, target: Rows) -> None:
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
        costs = np.take_along_axis(costs, rank[:, :_LIST], axis=1)
        self._settle(first, both[:, :_LIST], costs)

    def _settle(self, rows: Rows, lists: NDArray[np.int32], costs: Doubles) -> None:
        """The nearest of each row in its list; where the list is no proof, the row waits."""
        least = costs.min(axis=1)
        names = np.where(costs == least[:, None], lists, np.iinfo(np.int32).max)
        self.best[rows] = least
        self.nearest[rows] = names.min(axis=1)
        waits = rows[(least > self.radius[rows]) | (self.listed[rows] < 0).all(axis=1)]
        self.best[waits] = -np.inf
        self.nearest[waits] = -1

    def _list_costs(self, rows: Rows, lists: NDArray[np.signedinteger]) -> Doubles:
        """(r, l) costs; infinite for an empty place or beyond the cap."""
        costs = np.empty(lists.shape)

        def fill(part: slice) -> None:
            apart = self.mean[lists[part]]
            apart -= self.mean[rows[part], None]
            costs[part] = np.vecdot(apart, apart)

        in_parallel(fill, blocks(len(rows), _CACHED))
        a, b = self.size[rows, None], self.size[lists]
        costs *= a * b / (a + b)
        costs[(lists < 0) | (a + b > self.cap)] = np.inf
        return costs

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
            # Where fewer are feasible than the list holds, all of these are listed.
            hits = np.flatnonzero(costs <= np.minimum(limit, _LARGEST)[:, None])
            row, column = np.divmod(hits, costs.shape[1])
            starts = np.searchsorted(row, np.arange(len(mine)))
            slot = np.arange(len(row)) - starts[row]
            kept = slot < width
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


def _added_inertia(mean: Floats, size: Doubles) -> Doubles:
    """(m, m) what merging each pair costs, symmetric to the last bit."""
    # In double precision, or nearly equal rows would lose their distance to rounding.
    wide = mean.astype(np.float64)
    with one_blas_thread():
        cost: Doubles = wide @ wide.T
    norm = np.einsum("ij,ij->i", wide, wide)
    share = 1.0 / size
    for part in blocks(len(mean), _CACHED):
        tile = cost[part]
        tile *= -2.0
        tile += norm[part, None] + norm
        np.maximum(tile, 0.0, out=tile)
        tile /= share[part, None] + share
    return cost


def dense_merges(
    cost: Doubles, size: Doubles, floor: Doubles, cap: float
) -> tuple[NDArray[np.int64], Doubles, Doubles]:
    """Merges on a full, exactly symmetric (m, m) matrix of added inertia; overwrites what it gets.

    Args:
        cost: added inertia of each pair.
        size: (m,) weights.
        floor: (m,) the least that a merge of each may cost: what its own last merge cost.
        cap: most weight in a cluster.

    Returns:
        (p, 2) int64 pairs, named as in a linkage of m leaves, (p,) costs and (p,) weights; a
        merge comes after those it is made of and costs no less.
    """
    m = len(cost)
    node = np.arange(m)
    cost[size[:, None] + size[None, :] > cap] = np.inf
    np.fill_diagonal(cost, np.inf)
    nearest = cost.argmin(axis=1)
    best = cost[np.arange(m), nearest]
    pairs: list[NDArray[np.int64]] = []
    heights: list[Doubles] = []
    sizes: list[Doubles] = []
    made = 0
    while np.isfinite(best).any():
        open_ = np.flatnonzero(np.isfinite(best))
        if 2 * len(open_) < len(cost):
            # What has no partner left gets none later: sizes only grow.
            cost = cost[np.ix_(open_, open_)]
            place = np.empty(len(size), dtype=np.int64)
            place[open_] = np.arange(len(open_))
            size, node, floor, best = size[open_], node[open_], floor[open_], best[open_]
            nearest, open_ = place[nearest[open_]], np.arange(len(open_))
        partner = nearest[open_]
        first = open_[(nearest[partner] == open_) & (open_ < partner)]
        if len(first) == 0:
            # A circle of equal costs: the cheapest pair of all is always a right choice.
            least = int(best.argmin())
            first = np.array([min(least, int(nearest[least]))])
            nearest[first] = max(least, int(nearest[least]))
        second = nearest[first]
        a, b = size[first], size[second]
        height = cost[first, second]
        floor[first] = np.maximum(height, np.maximum(floor[first], floor[second]))
        pairs.append(np.stack([node[first], node[second]], axis=1))
        heights.append(floor[first])
        sizes.append(a + b)
        node[first] = m + made + np.arange(len(first))
        made += len(first)
        # Lance & Williams: first against what was there, then against each other.
        whole = np.empty((len(first), len(cost)))
        for part in blocks(len(first), _CACHED):
            halves = cost[first[part]], cost[second[part]]
            whole[part] = _merged_costs(*halves, (a[part], b[part], size), height[part])
        halves = whole[:, first].T, whole[:, second].T
        among = _merged_costs(*halves, (a, b, a + b), height)
        among = np.triu(among, 1)
        among += among.T
        np.fill_diagonal(among, np.inf)
        whole[:, first] = among
        whole[:, second] = np.inf
        size[first] = a + b
        whole[(a + b)[:, None] + size[None, :] > cap] = np.inf
        cost[first] = whole
        cost[:, first] = whole.T
        cost[second] = np.inf
        cost[:, second] = np.inf
        best[second] = np.inf
        changed = np.zeros(len(cost), dtype=bool)
        changed[first] = changed[second] = True
        stale = changed[nearest] & np.isfinite(best)
        stale[first] = True
        rows = np.flatnonzero(stale)
        nearest[rows] = cost[rows].argmin(axis=1)
        best[rows] = cost[rows, nearest[rows]]
    if not pairs:
        return np.zeros((0, 2), dtype=np.int64), np.zeros(0), np.zeros(0)
    return np.concatenate(pairs), np.concatenate(heights), np.concatenate(sizes)


def _merged_costs(
    left: Doubles, right: Doubles, sizes: tuple[Doubles, Doubles, Doubles], height: Doubles
) -> Doubles:
    """(r, m) costs of merged pairs against others, from those of their halves (overwritten)."""
    a, b, other = sizes[0][:, None], sizes[1][:, None], sizes[2][None, :]
    left *= a + other
    right *= b + other
    left += right
    left -= other * height[:, None]
    left /= a + b + other
    return left


def _leaves(n: int) -> WardTree:
    none = np.zeros(0, dtype=np.int64)
    return WardTree(n, none.reshape(0, 2), none.astype(np.float64), none)
