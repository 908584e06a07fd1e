"""The exact neighbour graph, made once for all settings.

One symmetric sweep of tiles finds the k most similar rows of every row. Rows are first ordered by
a coarse grouping, so that each row's group alone gives a good k-th score and few pairs of the
sweep pass it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imageclust.clustering.geometry import Floats, Rows, blocks
from imageclust.clustering.kmeans import lloyd
from imageclust.clustering.parallel import in_parallel

_TILE = 2048
_STRIP = 256
_ROUNDING = 2e-6
PEAK_BLOCK = 64


@dataclass(frozen=True, eq=False)
class NeighbourGraph:
    """The k nearest other rows of each row.

    Attributes:
        rows: (n, d) float32 unit rows.
        indices: (n, k) int32, nearest first.
        distances: (n, k) float32 cosine distances, rising.
        order: (n,) a permutation that puts similar rows side by side.
        peaks: (b, b) float32, the highest inner product between two blocks of 64 rows of that
            order; with it, later sweeps skip what is far apart.
    """

    rows: Floats
    indices: NDArray[np.int32]
    distances: Floats
    order: Rows
    peaks: Floats

    def core_distances(self, neighbours: int) -> Floats:
        """(n,) cosine distance to the ``neighbours``-th nearest other row; 0 for none."""
        if neighbours == 0:
            return np.zeros(len(self.rows), dtype=np.float32)
        return self.distances[:, min(neighbours, self.distances.shape[1]) - 1]


def neighbour_graph(rows: Floats, k: int, *, cheap: Floats, seed: int = 0) -> NeighbourGraph:
    """Exact cosine k-nearest-neighbour graph, without the row itself.

    Args:
        rows: (n, d) float32, unit rows, n ≥ 2.
        k: neighbours a row; n - 1 when there are fewer.
        cheap: (n, c) leading principal columns, for the coarse order only.
        seed: of the coarse order (the graph does not depend on it, but for ties).
    """
    n = len(rows)
    k = min(k, n - 1)
    order = _coarse_order(cheap, seed)
    sorted_rows = np.ascontiguousarray(rows[order])
    sweep = _Sweep(sorted_rows, k)
    indices, scores = sweep.run()
    graph_indices = np.empty((n, k), dtype=np.int32)
    graph_distances = np.empty((n, k), dtype=np.float32)
    graph_indices[order] = order[indices]
    graph_distances[order] = np.maximum(1.0 - scores, 0.0)
    return NeighbourGraph(rows, graph_indices, graph_distances, order, sweep.peaks)


def _coarse_order(cheap: Floats, seed: int) -> Rows:
    n = len(cheap)
    groups = n // 256
    if groups < 2:
        return np.arange(n)
    rng = np.random.default_rng((seed, 33))
    centres = cheap[np.sort(rng.choice(n, groups, replace=False))].copy()
    fit = lloyd(cheap, centres, rounds=6)
    return np.lexsort((np.arange(n), fit.labels))


Hits = tuple[NDArray[np.int64], NDArray[np.int64], Floats]


def block_starts(n: int) -> Rows:
    """First rows of the blocks of 64."""
    return np.arange(0, n, PEAK_BLOCK)


class _Sweep:
    """One pass over all pairs of sorted rows, keeping the k best of each row."""

    def __init__(self, rows: Floats, k: int) -> None:
        self.rows = rows
        self.n = len(rows)
        self.k = k
        self.tiles = [slice(s, min(s + _TILE, self.n)) for s in range(0, self.n, _TILE)]
        self.floor = np.full(self.n, -np.inf, dtype=np.float32)
        count = len(block_starts(self.n))
        self.peaks = np.empty((count, count), dtype=np.float32)

    def run(self) -> tuple[NDArray[np.int32], Floats]:
        numbers = range(len(self.tiles))
        pending = [[own] for own in in_parallel(self._within, numbers)]
        pairs = [(a, b) for a in numbers for b in numbers if a < b]
        found = in_parallel(self._between, pairs)
        for (a, b), (mine, theirs) in zip(pairs, found, strict=True):
            pending[a].append(mine)
            pending[b].append(theirs)
        indices = np.empty((self.n, self.k), dtype=np.int32)
        scores = np.empty((self.n, self.k), dtype=np.float32)

        def finish(number: int) -> None:
            tile = self.tiles[number]
            indices[tile], scores[tile] = self._best(tile, pending[number])

        in_parallel(finish, numbers)
        return indices, scores

    def _within(self, number: int) -> Hits:
        """The best of a tile's rows among themselves, and with them a bound of each k-th score."""
        tile = self.tiles[number]
        own = self.rows[tile]
        scores = np.empty((len(own), len(own)), dtype=np.float32)
        for part in blocks(len(own), _STRIP):
            # The upper half mirrored: NumPy's own way for a product with itself saves nothing.
            np.matmul(own[part], own[part.start :].T, out=scores[part, part.start :])
            scores[part.stop :, part] = scores[part, part.stop :].T
        self._keep_peaks((number, number), scores)
        np.fill_diagonal(scores, -np.inf)
        place = len(scores) - self.k
        if place > 0:
            self.floor[tile] = np.partition(scores, place, axis=1)[:, place] - _ROUNDING
        row, column = np.nonzero(scores >= np.maximum(self.floor[tile], -2.0)[:, None])
        return row, column + tile.start, scores[row, column]

    def _between(self, pair: tuple[int, int]) -> tuple[Hits, Hits]:
        """What a pair of tiles gives to the rows of the first, and of the second."""
        tile, other = (self.tiles[number] for number in pair)
        floor, other_floor = self.floor[tile], self.floor[other]
        scores = self.rows[tile] @ self.rows[other].T
        self._keep_peaks(pair, scores)
        mask = scores >= floor[:, None]
        mask |= scores >= other_floor
        hits = np.flatnonzero(mask)
        row, column = np.divmod(hits, scores.shape[1])
        score = scores.ravel()[hits]
        here, there = score >= floor[row], score >= other_floor[column]
        return (
            (row[here], column[here] + other.start, score[here]),
            (column[there], row[there] + tile.start, score[there]),
        )

    def _keep_peaks(self, pair: tuple[int, int], scores: Floats) -> None:
        # A tile is a whole number of blocks, but for the last.
        down = np.stack([scores[part].max(axis=0) for part in blocks(len(scores), PEAK_BLOCK)])
        peaks = np.maximum.reduceat(down, block_starts(scores.shape[1]), axis=1)
        a, b = (number * (_TILE // PEAK_BLOCK) for number in pair)
        self.peaks[a : a + peaks.shape[0], b : b + peaks.shape[1]] = peaks
        self.peaks[b : b + peaks.shape[1], a : a + peaks.shape[0]] = peaks.T

    def _best(self, tile: slice, found: list[Hits]) -> tuple[NDArray[np.int32], Floats]:
        row, column, score = (np.concatenate(part) for part in zip(*found, strict=True))
        order = np.lexsort((column, -score, row))
        row, column, score = row[order], column[order], score[order]
        count = tile.stop - tile.start
        starts = np.searchsorted(row, np.arange(count))
        picks = starts[:, None] + np.arange(self.k)
        return column[picks].astype(np.int32), score[picks]
