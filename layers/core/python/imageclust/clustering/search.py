"""Trying settings and keeping the best by composite score.

A search can be paused, or killed, between two settings: what is finished lies in a checkpoint, and
the same call goes on from there to the same result.
"""

import hashlib
import json
import math
import time
import zlib
from collections.abc import Callable, MutableMapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from imageclust.clustering.bounded import bounded_kmeans, bounded_start
from imageclust.clustering.bounds import fit_bounds
from imageclust.clustering.choice import (
    MeasuredChoice,
    grid_of_k,
    measure_choice,
    near_best,
    sure_excess,
)
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
_LITTLE_NOISE = 0.05
_MANY_COSTS = 600_000
_MOST_SEARCHED = 256
_CHOICE = "choice"
Checkpoint = MutableMapping[str, bytes]


class Paused(Exception):
    """The search is not over: it goes on from its checkpoint when it is called again.

    ``done`` of ``total`` settings are tried.
    """

    def __init__(self, done: int, total: int) -> None:
        super().__init__(f"{done} of {total} settings are tried")
        self.done = done
        self.total = total


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
    pause: Callable[[], bool] | None = None,
) -> SearchOutcome:
    """Try the settings that the configuration asks for and keep the best.

    Equal rows count once while methods look for structure, and every copy counts for the bounds
    and the scores.

    Args:
        rows: (n, d) float32, unit rows, any n.
        config: checked against n already.
        progress: called with a share from 0 to 1.
        checkpoint: finished settings are stored here and not tried again when they are found.
        pause: asked before each setting but the first new one; True ends the call.

    Raises:
        Paused: ``pause`` said so. Each call tries one new setting at least.
    """
    n = len(rows)
    if n == 0:
        return SearchOutcome(np.zeros(0, dtype=np.int32), _plain_method(config), {})
    low, high = feasible_clusters(n, config)
    if low < high == n > 2:
        high -= 1  # each image by itself is no grouping
    if high == 1 or (rows == rows[0]).all():
        return _one_group(rows, config, (low, min(high, max(low, 1))))
    return _Search(rows, config, (low, high), checkpoint).run(progress, pause or _never)


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
        self.store = _Store(rows, config, checkpoint)
        self.started = time.monotonic() - self.store.seconds()
        distinct = rows if len(first) == len(rows) else rows[first]
        self.shared = SharedWork(distinct, seed=config.seed, max_size=config.max_size)
        self.entries: list[SearchEntry] = []
        self.failed: list[SearchEntry] = []
        self.strengths: dict[int, Floats | None] = {}

    def run(self, progress: Callable[[float], None], pause: Callable[[], bool]) -> SearchOutcome:
        choice = self._choose()
        progress(0.1)
        todo = candidates(self.shared, choice.window, self.feasible, self.config)
        done, new = 0, 0
        for candidate in todo:
            held = self.store.read(candidate)
            if held is None:
                if self.entries and self._late():
                    break
                if new and pause():
                    raise Paused(done, len(todo))
                held = self._tried(candidate)
                self.store.write(candidate, held, seconds=time.monotonic() - self.started)
                new += 1
            self._keep(candidate, held)
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

    def _choose(self) -> MeasuredChoice:
        """The measured numbers of clusters, from the checkpoint when they are there."""
        choice = self.store.read_choice()
        if choice is None:
            choice = _choose(self.shared, *self.feasible, self.config)
            self.store.write_choice(choice, seconds=time.monotonic() - self.started)
        return choice

    def _late(self) -> bool:
        budget = self.config.time_budget_s
        return budget is not None and time.monotonic() - self.started > budget

    def _tried(self, candidate: Candidate) -> "_Tried":
        try:
            made = self.shared.run(candidate.method, candidate.settings)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError) as problem:
            return _Tried(error=str(problem))
        strengths = None if made.strengths is None else made.strengths[self.place]
        labels = relabel_by_size(self._bounded(made.labels[self.place], candidate))
        metrics, _ = measure(self.rows, labels, self.config.weights)
        return _Tried(labels, strengths, metrics)

    def _keep(self, candidate: Candidate, tried: "_Tried") -> None:
        if tried.labels is None:
            self.failed.append(
                SearchEntry(candidate.method, candidate.settings, 0, {}, error=tried.error)
            )
            return
        metrics = dict(tried.metrics)
        entry = SearchEntry(
            candidate.method, candidate.settings, int(metrics["clusters"]), metrics, tried.labels
        )
        self.entries.append(entry)
        self.strengths[id(entry)] = tried.strengths

    def _rank(self, choice: MeasuredChoice) -> None:
        """Composite score among the settings that find nearly the most structure; then the rest.

        Balance alone would favour two even halves of anything, and a silhouette without its noise
        a handful of tight clusters: what counts is the silhouette times the share that is not
        noise, and what that surely exceeds the silhouette of a cloud without clusters by.
        """
        found = [_found(entry.metrics, choice) for entry in self.entries]
        # What leaves many rows out scores on easy ones: it does not set the mark for the others.
        whole = [
            value
            for entry, value in zip(self.entries, found, strict=True)
            if entry.metrics["noise_share"] <= _LITTLE_NOISE
        ]
        floor = near_best(max(whole or found))
        for entry, value in zip(self.entries, found, strict=True):
            entry.metrics["near_best"] = float(value >= floor)
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
            return self._bounded_kmeans(labels, asked, min_size, max_size)
        k_range = self.feasible if asked is None else (asked, asked)
        return fit_bounds(rows, labels, clusters=k_range, min_size=min_size, max_size=max_size)

    def _bounded_kmeans(self, labels: Labels, k: int, min_size: int, max_size: int) -> Labels:
        rotated = self.shared.rotated
        if len(rotated) < len(self.rows):
            rotated = rotated[self.place]
        if k <= _MOST_SEARCHED:
            start = bounded_start(
                rotated, k, min_size=min_size, max_size=max_size, seed=self.config.seed
            )
        else:
            # Many small clusters: a sample holds too few rows of each to be searched.
            start = fit_bounds(
                rotated, labels, clusters=(k, k), min_size=min_size, max_size=max_size
            )
        rounds = 25
        if len(rotated) * k > _MANY_COSTS:
            rounds = 6 if k <= _MOST_SEARCHED else 1
        return bounded_kmeans(rotated, start, min_size=min_size, max_size=max_size, rounds=rounds)


@dataclass(frozen=True, eq=False)
class _Tried:
    """What one setting gave: labels, strengths and scores, or why it failed."""

    labels: Labels | None = None
    strengths: Floats | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    error: str = ""


class _Store:
    """Finished settings of one search under keys that name data, configuration and setting.

    A value is a line of JSON, then the labels and strengths as zlib-compressed bytes. ``seconds``
    in it is how long the search had taken by then, over all calls: the time budget goes on.
    """

    def __init__(
        self, rows: Floats, config: ClusteringConfig, checkpoint: Checkpoint | None
    ) -> None:
        self.checkpoint: Checkpoint = {} if checkpoint is None else checkpoint
        self.n = len(rows)
        digest = hashlib.blake2b(digest_size=12)
        if checkpoint is not None:
            digest.update(np.ascontiguousarray(rows).data)
            digest.update(repr(config).encode())
        self.prefix = digest.hexdigest()

    def seconds(self) -> float:
        """What the search took before this call."""
        mine = (key for key in self.checkpoint if key.startswith(f"{self.prefix}/"))
        return max((self._head(key)["seconds"] for key in mine), default=0.0)

    def read(self, candidate: Candidate) -> _Tried | None:
        key = self._key(candidate)
        if key not in self.checkpoint:
            return None
        head = self._head(key)
        if head["error"]:
            return _Tried(error=head["error"])
        numbers = np.frombuffer(zlib.decompress(self.checkpoint[key].partition(b"\n")[2]), "<i4")
        strengths = numbers[self.n :].view("<f4").astype(np.float32) if head["strengths"] else None
        return _Tried(numbers[: self.n].astype(np.int32), strengths, head["metrics"])

    def write(self, candidate: Candidate, tried: _Tried, *, seconds: float) -> None:
        head: dict[str, Any] = {
            "seconds": seconds,
            "error": tried.error,
            "metrics": tried.metrics,
            "strengths": tried.strengths is not None,
        }
        body = b""
        if tried.labels is not None:
            body = tried.labels.astype("<i4").tobytes()
        if tried.strengths is not None:
            body += tried.strengths.astype("<f4").tobytes()
        self.checkpoint[self._key(candidate)] = (
            json.dumps(head).encode() + b"\n" + (zlib.compress(body, 1))
        )

    def read_choice(self) -> MeasuredChoice | None:
        key = f"{self.prefix}/{_CHOICE}"
        if key not in self.checkpoint:
            return None
        choice = self._head(key)["choice"]
        return MeasuredChoice(tuple(choice["window"]), choice["best"], choice["curves"])

    def write_choice(self, choice: MeasuredChoice, *, seconds: float) -> None:
        head = {"seconds": seconds, "choice": asdict(choice)}
        self.checkpoint[f"{self.prefix}/{_CHOICE}"] = json.dumps(head).encode()

    def _head(self, key: str) -> dict[str, Any]:
        head: dict[str, Any] = json.loads(self.checkpoint[key].partition(b"\n")[0])
        return head

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


def _found(metrics: dict[str, float], choice: MeasuredChoice) -> float:
    """What a labelling surely exceeds a cloud without clusters by; one cluster is none."""
    if metrics["clusters"] < 2:
        return -math.inf
    inside = 1.0 - metrics["noise_share"]
    cloud = choice.cloud_silhouette(int(metrics["clusters"]))
    return sure_excess(metrics["silhouette"] * inside, metrics["silhouette_error"] * inside, cloud)


def _never() -> bool:
    return False


def _plain_method(config: ClusteringConfig) -> str:
    return "kmeans" if config.method == "auto" else config.method
