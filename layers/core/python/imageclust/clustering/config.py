"""What a caller may ask of the clustering engine, and which requests no clustering can meet."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from imageclust.errors import InfeasibleBounds, InvalidInput

Method = Literal["auto", "ward", "kmeans", "gmm", "hdbscan", "dbscan"]
Mode = Literal["fast", "balanced", "comprehensive"]
OutlierPolicy = Literal["keep", "assign"]


@dataclass(frozen=True)
class ClusteringConfig:
    """One clustering request.

    Attributes:
        method: one method, or ``auto`` to try all that fit and keep the best composite score.
        mode: how many settings a search tries.
        clusters: exact number of clusters.
        target_size: mean images a cluster; ignored when ``clusters`` is given.
        min_size: fewest images in any cluster.
        max_size: most images in any cluster.
        outliers: ``keep`` leaves noise apart, ``assign`` gives it to its nearest cluster.
        seed: the only source of randomness.
        time_budget_s: a search starts no new setting after this many seconds.
        weights: silhouette, balance and noise in the composite score; scaled to sum to one.
    """

    method: Method = "auto"
    mode: Mode = "fast"
    clusters: int | None = None
    target_size: int | None = None
    min_size: int | None = None
    max_size: int | None = None
    outliers: OutlierPolicy = "keep"
    seed: int = 0
    time_budget_s: float | None = None
    weights: tuple[float, float, float] = (0.3, 0.4, 0.3)


def check_bounds(n: int, config: ClusteringConfig) -> None:
    """Refuse a request that no clustering of ``n`` images can meet.

    Raises:
        InvalidInput: a value makes no sense whatever the number of images.
        InfeasibleBounds: the values make sense, but not for ``n`` images; the message names the
            feasible range.
    """
    _check_values(n, config)
    if n == 0:
        return
    low, high = _bounds(n, config)
    if config.min_size is not None and config.min_size > n:
        raise InfeasibleBounds(
            f"min_size {config.min_size} is more than the number of images, {n}; "
            f"feasible: min_size 1 to {n}"
        )
    if low > high:
        raise InfeasibleBounds(_no_split(n, config))
    if config.clusters is not None and not low <= config.clusters <= high:
        raise InfeasibleBounds(
            f"{_many(n, 'image')} cannot form {_many(config.clusters, 'cluster')}{_sizes(config)}; "
            f"feasible: {low} to {_many(high, 'cluster')}"
        )


def feasible_clusters(n: int, config: ClusteringConfig) -> tuple[int, int]:
    """The fewest and the most clusters that ``n`` images can form under the request."""
    check_bounds(n, config)
    if config.clusters is not None:
        return config.clusters, config.clusters
    low, high = _bounds(n, config)
    if config.target_size is not None:
        wanted = min(max(round(n / config.target_size), low), high)
        return wanted, wanted
    return low, high


def _bounds(n: int, config: ClusteringConfig) -> tuple[int, int]:
    low = 1 if config.max_size is None else math.ceil(n / config.max_size)
    high = n if config.min_size is None else n // config.min_size
    return low, high


def _check_values(n: int, config: ClusteringConfig) -> None:
    if n < 0:
        raise InvalidInput(f"the number of images must not be negative, got {n}")
    for name, value, allowed in (
        ("method", config.method, get_args(Method)),
        ("mode", config.mode, get_args(Mode)),
        ("outliers", config.outliers, get_args(OutlierPolicy)),
    ):
        if value not in allowed:
            raise InvalidInput(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
    for name, number in (
        ("clusters", config.clusters),
        ("target_size", config.target_size),
        ("min_size", config.min_size),
        ("max_size", config.max_size),
    ):
        if number is not None and number < 1:
            raise InvalidInput(f"{name} must be at least 1, got {number}")
    if (
        config.min_size is not None
        and config.max_size is not None
        and config.min_size > config.max_size
    ):
        raise InvalidInput(
            f"min_size {config.min_size} is larger than max_size {config.max_size}; "
            f"give min_size 1 to {config.max_size}"
        )
    if config.seed < 0:
        raise InvalidInput(f"seed must not be negative, got {config.seed}")
    if config.time_budget_s is not None and not config.time_budget_s > 0:
        raise InvalidInput(f"time_budget_s must be more than 0, got {config.time_budget_s}")
    weights = config.weights
    if len(weights) != 3 or not all(math.isfinite(w) and w >= 0 for w in weights):
        raise InvalidInput(f"weights must be three numbers of at least 0, got {weights}")
    if sum(weights) <= 0:
        raise InvalidInput("at least one of the three weights must be more than 0")


def _many(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def _sizes(config: ClusteringConfig) -> str:
    if config.min_size is not None and config.max_size is not None:
        return f" of {config.min_size} to {config.max_size} images each"
    if config.min_size is not None:
        return f" of at least {config.min_size} images each"
    if config.max_size is not None:
        return f" of at most {config.max_size} images each"
    return ""


def _no_split(n: int, config: ClusteringConfig) -> str:
    # Both bounds are set here: with one alone some number of clusters always works.
    lowest = config.min_size or 1
    highest = config.max_size or n
    most = max(n // highest, 1)
    return (
        f"{n} images cannot be split into clusters{_sizes(config)}: "
        f"{n // highest} clusters hold too few and {n // highest + 1} need too many; "
        f"feasible: max_size of at least {math.ceil(n / most)}, "
        f"or min_size of at most {n // math.ceil(n / highest)} (now {lowest})"
    )
