"""Clustering: arrays in, records out. Five methods, size bounds that always hold, one search.

The engine and the measures load at their first use, with SciPy: a planner needs only the
configuration, and a run whose clustering is stored needs only the records.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from imageclust.clustering.config import (
    ClusteringConfig,
    check_bounds,
    feasible_clusters,
)
from imageclust.clustering.records import ClusteringResult, ClusterRecord, Merge, SearchEntry

if TYPE_CHECKING:
    from imageclust.clustering.engine import cluster_vectors
    from imageclust.clustering.quality import (
        adjusted_rand_index,
        normalized_mutual_information,
        purity,
    )
    from imageclust.clustering.search import Paused
    from imageclust.clustering.streaming import cluster_shards

__all__ = [
    "ClusterRecord",
    "ClusteringConfig",
    "ClusteringResult",
    "Merge",
    "Paused",
    "SearchEntry",
    "adjusted_rand_index",
    "check_bounds",
    "cluster_shards",
    "cluster_vectors",
    "feasible_clusters",
    "normalized_mutual_information",
    "purity",
]

_MODULES = {
    "Paused": "search",
    "adjusted_rand_index": "quality",
    "cluster_shards": "streaming",
    "cluster_vectors": "engine",
    "normalized_mutual_information": "quality",
    "purity": "quality",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
