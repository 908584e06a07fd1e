"""Trying settings and keeping the best by composite score."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from imageclust.clustering.bounds import bounded_kmeans, fit_bounds
from imageclust.clustering.choice import MeasuredChoice, grid_of_k, measure_choice
from imageclust.clustering.config import ClusteringConfig, feasible_clusters
from imageclust.clustering.geometry import (
    Floats,
    Labels,
    distinct_rows,
    relabel_by_size,
    rotate,
)
from imageclust.clustering.kmeans import kmeans
from imageclust.clustering.quality import measure
from imageclust.clustering.records import SearchEntry
from imageclust.clustering.ward import DENSE_LIMIT, WardTree, ward_tree

TOP = 10


@dataclass(frozen=True, eq=False)
class SearchOutcome:
    """The winner of a search and what else was tried."""

    labels: Labels
    method: str
    settings: dict[str, Any]
    entries: tuple[SearchEntry, ...] = ()
    curves: dict[str, list[float]] = field(default_factory=dict)
    tried: int = 0


@dataclass(frozen=True, eq=False)
class Candidate:
    """One setting to try: ``run`` gives labels of the distinct rows."""

    method: str
    settings: dict[str, Any]
    run: Callable[[], Labels]


class SharedWork:
    """What several settings need, made once and only when asked for."""

    def __init__(self, rows: Floats, config: ClusteringConfig) -> None:
        self.rows = rows
        self.seed = config.seed
        self.max_size = config.max_size

    @cached_property
    def rotated(self) -> Floats:
        return rotate(self.rows)[0]

    @cached_property
    def tree(self) -> WardTree:
        return ward_tree(self.rows, max_size=self.max_size)

    def ward(self, k: int) -> Labels:
        return self.tree.cut(k)

    def kmeans(self, k: int) -> Labels:
        return kmeans(self.rotated, k, seed=self.seed).labels


def search(
    rows: Floats, config: ClusteringConfig, *, progress: Callable[[float], None]
) -> SearchOutcome:
    """Try the settings that the configuration asks for and keep the best.

    Args:
        rows: (n, d) float32, unit rows, any n.
        config: checked against n already.
        progress: called with a share from 0 to 1.
    """
    n = len(rows)
    if n == 0:
        return SearchOutcome(np.zeros(0, dtype=np.int32), _first_method(config), {})
    low, high = feasible_clusters(n, config)
    first, place = distinct_rows(rows)
    if high == 1 or len(first) == 1:
        start = np.zeros(n, dtype=np.int32)
        labels = _bounded(rows, start, config, (low, min(high, max(low, 1))))
        return SearchOutcome(labels, _first_method(config), {"clusters": int(labels.max()) + 1})
    started = time.monotonic()
    distinct = rows[first]
    choice = _choose(distinct, low, high, config)
    progress(0.1)
    shared = SharedWork(distinct, config)
    candidates = list(_candidates(shared, choice.window, config))
    entries: list[SearchEntry] = []
    for number, candidate in enumerate(candidates):
        late = config.time_budget_s is not None and (
            time.monotonic() - started > config.time_budget_s
        )
        if late and entries:
            break
        labels = candidate.run()[place]
        k = candidate.settings["clusters"]
        labels = relabel_by_size(_bounded(rows, labels, config, (k, k), method=candidate.method))
        metrics, _ = measure(rows, labels, config.weights)
        entries.append(
            SearchEntry(
                method=candidate.method,
                settings=candidate.settings,
                clusters=int(labels.max()) + 1,
                metrics=metrics,
                labels=labels,
            )
        )
        progress(0.1 + 0.9 * (number + 1) / len(candidates))
    entries.sort(key=lambda entry: -entry.composite)
    best = entries[0]
    if best.labels is None:
        raise AssertionError("a scored setting keeps its labels")
    return SearchOutcome(
        labels=best.labels,
        method=best.method,
        settings=best.settings,
        entries=tuple(entries[:TOP]),
        curves=choice.curves,
        tried=len(entries),
    )


def _choose(rows: Floats, low: int, high: int, config: ClusteringConfig) -> MeasuredChoice:
    if low == high:
        return MeasuredChoice((low,), low, {})
    high = min(high, max(len(rows), low))
    if low >= len(rows):
        return MeasuredChoice((low,), low, {})
    return measure_choice(rows, grid_of_k(low, high, len(rows)), seed=config.seed)


def _candidates(
    shared: SharedWork, window: tuple[int, ...], config: ClusteringConfig
) -> Iterator[Candidate]:
    for k in window:
        usable = min(k, len(shared.rows))
        if config.method != "ward":
            yield Candidate("kmeans", {"clusters": k}, partial(shared.kmeans, usable))
        if config.method in ("auto", "ward") and len(shared.rows) <= DENSE_LIMIT:
            yield Candidate("ward", {"clusters": k}, partial(shared.ward, usable))


def _bounded(
    rows: Floats,
    labels: Labels,
    config: ClusteringConfig,
    clusters: tuple[int, int],
    *,
    method: str = "",
) -> Labels:
    min_size = config.min_size or 1
    max_size = config.max_size or len(rows)
    fitted = fit_bounds(rows, labels, clusters=clusters, min_size=min_size, max_size=max_size)
    if method == "kmeans" and not np.array_equal(fitted, labels):
        return bounded_kmeans(rows, fitted, min_size=min_size, max_size=max_size)
    return fitted


def _first_method(config: ClusteringConfig) -> str:
    return "kmeans" if config.method == "auto" else config.method
