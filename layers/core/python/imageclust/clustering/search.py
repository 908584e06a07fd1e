"""Trying settings and keeping the best by composite score."""

import hashlib
import json
import time
import zlib
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from imageclust.clustering.bounded import bounded_kmeans, bounded_start
from imageclust.clustering.bounds import fit_bounds
from imageclust.clustering.choice import MeasuredChoice, grid_of_k, measure_choice
from imageclust.clustering.config import ClusteringConfig, feasible_clusters
from imageclust.clustering.geometry import (
    Floats,
    Labels,
    cluster_means,
    cluster_sizes,
    distinct_rows,
    nearest_centre,
    relabel_by_size,
)
from imageclust.clustering.grid import Candidate, candidates
from imageclust.clustering.methods import SharedWork
from imageclust.clustering.quality import measure
from imageclust.clustering.records import SearchEntry

TOP = 10
_NEAR_BEST = 0.85
_LITTLE_NOISE = 0.05
_MANY = 12_000
_MOST_SEARCHED = 256
Checkpoint = MutableMapping[str, bytes]


@dataclass(frozen=True, eq=False)
class SearchOutcome:
    """The winner of a search and what else was tried."""

    labels: Labels
    method: str
    settings: dict[str, Any]
    strengths: Floats | None = None
    entries: tuple[SearchEntry, ...] = ()
    curves: dict[str, list[float]] = field(default_factory=dict)
    tried: int = 0
    skipped: int = 0


def search(
    rows: Floats,
    config: ClusteringConfig,
    *,
    progress: Callable[[float], None],
    checkpoint: Checkpoint | None = None,
) -> SearchOutcome:
    """Try the settings that the configuration asks for and keep the best.

    Equal rows count once while methods look for structure, and every copy counts for the bounds
    and the scores.

    Args:
        rows: (n, d) float32, unit rows, any n.
        config: checked against n already.
        progress: called with a share from 0 to 1.
        checkpoint: finished settings are stored here and not tried again when they are found.
    """
    n = len(rows)
    if n == 0:
        return SearchOutcome(np.zeros(0, dtype=np.int32), _plain_method(config), {})
    low, high = feasible_clusters(n, config)
    if high == 1 or (rows == rows[0]).all():
        return _one_group(rows, config, (low, min(high, max(low, 1))))
    return _Search(rows, config, (low, high), checkpoint).run(progress)


class _Search:
    """One search: its shared work, its clock and what it found."""

    def __init__(
        self,
        rows: Floats,
        config: ClusteringConfig,
        feasible: tuple[int, int],
        checkpoint: Checkpoint | None,
    ) -> None:
        self.rows = rows
        self.config = config
        first, self.place = distinct_rows(rows)
        self.feasible = feasible
        self.started = time.monotonic()
        self.store = _Store(rows, config, checkpoint)
        distinct = rows if len(first) == len(rows) else rows[first]
        self.shared = SharedWork(distinct, seed=config.seed, max_size=config.max_size)
        self.entries: list[SearchEntry] = []
        self.failed: list[SearchEntry] = []
        self.strengths: dict[int, Floats | None] = {}

    def run(self, progress: Callable[[float], None]) -> SearchOutcome:
        low, high = self.feasible
        choice = _choose(self.shared, low, high, self.config)
        progress(0.1)
        todo = candidates(self.shared, choice.window, self.feasible, self.config)
        done = 0
        for candidate in todo:
            if self.entries and self._late():
                break
            self._try(candidate)
            done += 1
            progress(0.1 + 0.9 * done / len(todo))
        if not self.entries:
            single = _one_group(self.rows, self.config, self.feasible)
            return SearchOutcome(
                labels=single.labels,
                method=self.failed[0].method,
                settings=single.settings | {"fallback": "no setting found clusters"},
                entries=tuple(self.failed),
                curves=choice.curves,
                tried=done,
                skipped=len(todo) - done,
            )
        self._rank(choice)
        best = self.entries[0]
        if best.labels is None:
            raise AssertionError("the best setting keeps its labels")
        return SearchOutcome(
            labels=best.labels,
            method=best.method,
            settings=best.settings,
            strengths=self.strengths[id(best)],
            entries=tuple(self.entries[:TOP] + self.failed),
            curves=choice.curves,
            tried=done,
            skipped=len(todo) - done,
        )

    def _late(self) -> bool:
        budget = self.config.time_budget_s
        return budget is not None and time.monotonic() - self.started > budget

    def _try(self, candidate: Candidate) -> None:
        started = time.perf_counter()
        stored = self.store.read(candidate)
        strengths = None
        if stored is not None:
            labels, metrics = stored
        else:
            try:
                made = self.shared.run(candidate.method, candidate.settings)
            except (ValueError, ArithmeticError, np.linalg.LinAlgError) as problem:
                self.failed.append(
                    SearchEntry(candidate.method, candidate.settings, 0, {}, error=str(problem))
                )
                return
            labels = made.labels[self.place]
            if made.strengths is not None:
                strengths = made.strengths[self.place]
            labels = relabel_by_size(self._bounded(labels, candidate))
            metrics, _ = measure(self.rows, labels, self.config.weights)
            self.store.write(candidate, labels, metrics)
        entry = SearchEntry(
            candidate.method,
            candidate.settings,
            int(metrics["clusters"]),
            metrics,
            labels,
            seconds=time.perf_counter() - started,
        )
        self.entries.append(entry)
        self.strengths[id(entry)] = strengths

    def _rank(self, choice: MeasuredChoice) -> None:
        """Composite score among the settings that find nearly the most structure; then the rest.

        Balance alone would favour two even halves of anything, and a silhouette without its noise
        a handful of tight clusters: what counts is the silhouette times the share that is not
        noise, less the silhouette of a cloud without clusters cut into as many.
        """
        found = [
            e.metrics["silhouette"] * (1 - e.metrics["noise_share"])
            - choice.cloud_silhouette(e.clusters)
            for e in self.entries
        ]
        # What leaves many rows out scores on easy ones: it does not set the mark for the others.
        whole = [
            value
            for entry, value in zip(self.entries, found, strict=True)
            if entry.metrics["noise_share"] <= _LITTLE_NOISE
        ]
        peak = max(whole or found)
        for entry, value in zip(self.entries, found, strict=True):
            entry.metrics["near_best"] = float(peak <= 0 or value >= _NEAR_BEST * peak)
        self.entries.sort(key=lambda e: (-e.metrics["near_best"], -e.composite))

    def _bounded(self, labels: Labels, candidate: Candidate) -> Labels:
        config, rows = self.config, self.rows
        if config.outliers == "assign" and (labels < 0).any():
            k = int(labels.max()) + 1
            lost = np.flatnonzero(labels < 0)
            labels = labels.copy()
            labels[lost] = nearest_centre(rows[lost], cluster_means(rows, labels, k))
        min_size, max_size = config.min_size or 1, config.max_size or len(rows)
        asked = candidate.clusters
        found = int(labels.max()) + 1
        if candidate.method == "kmeans" and asked is not None and asked == found:
            sizes = cluster_sizes(labels, asked)
            if sizes.min() >= min_size and sizes.max() <= max_size:
                return labels
            if asked <= _MOST_SEARCHED:
                return self._bounded_kmeans(asked, min_size, max_size)
        k_range = self.feasible if asked is None else (asked, asked)
        return fit_bounds(rows, labels, clusters=k_range, min_size=min_size, max_size=max_size)

    def _bounded_kmeans(self, k: int, min_size: int, max_size: int) -> Labels:
        rotated = self.shared.rotated
        if len(rotated) < len(self.rows):
            rotated = rotated[self.place]
        start = bounded_start(
            rotated, k, min_size=min_size, max_size=max_size, seed=self.config.seed
        )
        rounds = 25 if len(rotated) <= _MANY else 6
        return bounded_kmeans(rotated, start, min_size=min_size, max_size=max_size, rounds=rounds)


class _Store:
    """Finished settings of one search under keys that name data, configuration and setting."""

    def __init__(
        self, rows: Floats, config: ClusteringConfig, checkpoint: Checkpoint | None
    ) -> None:
        self.checkpoint = checkpoint
        self.n = len(rows)
        if checkpoint is not None:
            digest = hashlib.blake2b(np.ascontiguousarray(rows).data, digest_size=12)
            asked = (config.min_size, config.max_size, config.clusters, config.target_size)
            told = (asked, config.outliers, config.seed, config.weights, config.mode, config.method)
            digest.update(repr(told).encode())
            self.prefix = digest.hexdigest()

    def read(self, candidate: Candidate) -> tuple[Labels, dict[str, float]] | None:
        if self.checkpoint is None:
            return None
        held = self.checkpoint.get(self._key(candidate))
        if held is None:
            return None
        head, _, body = held.partition(b"\n")
        labels = np.frombuffer(zlib.decompress(body), dtype="<i4").astype(np.int32)
        return (labels, json.loads(head)) if len(labels) == self.n else None

    def write(self, candidate: Candidate, labels: Labels, metrics: dict[str, float]) -> None:
        if self.checkpoint is not None:
            body = zlib.compress(labels.astype("<i4").tobytes(), 1)
            self.checkpoint[self._key(candidate)] = json.dumps(metrics).encode() + b"\n" + body

    def _key(self, candidate: Candidate) -> str:
        settings = "-".join(f"{name}-{value}" for name, value in candidate.settings.items())
        return f"{self.prefix}/{candidate.method}-{settings}"


def _choose(shared: SharedWork, low: int, high: int, config: ClusteringConfig) -> MeasuredChoice:
    n = len(shared.rows)
    if low == high or low >= n:
        return MeasuredChoice((low,), low, {})
    references = {"fast": 2, "balanced": 5, "comprehensive": 10}[config.mode]
    return measure_choice(
        shared.rows, grid_of_k(low, min(high, n), n), seed=config.seed, references=references
    )


def _one_group(rows: Floats, config: ClusteringConfig, clusters: tuple[int, int]) -> SearchOutcome:
    """Nothing to look for: one group, or as few as the bounds allow."""
    labels = fit_bounds(
        rows,
        np.zeros(len(rows), dtype=np.int32),
        clusters=clusters,
        min_size=config.min_size or 1,
        max_size=config.max_size or len(rows),
    )
    settings = {"clusters": int(labels.max()) + 1, "fallback": "nothing to tell apart"}
    return SearchOutcome(labels, _plain_method(config), settings)


def _plain_method(config: ClusteringConfig) -> str:
    return "kmeans" if config.method == "auto" else config.method
