"""The five methods over one set of rows, with the work that they share made once."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from imageclust.clustering.density import (
    Linkage,
    dbscan_labels,
    hdbscan_labels,
    single_linkage,
)
from imageclust.clustering.geometry import Floats, Labels, rotate
from imageclust.clustering.kmeans import KMeansEffort, KMeansFit, kmeans
from imageclust.clustering.mixture import COLUMNS, mixture
from imageclust.clustering.neighbours import NeighbourGraph, neighbour_graph
from imageclust.clustering.spanning import SpanningTree, spanning_tree
from imageclust.clustering.ward import WardTree, ward_tree

NEIGHBOURS = 24
_CHEAP_COLUMNS = 48


@dataclass(frozen=True, eq=False)
class Labelling:
    """(n,) labels, -1 = noise, and (n,) strength of membership where the method has one."""

    labels: Labels
    strengths: Floats | None = None


class NoClusters(ValueError):
    """A setting calls every row noise."""


class SharedWork:
    """Rotation, neighbour graph, spanning trees, Ward tree and K-Means fits of one set of rows."""

    def __init__(self, rows: Floats, *, seed: int, max_size: int | None = None) -> None:
        self.rows = rows
        self.seed = seed
        self.max_size = max_size
        self._trees: dict[int, SpanningTree] = {}
        self._linkages: dict[int, Linkage] = {}
        self._fits: dict[tuple[int, int], KMeansFit] = {}

    @cached_property
    def rotated(self) -> Floats:
        """(n, c) the rows in principal axes."""
        return rotate(self.rows)[0]

    @cached_property
    def graph(self) -> NeighbourGraph:
        """The exact neighbour graph."""
        cheap = np.ascontiguousarray(self.rotated[:, :_CHEAP_COLUMNS])
        return neighbour_graph(self.rows, NEIGHBOURS, cheap=cheap, seed=self.seed)

    @cached_property
    def ward_tree(self) -> WardTree:
        """Ward's tree under the cap; the graph serves it when another method made it already."""
        graph = self.graph if "graph" in self.__dict__ else None
        return ward_tree(self.rows, max_size=self.max_size, graph=graph)

    def tree(self, neighbours: int) -> SpanningTree:
        """The spanning tree for core distances to the ``neighbours``-th other row."""
        if neighbours not in self._trees:
            self._trees[neighbours] = spanning_tree(self.graph, neighbours)
        return self._trees[neighbours]

    def core_quantile(self, neighbours: int, share: float) -> float:
        """The distance within which ``share`` of the rows are core."""
        return float(np.quantile(self.graph.core_distances(neighbours), share))

    def run(self, method: str, settings: dict[str, Any]) -> Labelling:
        """Labels of one setting.

        Raises:
            ValueError: the setting fails on these rows; the message says how.
        """
        made: Labelling = getattr(self, f"_{method}")(**settings)
        if (made.labels < 0).all():
            raise NoClusters("every image is noise under this setting")
        return made

    def _kmeans_fit(self, clusters: int, restart: int) -> KMeansFit:
        key = (clusters, restart)
        if key not in self._fits:
            effort = KMeansEffort(
                restarts=2, swaps=60, last_swaps=60, cheap_rounds=20, full_rounds=15
            )
            self._fits[key] = kmeans(
                self.rotated, clusters, seed=self.seed + 1000 * restart, effort=effort
            )
        return self._fits[key]

    def _kmeans(self, clusters: int, restart: int = 0) -> Labelling:
        return Labelling(self._kmeans_fit(min(clusters, len(self.rows)), restart).labels)

    def _ward(self, clusters: int) -> Labelling:
        return Labelling(self.ward_tree.cut(clusters))

    def _gmm(self, clusters: int, columns: int = COLUMNS) -> Labelling:
        start = self._kmeans_fit(min(clusters, len(self.rows)), 0)
        fit = mixture(self.rotated, start.labels, seed=self.seed, columns=columns)
        return Labelling(fit.labels, fit.probabilities)

    def _dbscan(self, eps: float, min_samples: int) -> Labelling:
        return Labelling(dbscan_labels(self.graph, self.tree(min_samples - 1), eps=eps))

    def _hdbscan(self, min_cluster_size: int, min_samples: int) -> Labelling:
        if min_samples not in self._linkages:
            self._linkages[min_samples] = single_linkage(self.graph, self.tree(min_samples))
        fit = hdbscan_labels(self._linkages[min_samples], min_cluster_size=min_cluster_size)
        return Labelling(fit.labels, fit.strengths)
