"""DBSCAN and HDBSCAN, cut from one spanning tree.

Sources: Ester, Kriegel, Sander & Xu 1996 (DBSCAN); Campello, Moulavi & Sander 2013 and McInnes,
Healy & Astels 2017 (HDBSCAN with excess of mass).
"""

from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from imageclust.clustering.geometry import Doubles, Floats, Labels, Rows
from imageclust.clustering.neighbours import NeighbourGraph
from imageclust.clustering.spanning import SpanningTree

_LEAST_DISTANCE = 1e-6


def dbscan_labels(graph: NeighbourGraph, tree: SpanningTree, *, eps: float) -> Labels:
    """(n,) DBSCAN labels with cosine distance, as scikit-learn numbers them; -1 = noise.

    ``tree`` must come from ``spanning_tree(graph, min_samples - 1)``: scikit-learn counts the row
    itself among its ``min_samples`` neighbours.
    """
    n = len(graph.rows)
    core = tree.core <= eps
    labels = np.full(n, -1, dtype=np.int32)
    inside = tree.edges.take(tree.edges.weight <= eps)
    joined = coo_matrix((np.ones(len(inside)), (inside.low, inside.high)), shape=(n, n))
    names = connected_components(joined, directed=False)[1]
    cores = np.flatnonzero(core)
    found, first, inverse = np.unique(names[cores], return_index=True, return_inverse=True)
    place = np.empty(len(found), dtype=np.int32)
    place[np.argsort(first, kind="stable")] = np.arange(len(found))
    labels[cores] = place[inverse]
    # A row that is not core has fewer neighbours within eps than the graph holds: it sees all.
    border = np.flatnonzero(~core)
    near = graph.indices[border]
    reached = (graph.distances[border] <= eps) & core[near]
    most = np.iinfo(np.int32).max
    lowest = np.where(reached, labels[near], most).min(axis=1, initial=most)
    labels[border] = np.where(lowest < most, lowest, -1)
    return labels


@dataclass(frozen=True, eq=False)
class HdbscanFit:
    """(n,) labels, -1 = noise, and (n,) strength of membership, 0..1: how late a row leaves."""

    labels: Labels
    strengths: Floats


@dataclass(frozen=True, eq=False)
class Linkage:
    """Single linkage: children, height and size of each merge; node n + i is merge i."""

    left: list[int]
    right: list[int]
    height: list[float]
    size: list[int]


def single_linkage(graph: NeighbourGraph, tree: SpanningTree) -> Linkage:
    """The dendrogram of a spanning tree, heights in Euclidean distance of unit rows.

    Many edges weigh the same: a row on the rim is as far as its core distance from several denser
    rows, and where it joins two clusters at once it goes to either. No rule is right; that of the
    hdbscan package is taken, so that the labels are the package's.

    Args:
        graph: the neighbour graph that ``tree`` was made of.
        tree: a minimum spanning tree of mutual reachability.
    """
    low, high, weight = _in_order_of_growth(graph, tree)
    n = len(weight) + 1
    # Not a stable sort: the package's own call, which settles the order of equal weights.
    rank = np.argsort(weight)
    height = np.sqrt(2.0 * np.maximum(weight[rank], 0.0)).tolist()
    parent = list(range(2 * n - 1))
    size = [1] * n
    left, right = [], []
    for node, (x, y) in enumerate(zip(low[rank].tolist(), high[rank].tolist(), strict=True), n):
        a, b = x, y
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        parent[a] = parent[b] = node
        left.append(a)
        right.append(b)
        size.append(size[a] + size[b])
    return Linkage(left, right, height, size)


def _in_order_of_growth(graph: NeighbourGraph, tree: SpanningTree) -> tuple[Rows, Rows, Doubles]:
    """Ends and weights of the tree that Prim's algorithm grows from row 0, in the order it does.

    Of equal edges it takes the one to the lowest row, from the row that it reached first. Such
    edges weigh the core distance of an end and lead to one of the neighbours within it; all
    others are in any minimum spanning tree.
    """
    n, core = len(tree.core), tree.core
    row, place = np.nonzero(
        (graph.distances <= core[:, None]) & (core[graph.indices] <= core[:, None])
    )
    near = graph.indices[row, place]
    left = np.concatenate([row, near, tree.edges.low, tree.edges.high])
    right = np.concatenate([near, row, tree.edges.high, tree.edges.low])
    weight = np.concatenate([core[row], core[row], tree.edges.weight, tree.edges.weight])
    rank = np.argsort(left, kind="stable")
    starts = np.searchsorted(left[rank], np.arange(n + 1)).tolist()
    ends, weights = right[rank].tolist(), weight[rank].astype(np.float64).tolist()
    nearest, source = [np.inf] * n, [0] * n
    grown = [False] * n
    made: list[tuple[int, int, float]] = []
    heap = [(0.0, 0)]
    while heap:
        reach, here = heappop(heap)
        if grown[here]:
            continue
        grown[here] = True
        made.append((source[here], here, reach))
        for at in range(starts[here], starts[here + 1]):
            other, far = ends[at], weights[at]
            if far < nearest[other] and not grown[other]:
                nearest[other], source[other] = far, here
                heappush(heap, (far, other))
    low, high, reached = (np.array(column) for column in zip(*made[1:], strict=True))
    return low, high, reached


def hdbscan_labels(linkage: Linkage, *, min_cluster_size: int) -> HdbscanFit:
    """Condense the dendrogram and keep the clusters with the most excess of mass.

    Args:
        linkage: of n ≥ 2 rows.
        min_cluster_size: a smaller branch is not a cluster but falls out of one; at least 2.
    """
    n = len(linkage.left) + 1
    left, right, size = linkage.left, linkage.right, linkage.size
    density = [1.0 / max(height, _LEAST_DISTANCE) for height in linkage.height]
    root = 2 * n - 2
    cluster = [-1] * (2 * n - 1)
    leaving = [0.0] * (2 * n - 1)
    fallen = [False] * (2 * n - 1)
    cluster[root] = 0
    above, birth, stability = [-1], [0.0], [0.0]
    for node in range(root, n - 1, -1):
        mine, a, b = cluster[node], left[node - n], right[node - n]
        if fallen[node]:
            for child in (a, b):
                fallen[child], cluster[child], leaving[child] = True, mine, leaving[node]
            continue
        level = density[node - n]
        big = (size[a] >= min_cluster_size, size[b] >= min_cluster_size)
        for child, large in zip((a, b), big, strict=True):
            if all(big):
                cluster[child] = len(above)
                above.append(mine)
                birth.append(level)
                stability.append(0.0)
            else:
                cluster[child] = mine
                fallen[child], leaving[child] = not large, level
            if all(big) or not large:
                stability[mine] += size[child] * (level - birth[mine])
            # A row that stays to the end leaves where its last merge is.
            if child < n and large and not all(big):
                leaving[child] = level
    # A cluster ends where it splits, or where its last row leaves.
    death = [0.0] * len(above)
    for name in range(1, len(above)):
        death[above[name]] = birth[name]
    for row in range(n):
        death[cluster[row]] = max(death[cluster[row]], leaving[row])
    owner = np.array(_chosen(above, stability))[cluster[:n]]
    strengths = np.minimum(np.array(leaving[:n]) / np.maximum(death, 1e-300)[owner], 1.0)
    names, inverse = np.unique(owner, return_inverse=True)
    labels = inverse - int(names[0] == -1)
    return HdbscanFit(
        labels.astype(np.int32), np.where(labels >= 0, strengths, 0.0).astype(np.float32)
    )


def _chosen(above: list[int], stability: list[float]) -> list[int]:
    """Each cluster's ancestor that stays, -1 for none.

    Excess of mass, the root left out: a cluster stays if it outweighs the best below it.
    """
    count = len(above)
    below = [0.0] * count
    chosen = [False] * count
    for name in range(count - 1, 0, -1):
        chosen[name] = stability[name] >= below[name]
        below[above[name]] += max(stability[name], below[name])
    owner = [-1] * count
    for name in range(1, count):
        # Parents come first: the highest chosen ancestor owns everything below it.
        if owner[above[name]] >= 0:
            owner[name] = owner[above[name]]
        elif chosen[name]:
            owner[name] = name
    return owner
