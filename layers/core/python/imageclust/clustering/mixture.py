"""A mixture of Gaussians with diagonal covariances in principal axes.

Source: Dempster, Laird & Rubin 1977. The basis matters: a diagonal covariance along principal axes
is another model than one along the original columns. Only leading columns are used, so that the
many small ones, mostly noise, do not drown the rest.
"""

import math
from dataclasses import dataclass

import numpy as np

from imageclust.clustering.geometry import Doubles, Floats, Labels, blocks, cluster_sizes
from imageclust.clustering.parallel import in_parallel

COLUMNS = 64
_SAMPLE = 12_000
_FLOOR_SHARE = 1e-2
_SUB_ROUNDS = 25
_FULL_ROUNDS = 4
_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class MixtureFit:
    """(n,) labels, (n,) probability of the own component, and the mean log likelihood of a row."""

    labels: Labels
    probabilities: Floats
    log_likelihood: float


@dataclass(frozen=True, eq=False)
class _Model:
    weights: Doubles
    means: Doubles
    variances: Doubles


def mixture(rotated: Floats, start: Labels, *, seed: int = 0, columns: int = COLUMNS) -> MixtureFit:
    """Expectation and maximisation from a first labelling: on a sample, then a few rounds on all.

    Args:
        rotated: (n, d) float32 in principal axes, most variance first.
        start: (n,) int32 labels 0..k-1, as K-Means gives them.
        seed: of the sample.
        columns: leading columns used.

    Raises:
        ValueError: the likelihood is not a number; nothing is made up in its place.
    """
    rows = np.ascontiguousarray(rotated[:, :columns])
    n, k = len(rows), int(start.max()) + 1
    floor = _FLOOR_SHARE * float(rows.var(axis=0, dtype=np.float64).mean()) + 1e-9
    hot = np.zeros((n, k), dtype=np.float32)
    hot[np.arange(n), start] = 1.0
    model = _maximise(rows, hot, floor)
    if n > _SAMPLE:
        rng = np.random.default_rng((seed, 5))
        picks = np.sort(rng.choice(n, _SAMPLE, replace=False))
        model, _, _ = _iterate(rows[picks], model, floor, _SUB_ROUNDS)
        model, shares, level = _iterate(rows, model, floor, _FULL_ROUNDS)
    else:
        model, shares, level = _iterate(rows, model, floor, _SUB_ROUNDS)
    if not math.isfinite(level):
        raise ValueError(f"the Gaussian mixture of {k} components did not converge")
    labels = shares.argmax(axis=1).astype(np.int32)
    used = np.flatnonzero(cluster_sizes(labels, k))
    names = np.full(k, -1, dtype=np.int32)
    names[used] = np.arange(len(used))
    return MixtureFit(names[labels], shares[np.arange(n), labels], level)


def _iterate(
    rows: Floats, model: _Model, floor: float, rounds: int
) -> tuple[_Model, Floats, float]:
    previous = -math.inf
    shares, level = _expect(rows, model)
    for _ in range(rounds):
        if level - previous < _TOLERANCE * abs(level):
            break
        model = _maximise(rows, shares, floor)
        previous = level
        shares, level = _expect(rows, model)
    return model, shares, level


def _expect(rows: Floats, model: _Model) -> tuple[Floats, float]:
    """(n, k) responsibilities and the mean log likelihood."""
    precision = 1.0 / model.variances
    constant = (
        np.log(model.weights)
        - 0.5 * np.log(2 * math.pi * model.variances).sum(axis=1)
        - 0.5 * (model.means**2 * precision).sum(axis=1)
    ).astype(np.float32)
    linear = np.ascontiguousarray((model.means * precision).T, dtype=np.float32)
    square = np.ascontiguousarray((-0.5 * precision).T, dtype=np.float32)
    shares = np.empty((len(rows), len(model.weights)), dtype=np.float32)

    def fill(part: slice) -> float:
        x = rows[part]
        tile = shares[part]
        np.matmul(x, linear, out=tile)
        tile += (x * x) @ square
        tile += constant
        peak = tile.max(axis=1, keepdims=True)
        np.exp(tile - peak, out=tile)
        total = tile.sum(axis=1, keepdims=True)
        tile /= total
        return float((peak + np.log(total)).sum(dtype=np.float64))

    level = sum(in_parallel(fill, blocks(len(rows), 4096))) / len(rows)
    return shares, level


def _maximise(rows: Floats, shares: Floats, floor: float) -> _Model:
    def part_sums(part: slice) -> tuple[Doubles, Doubles, Doubles]:
        x, turned = rows[part], np.ascontiguousarray(shares[part].T)
        first, second = turned @ x, turned @ (x * x)
        return (
            turned.sum(axis=1, dtype=np.float64),
            first.astype(np.float64),
            second.astype(np.float64),
        )

    made = in_parallel(part_sums, blocks(len(rows), 4096))
    weight, first, second = (sum(parts[1:], parts[0]) for parts in zip(*made, strict=True))
    weight = np.maximum(weight, 1e-10)
    means = first / weight[:, None]
    variances = np.maximum(second / weight[:, None] - means**2, 0.0) + floor
    return _Model(weight / weight.sum(), means, variances)
