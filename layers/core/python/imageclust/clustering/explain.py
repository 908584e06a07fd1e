"""What shows a person why a clustering is as it is: exemplars, ranks, margins, odd members."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imageclust.clustering.geometry import (
    Floats,
    Labels,
    Rows,
    blocks,
    cluster_sizes,
    cluster_sums,
    squared_distances,
    unit_rows,
)
from imageclust.clustering.records import ClusterRecord, Merge
from imageclust.clustering.ward import ward_tree

EXEMPLARS = 8
_CORE_SHARE = 0.9
_POOL = 512


@dataclass(frozen=True, eq=False)
class Explanation:
    """Per-row and per-cluster explanations of one labelling."""

    clusters: tuple[ClusterRecord, ...]
    ranks: NDArray[np.int32]
    margins: Floats
    misplaced: tuple[int, ...]


def explain(rows: Floats, labels: Labels, silhouettes: Floats) -> Explanation:
    """Explain a labelling with clusters 0..k-1, none of them empty.

    Args:
        rows: (n, d) float32, unit rows.
        labels: (n,) int32, -1 = outlier.
        silhouettes: (n,) float32.
    """
    n, k = len(rows), int(labels.max(initial=-1)) + 1
    if k == 0:
        ranks = np.arange(n, dtype=np.int32)
        return Explanation((), ranks, np.zeros(n, dtype=np.float32), ())
    own, margins = _closeness(rows, labels, k)
    ranks = np.empty(n, dtype=np.int32)
    order = np.lexsort((np.arange(n), -own, labels))
    ordered = labels[order]
    starts = np.searchsorted(ordered, np.arange(-1, k))
    ranks[order] = np.arange(n) - starts[ordered + 1]
    sizes = cluster_sizes(labels, k)
    records = []
    for cluster in range(k):
        members = order[starts[cluster + 1] : starts[cluster + 1] + sizes[cluster]]
        shown = _exemplars(rows, members)
        records.append(
            ClusterRecord(
                id=cluster,
                size=int(sizes[cluster]),
                medoid=shown[0],
                exemplars=shown,
                cohesion=float(np.clip(own[members].mean(dtype=np.float64), 0.0, 1.0)),
                silhouette=float(silhouettes[members].mean(dtype=np.float64)),
            )
        )
    odd = np.flatnonzero((labels >= 0) & (margins < 0) & (silhouettes < 0))
    odd = odd[np.argsort(margins[odd], kind="stable")]
    return Explanation(tuple(records), ranks, margins, tuple(int(row) for row in odd))


def cluster_hierarchy(rows: Floats, labels: Labels) -> tuple[Merge, ...] | None:
    """Ward's merges above the clusters, by their centres and sizes; None for fewer than two."""
    k = int(labels.max(initial=-1)) + 1
    if k < 2:
        return None
    sizes = cluster_sizes(labels, k)
    means = (cluster_sums(rows, labels, k) / sizes[:, None]).astype(np.float32)
    tree = ward_tree(means, sizes=sizes)
    return tuple(
        Merge(int(left), int(right), float(height), int(size))
        for (left, right), height, size in zip(tree.pairs, tree.heights, tree.sizes, strict=True)
    )


def _closeness(rows: Floats, labels: Labels, k: int) -> tuple[Floats, Floats]:
    """(n,) cosine to the own (outlier: nearest) centre, and how much less the next one is."""
    centres = unit_rows(cluster_sums(rows, labels, k))
    own = np.empty(len(rows), dtype=np.float32)
    margins = np.empty(len(rows), dtype=np.float32)
    for part in blocks(len(rows)):
        cosines = rows[part] @ centres.T
        at = np.arange(len(cosines))
        home = np.where(labels[part] >= 0, labels[part], cosines.argmax(axis=1))
        own[part] = cosines[at, home]
        if k == 1:
            # With no second centre, the margin is to a direction at right angles.
            margins[part] = own[part]
            continue
        cosines[at, home] = -np.inf
        margins[part] = own[part] - cosines.max(axis=1)
    return own, margins


def _exemplars(rows: Floats, members: Rows) -> tuple[int, ...]:
    """The medoid, then each time the core member least like those chosen (Gonzalez 1985).

    ``members`` come most central first; the outer tenth is left out, so that what shows a cluster
    is diverse but typical. The pool is bounded: large clusters are thinned evenly.
    """
    core = members[: max(int(np.ceil(len(members) * _CORE_SHARE)), min(len(members), EXEMPLARS))]
    if len(core) > _POOL:
        core = core[np.linspace(0, len(core) - 1, _POOL).astype(np.int64)]
    pool = rows[core]
    chosen = [0]
    apart = squared_distances(pool, pool[:1])[:, 0]
    apart[0] = -1.0
    while len(chosen) < min(EXEMPLARS, len(core)):
        pick = int(apart.argmax())
        chosen.append(pick)
        np.minimum(apart, squared_distances(pool, pool[pick : pick + 1])[:, 0], out=apart)
        apart[pick] = -1.0
    return tuple(int(core[place]) for place in chosen)
