"""K-Means under size bounds: a search in a sample by prices, then exact rounds on all rows.

Source: Bradley, Bennett & Demiriz 2000 (bounded assignment and centres in turn), Lattanzi & Sohler
2019 (a start improved by swaps, LS++), here with the clusters' prices in every distance.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imageclust.clustering.bounds import Flow, check_room, few_moves
from imageclust.clustering.geometry import (
    Doubles,
    Floats,
    Labels,
    cluster_means,
    cluster_sizes,
    cluster_sums,
    squared_distances,
)
from imageclust.clustering.kmeans import seed_centres
from imageclust.clustering.parallel import one_blas_thread
from imageclust.clustering.prices import Choice, settle

_COLUMNS = 48
_FEWEST_SAMPLED = 2000
_MOST_SAMPLED = 4000
_ROWS_A_CLUSTER = 20
_FIRST_ROUNDS = 15
_TURNS = 20
_OFFERS = 20
_SWAPS = 2
_TURN_ROUNDS = 3
_LAST_ROUNDS = 10
_TINY_GAIN = 3e-5


@dataclass(frozen=True, eq=False)
class _State:
    """(k, c) centres, (k,) prices, and the cost that they bound from below."""

    centres: Floats
    prices: Doubles
    dual: float


def bounded_start(
    rotated: Floats, k: int, *, min_size: int, max_size: int, seed: int = 0
) -> Labels:
    """(n,) a labelling near the bounds, from which ``bounded_kmeans`` ends well.

    Seeds, then turns of swaps and rounds in the leading columns of a sample; what does not lower
    the cost at settled prices is dropped.

    Args:
        rotated: (n, d) float32, as ``geometry.rotate`` gives them.
        k: number of clusters.
        min_size: fewest rows a cluster.
        max_size: most rows a cluster.
        seed: of the sample, the seeds and the swaps.

    Raises:
        InfeasibleBounds: ``k · min_size ≤ n ≤ k · max_size`` does not hold.
    """
    n = len(rotated)
    check_room(n, k, min_size, max_size)
    rng = np.random.default_rng((seed, k, 17))
    cheap = np.ascontiguousarray(rotated[:, :_COLUMNS])
    count = min(max(n // 2, _FEWEST_SAMPLED), _MOST_SAMPLED)
    count = min(n, max(count, _ROWS_A_CLUSTER * k))
    sample = cheap
    if count < n:
        sample = cheap[np.sort(rng.choice(n, count, replace=False))]
    share = count / n
    search = _Search(sample, math.floor(min_size * share), math.ceil(max_size * share), rng)
    with one_blas_thread():
        state = search.run(k)
        cost = squared_distances(cheap, state.centres)
    cost += state.prices.astype(np.float32)
    labels: Labels = cost.argmin(axis=1).astype(np.int32)
    # A cluster of the sample may be empty here: it gets the rows that lie farthest from their own.
    empty = np.flatnonzero(cluster_sizes(labels, k) == 0)
    far = np.argsort(-cost[np.arange(n), labels], kind="stable")
    return _fill(labels, empty, far, k)


def bounded_kmeans(
    rows: Floats, labels: Labels, *, min_size: int, max_size: int, rounds: int = 25
) -> Labels:
    """Alternate exact bounded assignment and centres, from a first labelling, until little is won.

    Prices of one round start the next, so that later flows have little left to move.
    """
    k = int(labels.max()) + 1
    check_room(len(rows), k, min_size, max_size)
    prices = np.zeros(k)
    previous = math.inf
    at = np.arange(len(rows))
    for _ in range(rounds):
        cost = squared_distances(rows, cluster_means(rows, labels, k))
        free = settle(
            cost, prices, min_size=min_size, max_size=max_size, enough=few_moves(len(rows))
        )
        flow = Flow(cost, free.labels.astype(np.int32), min_size=min_size, max_size=max_size)
        labels = flow.run()
        prices = flow.prices(free.prices)
        total = float(cost[at, labels].sum(dtype=np.float64))
        if previous - total <= _TINY_GAIN * abs(total):
            break
        previous = total
    return labels


def _fill(labels: Labels, empty: NDArray[np.int64], order: NDArray[np.int64], k: int) -> Labels:
    """Each empty cluster gets the first row of the order whose cluster can spare it."""
    sizes = cluster_sizes(labels, k)
    rows = iter(order)
    for cluster in empty:
        row = next(row for row in rows if sizes[labels[row]] > 1)
        sizes[labels[row]] -= 1
        sizes[cluster] = 1
        labels[row] = cluster
    return labels


class _Search:
    """The rows of one sample, their bounds, and the source of chance."""

    def __init__(
        self, rows: Floats, min_size: int, max_size: int, rng: np.random.Generator
    ) -> None:
        self.rows = rows
        self.min_size = min_size
        self.max_size = max_size
        self.rng = rng

    def run(self, k: int) -> _State:
        seeds = seed_centres(self.rows, k, rng=self.rng)
        best = self._rounds(_State(seeds, np.zeros(k), 0.0), _FIRST_ROUNDS)
        for _ in range(_TURNS if k > 1 else 0):
            swapped = self._swap(best)
            if swapped is None:
                continue
            tried = self._rounds(swapped, _TURN_ROUNDS)
            if tried.dual < best.dual:
                best = tried
        return self._rounds(best, _LAST_ROUNDS)

    def _settled(self, state: _State) -> tuple[Floats, Choice]:
        cost = squared_distances(self.rows, state.centres)
        return cost, settle(
            cost,
            state.prices,
            min_size=self.min_size,
            max_size=self.max_size,
            enough=len(cost) // 100,
        )

    def _rounds(self, state: _State, count: int) -> _State:
        """Lloyd's rounds in which each row chooses by cost and price."""
        k = len(state.centres)
        for _ in range(count):
            _, choice = self._settled(state)
            sizes = cluster_sizes(choice.labels, k)[:, None]
            sums = cluster_sums(self.rows, choice.labels, k)
            # A centre that no row chose stays where it is.
            centres = np.where(sizes > 0, sums / np.maximum(sizes, 1), state.centres)
            state = _State(centres.astype(np.float32), choice.prices, choice.dual)
        return state

    def _swap(self, state: _State) -> _State | None:
        """Replace centres that can be spared by rows drawn by what they cost; None for no gain."""
        centres, prices = state.centres.copy(), state.prices.copy()
        swaps = 0
        cost, choice = self._settled(state)
        for _ in range(_OFFERS):
            weights = np.cumsum(self._dearness(choice), dtype=np.float64)
            if weights[-1] <= 0:
                break
            pick = int(np.searchsorted(weights, self.rng.random() * weights[-1], side="right"))
            pick = min(pick, len(self.rows) - 1)
            offered = squared_distances(self.rows, self.rows[pick : pick + 1])[:, 0]
            kept = np.minimum(choice.own, offered)
            paid = np.where(prices > 0, prices * self.max_size, prices * self.min_size)
            loss = np.minimum(choice.second, offered) - kept
            value = paid + np.bincount(choice.labels, loss, minlength=len(prices))
            spared = int(value.argmin())
            total = float(kept.sum(dtype=np.float64) + value[spared] - paid.sum())
            if total >= choice.dual:
                continue
            centres[spared], prices[spared] = self.rows[pick], 0.0
            cost[:, spared] = offered
            choice = settle(cost, prices, min_size=self.min_size, max_size=self.max_size, steps=1)
            swaps += 1
            if swaps == _SWAPS:
                break
        return _State(centres, prices, 0.0) if swaps else None

    def _dearness(self, choice: Choice) -> Floats:
        """(n,) squared distance to the own centre, and the price where it is dear."""
        price = choice.prices[choice.labels]
        dear: Floats = np.maximum(choice.own - np.minimum(price, 0.0), 0.0).astype(np.float32)
        return dear
