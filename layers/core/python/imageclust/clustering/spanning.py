"""The exact minimum spanning tree of mutual reachability (Campello, Moulavi & Sander 2013)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from imageclust.clustering.geometry import Floats, Labels, Rows
from imageclust.clustering.neighbours import PEAK_BLOCK, NeighbourGraph, block_starts
from imageclust.clustering.parallel import in_parallel

_ROUNDING = 2e-6


@dataclass(frozen=True, eq=False)
class Edges:
    """Edges sorted by (weight, lower row, higher row): a place is a rank, and ties are strict."""

    low: NDArray[np.int32]
    high: NDArray[np.int32]
    weight: Floats

    def __len__(self) -> int:
        return len(self.weight)

    def take(self, places: NDArray[np.intp] | NDArray[np.bool_]) -> "Edges":
        """The edges at ``places``, which must keep the order."""
        return Edges(self.low[places], self.high[places], self.weight[places])


@dataclass(frozen=True, eq=False)
class SpanningTree:
    """A minimum spanning tree over n rows.

    Attributes:
        edges: n - 1 edges; weights are cosine distances.
        core: (n,) float32 core distances.
    """

    edges: Edges
    core: Floats


def spanning_tree(graph: NeighbourGraph, neighbours: int) -> SpanningTree:
    """Exact minimum spanning tree of mutual reachability.

    The weight of (a, b) is the largest of their cosine distance and their two core distances.
    Borůvka rounds on the neighbour graph take an edge when it is provably the cheapest that leaves
    its component: an edge outside the graph is no shorter than the graph's radius at either end.
    One sweep over what is left supplies the other candidates.

    Args:
        graph: the neighbour graph.
        neighbours: which nearest other row gives the core distance; at most the graph's k.
    """
    n, k = graph.indices.shape
    core = graph.core_distances(neighbours)
    edges = _graph_edges(graph, core)
    complete = k == n - 1
    radius = np.full(n, np.inf, dtype=np.float32) if complete else graph.distances[:, -1]
    chosen, component = _boruvka(n, edges, radius)
    if component.max(initial=0) > 0:
        links = _sorted_edges(
            _known_links(graph, core, component, edges),
            *_between(graph, core, component, edges),
        )
        chosen = _sorted_edges(chosen, links.take(_kruskal(component, links)))
    return SpanningTree(chosen, core)


def _sorted_edges(*parts: Edges) -> Edges:
    left = np.concatenate([part.low for part in parts])
    right = np.concatenate([part.high for part in parts])
    weight = np.concatenate([part.weight for part in parts])
    low, high = np.minimum(left, right), np.maximum(left, right)
    rank = np.lexsort((high, low, weight))
    return Edges(low[rank], high[rank], weight[rank])


def _graph_edges(graph: NeighbourGraph, core: Floats) -> Edges:
    """Each edge of the graph once, with its mutual reachability."""
    n, k = graph.indices.shape
    left = np.repeat(np.arange(n, dtype=np.int32), k)
    right = graph.indices.ravel()
    key = np.minimum(left, right).astype(np.int64) * n + np.maximum(left, right)
    once = np.unique(key, return_index=True)[1]
    left, right = left[once], right[once]
    weight = np.maximum(graph.distances.ravel()[once], np.maximum(core[left], core[right]))
    return _sorted_edges(Edges(left, right, weight))


def _boruvka(n: int, edges: Edges, radius: Floats) -> tuple[Edges, Labels]:
    """Edges that are provably in the tree, and the components that they make."""
    component = np.arange(n, dtype=np.int32)
    alive = np.arange(len(edges))
    taken: list[Rows] = []
    count = n
    while count > 1:
        a, b = component[edges.low[alive]], component[edges.high[alive]]
        outside = a != b
        alive, a, b = alive[outside], a[outside], b[outside]
        if len(alive) == 0:
            break
        reach = np.full(count, np.inf, dtype=np.float32)
        np.minimum.at(reach, component, radius)
        # A place is a rank; written backwards, the cheapest edge of each component stays.
        from_a = np.full(count, len(edges), dtype=np.int64)
        from_b = from_a.copy()
        from_a[a[::-1]] = alive[::-1]
        from_b[b[::-1]] = alive[::-1]
        best = np.minimum(from_a, from_b)
        owner = np.flatnonzero(best < len(edges))
        proven = edges.weight[best[owner]] <= reach[owner]
        useful = np.unique(best[owner[proven]])
        if len(useful) == 0:
            break
        taken.append(useful)
        links = (component[edges.low[useful]], component[edges.high[useful]])
        joined = coo_matrix((np.ones(len(useful)), links), shape=(count, count))
        count, names = connected_components(joined, directed=False)
        component = names[component].astype(np.int32)
    kept = np.sort(np.concatenate(taken)) if taken else np.zeros(0, dtype=np.int64)
    return edges.take(kept), component


def _known_links(graph: NeighbourGraph, core: Floats, component: Labels, edges: Edges) -> Edges:
    """Real edges that join all components: the graph's, and one from each to the densest row."""
    outside = edges.take(component[edges.low] != component[edges.high])
    rank = np.lexsort((np.arange(len(core)), core, component))
    heads = rank[np.unique(component[rank], return_index=True)[1]]
    densest = heads[int(core[heads].argmin())]
    heads = heads[heads != densest]
    weight = np.maximum(1.0 - graph.rows[heads] @ graph.rows[densest], 0.0)
    weight = np.maximum(weight, np.maximum(core[heads], core[densest])).astype(np.float32)
    star = Edges(heads.astype(np.int32), np.full(len(heads), densest, dtype=np.int32), weight)
    return _sorted_edges(outside, star)


def _between(graph: NeighbourGraph, core: Floats, component: Labels, edges: Edges) -> list[Edges]:
    """Cheapest edges outside the graph between components, where they can matter.

    An edge between two components matters only below the bottleneck of the path that already
    joins them. Blocks of rows whose highest inner product is below that for all their components
    are skipped; the neighbour graph knows these peaks.
    """
    n, count = len(core), int(component.max()) + 1
    most = _bottlenecks(component, _known_links(graph, core, component, edges), count)
    most += _ROUNDING
    np.fill_diagonal(most, -np.inf)
    rows, owner = graph.order, component[graph.order]
    vectors, own_core = np.ascontiguousarray(graph.rows[rows]), core[rows]
    starts = block_starts(n)
    present = [np.unique(owner[start : start + PEAK_BLOCK]) for start in starts]
    reach = np.stack([most[names].max(axis=0) for names in present])
    between = np.stack([reach[:, names].max(axis=1) for names in present], axis=1)
    wanted = np.triu(graph.peaks >= 1.0 - between - _ROUNDING)

    def sweep(block: int) -> Edges | None:
        others = np.flatnonzero(wanted[block])
        if len(others) == 0:
            return None
        first = int(starts[block])
        columns = (starts[others][:, None] + np.arange(PEAK_BLOCK)).ravel()
        columns = columns[columns < n]
        scores = vectors[first : first + PEAK_BLOCK] @ vectors[columns].T
        hits = np.flatnonzero(scores >= 1.0 - reach[block, owner[columns]])
        row, column = np.divmod(hits, len(columns))
        score = scores.ravel()[hits]
        row, column = row + first, columns[column]
        weight = np.maximum(1.0 - score, np.maximum(own_core[row], own_core[column]))
        a, b = owner[row], owner[column]
        fits = weight <= most[a, b]
        row, column, weight, a, b = row[fits], column[fits], weight[fits], a[fits], b[fits]
        # The cheapest of each pair of components is enough.
        key = np.minimum(a, b).astype(np.int64) * count + np.maximum(a, b)
        rank = np.lexsort((rows[column], rows[row], weight, key))
        kept = rank[np.unique(key[rank], return_index=True)[1]]
        return Edges(
            rows[row[kept]].astype(np.int32),
            rows[column[kept]].astype(np.int32),
            weight[kept].astype(np.float32),
        )

    return [part for part in in_parallel(sweep, range(len(starts))) if part is not None]


def _bottlenecks(component: Labels, links: Edges, count: int) -> Floats:
    """(count, count) the least possible largest weight on a way between two components."""
    chosen = links.take(_kruskal(component, links))
    result = np.full((count, count), np.inf, dtype=np.float32)
    groups: dict[int, list[int]] = {name: [name] for name in range(count)}
    home = np.arange(count)
    ends = zip(component[chosen.low], component[chosen.high], chosen.weight, strict=True)
    for a, b, weight in ends:
        left, right = int(home[a]), int(home[b])
        if len(groups[left]) < len(groups[right]):
            left, right = right, left
        result[np.ix_(groups[left], groups[right])] = weight
        result[np.ix_(groups[right], groups[left])] = weight
        home[groups[right]] = left
        groups[left] += groups.pop(right)
    return result


def _kruskal(component: Labels, links: Edges) -> Rows:
    """Places of the links, cheapest first, that join the components into one."""
    parent = list(range(int(component.max()) + 1))
    kept: list[int] = []
    ends = zip(component[links.low].tolist(), component[links.high].tolist(), strict=True)
    for place, (x, y) in enumerate(ends):
        a, b = x, y
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        if a != b:
            parent[a] = b
            kept.append(place)
            if len(kept) == len(parent) - 1:
                break
    return np.array(kept, dtype=np.int64)
