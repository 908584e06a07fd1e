"""Clustering: arrays in, records out. Five methods, size bounds that always hold, one search."""

from imageclust.clustering.config import (
    ClusteringConfig,
    check_bounds,
    feasible_clusters,
)
from imageclust.clustering.engine import cluster_vectors
from imageclust.clustering.quality import (
    adjusted_rand_index,
    normalized_mutual_information,
    purity,
)
from imageclust.clustering.records import ClusteringResult, ClusterRecord, Merge, SearchEntry
from imageclust.clustering.report import top_files
from imageclust.clustering.streaming import cluster_shards

__all__ = [
    "ClusterRecord",
    "ClusteringConfig",
    "ClusteringResult",
    "Merge",
    "SearchEntry",
    "adjusted_rand_index",
    "check_bounds",
    "cluster_shards",
    "cluster_vectors",
    "feasible_clusters",
    "normalized_mutual_information",
    "purity",
    "top_files",
]
