"""From vectors to a clustering: the one entry point."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imageclust.clustering.config import ClusteringConfig, check_bounds
from imageclust.clustering.explain import cluster_hierarchy, explain
from imageclust.clustering.geometry import (
    Floats,
    relabel_by_size,
    rotate,
    unit_rows,
)
from imageclust.clustering.parallel import one_blas_thread
from imageclust.clustering.quality import measure
from imageclust.clustering.records import ClusteringResult
from imageclust.clustering.search import Checkpoint, SearchOutcome, search
from imageclust.clustering.stability import stability
from imageclust.errors import InvalidInput


def cluster_vectors(
    vectors: NDArray[Any],
    *,
    config: ClusteringConfig,
    progress: Callable[[float], None] | None = None,
    checkpoint: Checkpoint | None = None,
    pause: Callable[[], bool] | None = None,
) -> ClusteringResult:
    """Group vectors by direction and explain the groups.

    Args:
        vectors: (n, d) real numbers, one row an image; scaled to length one here. A zero row is
            like no other row.
        config: method, bounds and effort.
        progress: called with a share from 0 to 1, never falling.
        checkpoint: a mapping that keeps finished settings, so that a stopped search goes on where
            it was when it is called again with the same vectors and configuration; the result is
            the same wherever it stopped.
        pause: asked between two settings; True ends the call with ``Paused``.

    Raises:
        Paused: there is more to try, in another call with the same checkpoint.
        InvalidInput: not a matrix, not finite, or a configuration that makes no sense.
        InfeasibleBounds: no clustering of n images meets the bounds.
    """
    given = np.asarray(vectors)
    if given.ndim != 2:
        raise InvalidInput(f"vectors must be a matrix (images, numbers); got {given.ndim} axes")
    if given.dtype.kind not in "fiu":
        raise InvalidInput(f"vectors must be real numbers; got {given.dtype}")
    if not np.isfinite(given).all():
        bad = np.flatnonzero(~np.isfinite(given).all(axis=1))
        raise InvalidInput(
            f"{len(bad)} vectors hold NaN or infinity, the first in row {int(bad[0])}"
        )
    check_bounds(len(given), config)
    report = progress or _silent
    report(0.0)
    with one_blas_thread():
        rows = unit_rows(given)
        outcome = search(
            rows,
            config,
            progress=lambda share: report(0.9 * share),
            checkpoint=checkpoint,
            pause=pause,
        )
        result = _result(rows, outcome, config)
    report(1.0)
    return result


def _result(rows: Floats, outcome: SearchOutcome, config: ClusteringConfig) -> ClusteringResult:
    labels = relabel_by_size(outcome.labels)
    metrics, silhouettes = measure(rows, labels, config.weights)
    story = explain(rows, labels, silhouettes)
    if story.clusters:
        sizes = np.array([cluster.size for cluster in story.clusters])
        cohesion = np.array([cluster.cohesion for cluster in story.clusters])
        metrics["cohesion"] = float((sizes * cohesion).sum() / sizes.sum())
    again = stability(rows, labels, outcome.method, outcome.settings, seed=config.seed)
    if again is not None:
        metrics["stability"] = again
    return ClusteringResult(
        labels=labels,
        clusters=story.clusters,
        ranks=story.ranks,
        margins=story.margins,
        misplaced=story.misplaced,
        silhouettes=silhouettes,
        method=outcome.method,
        settings=outcome.settings,
        metrics=metrics,
        map2d=_flat_map(rows),
        curves=outcome.curves,
        search=outcome.entries,
        merges=cluster_hierarchy(rows, labels),
        tried=outcome.tried,
        skipped=outcome.skipped,
        strengths=outcome.strengths,
    )


def _flat_map(rows: Floats) -> Floats:
    flat = np.zeros((len(rows), 2), dtype=np.float32)
    if len(rows) > 1 and rows.shape[1] > 0:
        spread, _ = rotate(rows, 2)
        flat[:, : spread.shape[1]] = spread
    return flat


def _silent(share: float) -> None:
    """No one asked for progress."""
