"""Prices of clusters: what makes rows that choose for themselves keep to the size bounds.

The dual of the bounded assignment: a row takes the cluster of least cost plus price, a full
cluster is dear and a poor one pays. Whatever the prices, rows that choose by them are assigned at
the least cost for the sizes that result, and the dual value is a lower bound on the cost of every
assignment within the bounds (Bertsekas 1998, chapter 10).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imageclust.clustering.geometry import Doubles, Floats

_STEPS = 12


@dataclass(frozen=True, eq=False)
class Choice:
    """What rows choose at given prices.

    Attributes:
        prices: (k,) float64.
        labels: (n,) the cluster of least cost plus price, ties to the lowest.
        own: (n,) float32, that least.
        second: (n,) float32, the least of the other clusters; infinite when there is none.
        dual: lower bound on the cost of any assignment within the bounds.
        wrong: rows beyond the bounds of their cluster, or missing in it.
        step: (k,) change after which each cluster alone would be within its bounds.
    """

    prices: Doubles
    labels: NDArray[np.int64]
    own: Floats
    second: Floats
    dual: float
    wrong: int
    step: Doubles


def settle(
    cost: Floats,
    prices: Doubles,
    *,
    min_size: int,
    max_size: int,
    enough: int = 0,
    steps: int = _STEPS,
) -> Choice:
    """Raise the dual from given prices until at most ``enough`` rows are out of bounds.

    Every cluster takes the step that would mend it alone, all at once; when that lowers the dual,
    half of the step is tried.

    Args:
        cost: (n, k) float32, finite.
        prices: (k,) where to start.
        min_size: fewest rows a cluster.
        max_size: most rows a cluster.
        enough: rows out of bounds that do no harm.
        steps: most prices tried.
    """
    best = _choose(cost, prices, min_size, max_size)
    share = 1.0
    for _ in range(steps - 1):
        if best.wrong <= enough:
            break
        tried = _choose(cost, best.prices + share * best.step, min_size, max_size)
        if tried.dual > best.dual:
            best, share = tried, 1.0
        else:
            share /= 2
    return best


def _choose(cost: Floats, prices: Doubles, min_size: int, max_size: int) -> Choice:
    n, k = cost.shape
    at = np.arange(n)
    priced = cost + prices.astype(np.float32)
    labels = priced.argmin(axis=1)
    own = priced[at, labels]
    priced[at, labels] = np.inf
    second = priced.min(axis=1)
    sizes = np.bincount(labels, minlength=k)
    wrong = np.maximum(sizes - max_size, 0) + np.maximum(min_size - sizes, 0)
    paid = np.where(prices > 0, prices * max_size, prices * min_size)
    # How much dearer a cluster may become before a row leaves it, or must become cheaper.
    priced -= own[:, None]
    priced[at, labels] = own - second
    step = np.zeros(k)
    dear = (sizes > max_size) | ((prices > 0) & (sizes < max_size))
    poor = ~dear & ((sizes < min_size) | ((prices < 0) & (sizes > min_size)))
    dear_step = -_smallest(priced, np.flatnonzero(dear), max_size)
    step[dear] = np.maximum(dear_step, -np.maximum(prices[dear], 0.0))
    poor_step = -_smallest(priced, np.flatnonzero(poor), min_size - 1)
    step[poor] = np.minimum(poor_step, np.maximum(-prices[poor], 0.0))
    total = float(own.sum(dtype=np.float64) - paid.sum())
    return Choice(prices, labels, own, second, total, int(wrong.sum()), step)


def _smallest(table: Floats, columns: NDArray[np.int64], place: int) -> Doubles:
    """The ``place``-th smallest of each column, infinite before the first and after the last."""
    if len(columns) == 0 or not 0 <= place < len(table):
        return np.full(len(columns), -np.inf if place < 0 else np.inf)
    picked = np.ascontiguousarray(table[:, columns].T)
    return np.partition(picked, place, axis=1)[:, place].astype(np.float64)
