"""Size bounds that always hold, at the least cost.

Given costs of every row in every cluster, the cheapest assignment with sizes between a minimum
and a maximum is a minimum-cost flow. The flow network collapses to the ``k`` clusters: moving one
row from a to b costs ``min over x in a of cost(x, b) - cost(x, a)``, and successive shortest
paths over these k nodes keep the assignment optimal for its sizes (Ahuja, Magnanti & Orlin 1993,
chapter 9; Bradley, Bennett & Demiriz 2000 for the clustering).
"""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from imageclust.clustering.geometry import (
    Doubles,
    Floats,
    Labels,
    cluster_means,
    cluster_sizes,
    nearest_centre,
    squared_distances,
)
from imageclust.clustering.prices import settle
from imageclust.errors import InfeasibleBounds

_FEW_MOVES = 30


def bounded_assignment(
    cost: Floats, *, min_size: int, max_size: int, labels: Labels | None = None
) -> Labels:
    """The cheapest labels whose sizes lie in ``min_size..max_size``.

    Args:
        cost: (n, k) float32, finite.
        min_size: fewest rows a cluster.
        max_size: most rows a cluster.
        labels: where to start; must be a cheapest cluster of each row (default: found by prices).

    Raises:
        InfeasibleBounds: ``k · min_size ≤ n ≤ k · max_size`` does not hold.
    """
    n, k = cost.shape
    check_room(n, k, min_size, max_size)
    if labels is not None:
        return Flow(cost, labels.copy(), min_size=min_size, max_size=max_size).run()
    start = settle(
        cost, np.zeros(k), min_size=min_size, max_size=max_size, enough=few_moves(n), steps=40
    )
    labels = start.labels.astype(np.int32)
    return Flow(cost, labels, min_size=min_size, max_size=max_size).run()


def few_moves(n: int) -> int:
    """Rows that the flow moves as soon as better prices are found."""
    return max(_FEW_MOVES, n // 500)


def check_room(n: int, k: int, min_size: int, max_size: int) -> None:
    if not k * min_size <= n <= k * max_size:
        raise InfeasibleBounds(
            f"{n} images cannot form {k} clusters of {min_size} to {max_size} images; "
            f"feasible: {math.ceil(n / max_size)} to {n // max(min_size, 1)} clusters"
        )


class Flow:
    """Successive shortest paths over clusters; state of one assignment.

    ``step[a, b]`` is the least cost of moving one row from a to b, ``mover[a, b]`` that row.
    """

    def __init__(self, cost: Floats, labels: Labels, *, min_size: int, max_size: int) -> None:
        self.cost = cost
        self.labels = labels
        self.min_size = min_size
        self.max_size = max_size
        self.k = cost.shape[1]
        self.sizes = cluster_sizes(labels, self.k)
        # Slack against rounding, which could otherwise walk round a circle of equal costs for ever.
        self.slack = 1e-7 * (1e-12 + float(np.abs(cost).max(initial=0.0)))
        self.step = np.full((self.k, self.k), math.inf)
        self.mover = np.full((self.k, self.k), -1, dtype=np.int64)
        for cluster in range(self.k):
            self._refresh(cluster, np.arange(self.k))

    def run(self) -> Labels:
        """Repair the sizes, then take every move that still saves."""
        while True:
            over = self.sizes > self.max_size
            under = self.sizes < self.min_size
            if over.any():
                path, _ = self._shortest(over, self.sizes < self.max_size)
            elif under.any():
                path, _ = self._shortest(self.sizes > self.min_size, under)
            else:
                path, gain = self._shortest(self.sizes > self.min_size, self.sizes < self.max_size)
                if not gain < -self.slack * self.k or len(path) < 2:
                    return self.labels
            self._move(path)

    def prices(self, default: Doubles) -> Doubles:
        """What each cluster's place is worth: least cost of a move from it to one with room."""
        room = self.sizes < self.max_size
        if not room.any():
            return default
        price: Doubles = np.where(room, 0.0, math.inf)
        for _ in range(self.k):
            reached = (price[None, :] + self.step).min(axis=1)
            better = reached < price - self.slack
            if not better.any():
                break
            price[better] = reached[better]
        return np.where(np.isfinite(price), price, 0.0)

    def _shortest(
        self, sources: NDArray[np.bool_], targets: NDArray[np.bool_]
    ) -> tuple[list[int], float]:
        distance: Doubles = np.where(sources, 0.0, math.inf)
        before = np.full(self.k, -1, dtype=np.int64)
        columns = np.arange(self.k)
        for _ in range(self.k):
            through = distance[:, None] + self.step
            via = through.argmin(axis=0)
            reached = through[via, columns]
            better = reached < distance - self.slack
            if not better.any():
                break
            distance[better] = reached[better]
            before[better] = via[better]
        ends = np.where(targets, distance, math.inf)
        end = int(ends.argmin())
        path = [end]
        while before[path[-1]] >= 0 and len(path) <= self.k:
            path.append(int(before[path[-1]]))
        return path[::-1], float(ends[end])

    def _move(self, path: list[int]) -> None:
        moves = [(int(self.mover[a, b]), a, b) for a, b in pairwise(path)]
        for row, _, b in moves:
            self.labels[row] = b
        self.sizes[path[0]] -= 1
        self.sizes[path[-1]] += 1
        for row, a, b in moves:
            self._refresh(a, np.flatnonzero(self.mover[a] == row))
            steps = self.cost[row].astype(np.float64) - float(self.cost[row, b])
            cheaper = steps < self.step[b]
            cheaper[b] = False
            self.step[b, cheaper] = steps[cheaper]
            self.mover[b, cheaper] = row

    def _refresh(self, cluster: int, columns: NDArray[np.int64]) -> None:
        columns = columns[columns != cluster]
        if len(columns) == 0:
            return
        rows = np.flatnonzero(self.labels == cluster)
        if len(rows) == 0:
            self.step[cluster, columns] = math.inf
            self.mover[cluster, columns] = -1
            return
        own = self.cost[rows, cluster].astype(np.float64)[:, None]
        steps = self.cost[rows[:, None], columns].astype(np.float64) - own
        best = steps.argmin(axis=0)
        self.step[cluster, columns] = steps[best, np.arange(len(columns))]
        self.mover[cluster, columns] = rows[best]


def fit_bounds(
    rows: Floats, labels: Labels, *, clusters: tuple[int, int], min_size: int, max_size: int
) -> Labels:
    """Change a labelling as little as its bounds demand; no row is dropped.

    Too few clusters: the one with the most inertia is split; too many: the smallest joins its
    nearest. Then rows move at the least cost. Outliers (-1) stay apart unless they are needed to
    fill clusters.

    Args:
        rows: (n, d) float32.
        labels: (n,) int32, -1 = outlier.
        clusters: fewest and most clusters, feasible for n.
        min_size: fewest rows a cluster.
        max_size: most rows a cluster.
    """
    n = len(rows)
    low, high = clusters
    labels = np.asarray(labels, dtype=np.int32).copy()
    if (labels < 0).all():
        labels[:] = 0
    labels = _renumber(labels)
    inside = int((labels >= 0).sum())
    low = max(low, math.ceil(inside / max_size))
    k = int(labels.max()) + 1
    if low < high:
        labels = _dissolve_small(rows, labels, min_size, low)
        k = int(labels.max()) + 1
    while k > high:
        labels = _join_smallest(rows, labels, k)
        k -= 1
    needed = max(low * min_size, low)
    if inside < max(needed, k * min_size):
        labels = _take_in(rows, labels, k, max(needed, k * min_size) - inside)
    while k < low:
        labels = _split_widest(rows, labels, k)
        k += 1
    sizes = cluster_sizes(labels, k)
    if sizes.min() >= min_size and sizes.max() <= max_size:
        return labels
    members = np.flatnonzero(labels >= 0)
    cost = squared_distances(rows[members], cluster_means(rows, labels, k))
    own = labels[members]
    # Staying costs a little less than the cheapest move: rows move only where bounds demand it.
    cost[np.arange(len(members)), own] = cost.min(axis=1) - 1e-4 * float(cost.max())
    labels[members] = bounded_assignment(cost, min_size=min_size, max_size=max_size)
    if n and cluster_sizes(labels, k).min() < min_size:
        raise AssertionError("the flow left a cluster below its minimum")
    return labels


def _renumber(labels: Labels) -> Labels:
    result = np.full(len(labels), -1, dtype=np.int32)
    inside = labels >= 0
    result[inside] = np.unique(labels[inside], return_inverse=True)[1]
    return result


def _dissolve_small(rows: Floats, labels: Labels, min_size: int, fewest: int) -> Labels:
    """Where k is free, clusters under half the minimum go to their neighbours."""
    k = int(labels.max()) + 1
    sizes = cluster_sizes(labels, k)
    small = np.flatnonzero(2 * sizes < min_size)
    small = small[np.argsort(sizes[small], kind="stable")][: max(k - max(fewest, 1), 0)]
    if len(small) == 0:
        return labels
    kept = np.setdiff1d(np.arange(k), small)
    lost = np.flatnonzero(np.isin(labels, small))
    centres = cluster_means(rows, labels, k)[kept]
    labels = labels.copy()
    labels[lost] = kept[nearest_centre(rows[lost], centres)]
    return _renumber(labels)


def _join_smallest(rows: Floats, labels: Labels, k: int) -> Labels:
    sizes = cluster_sizes(labels, k)
    smallest = int(sizes.argmin())
    centres = cluster_means(rows, labels, k)
    apart = squared_distances(centres[smallest : smallest + 1], centres)[0]
    apart = apart * (sizes * sizes[smallest] / (sizes + sizes[smallest]))
    apart[smallest] = math.inf
    labels = labels.copy()
    labels[labels == smallest] = int(apart.argmin())
    return _renumber(labels)


def _take_in(rows: Floats, labels: Labels, k: int, count: int) -> Labels:
    """The ``count`` outliers nearest to a cluster join it."""
    outside = np.flatnonzero(labels < 0)
    apart = squared_distances(rows[outside], cluster_means(rows, labels, k))
    nearest = apart.argmin(axis=1)
    order = np.argsort(apart[np.arange(len(outside)), nearest], kind="stable")[:count]
    labels = labels.copy()
    labels[outside[order]] = nearest[order]
    return labels


def _split_widest(rows: Floats, labels: Labels, k: int) -> Labels:
    """Cut the cluster of the largest inertia in two along its main axis."""
    centres = cluster_means(rows, labels, k)
    members = np.flatnonzero(labels >= 0)
    difference = rows[members] - centres[labels[members]]
    spread = np.bincount(
        labels[members], weights=np.einsum("ij,ij->i", difference, difference), minlength=k
    )
    sizes = cluster_sizes(labels, k)
    spread[sizes < 2] = -1.0
    # Equal spread (all duplicates): the largest is cut, so that any k up to n is reached.
    widest = int(np.lexsort((-sizes, -spread))[0])
    inside = np.flatnonzero(labels == widest)
    order = _halves(rows[inside])
    labels = labels.copy()
    labels[inside[order]] = k
    return labels


def _halves(rows: Floats) -> NDArray[np.int64]:
    """Indices of one side of a 2-means cut, neither side empty."""
    far = int(squared_distances(rows, rows.mean(axis=0, keepdims=True))[:, 0].argmax())
    other = int(squared_distances(rows, rows[far : far + 1])[:, 0].argmax())
    centres = rows[[far, other]]
    side = nearest_centre(rows, centres)
    for _ in range(5):
        if not 0 < side.sum() < len(rows):
            break
        centres = cluster_means(rows, side, 2)
        side = nearest_centre(rows, centres)
    chosen = np.flatnonzero(side == 1)
    if 0 < len(chosen) < len(rows):
        return chosen
    return np.arange(len(rows) // 2)
