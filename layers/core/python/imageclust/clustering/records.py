"""The records that a clustering hands back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ClusterRecord:
    """One cluster.

    Attributes:
        id: 0 is the largest; ties go to the cluster with the lowest row.
        size: number of rows.
        medoid: the row nearest to the centre.
        exemplars: rows that show the cluster, medoid first, then the most unlike each other.
        cohesion: mean cosine of the members to the centre, clipped to 0..1.
        silhouette: mean cosine silhouette of the members, -1..1.
    """

    id: int
    size: int
    medoid: int
    exemplars: tuple[int, ...]
    cohesion: float
    silhouette: float


@dataclass(frozen=True)
class Merge:
    """One step up the hierarchy of clusters.

    ``left`` and ``right`` name clusters below ``k`` and, from ``k`` on, earlier merges (the first
    merge is ``k``). ``height`` is Ward's, as SciPy gives it; ``size`` counts images.
    """

    left: int
    right: int
    height: float
    size: int


@dataclass(frozen=True, eq=False)
class SearchEntry:
    """One setting that a search tried: its scores and labels, or why it failed.

    ``labels`` ((n,) int32, -1 = outlier) is kept for the top ten only; ``error`` is empty unless
    the setting failed.
    """

    method: str
    settings: dict[str, Any]
    clusters: int
    metrics: dict[str, float]
    labels: NDArray[np.int32] | None = None
    error: str = ""

    @property
    def composite(self) -> float:
        """The score by which the search ranks; -1 for a failed setting."""
        return self.metrics.get("composite", -1.0)

    def to_json(self) -> dict[str, Any]:
        """The entry without its labels."""
        entry: dict[str, Any] = {
            "method": self.method,
            "settings": self.settings,
            "clusters": self.clusters,
            "metrics": _rounded(self.metrics),
        }
        if self.error:
            entry["error"] = self.error
        return entry


@dataclass(frozen=True, eq=False)
class ClusteringResult:
    """A clustering of ``n`` rows into ``k`` clusters, with what explains it.

    Attributes:
        labels: (n,) int32, -1 = outlier.
        clusters: one record a cluster, by id.
        ranks: (n,) int32, 0 = most central of its cluster; outliers are ranked among themselves.
        margins: (n,) float32, cosine to the own centre less cosine to the nearest other centre
            (an outlier's: nearest less second nearest).
        misplaced: rows that lie nearer to another centre, worst first.
        silhouettes: (n,) float32, cosine silhouette of each row; 0 for outliers.
        method: the method that won.
        settings: its parameters.
        metrics: silhouette, silhouette_error, davies_bouldin, calinski_harabasz, balance,
            noise_share, cohesion, composite, clusters; stability where it was measured.
        curves: what was measured to choose k: ``k``, ``inertia``, ``silhouette``, ``gap``, ….
        search: the ten best settings, best first, then the failed ones.
        map2d: (n, 2) float32, for a scatter plot.
        map_method: how ``map2d`` was made.
        merges: Ward's hierarchy above the clusters; None for fewer than two clusters.
        tried: number of settings that the search tried.
        skipped: number of settings that the time budget left untried.
        strengths: (n,) float32 strength of membership (probability of the own component for a
            mixture, HDBSCAN's membership); None where the method has none.
    """

    labels: NDArray[np.int32]
    clusters: tuple[ClusterRecord, ...]
    ranks: NDArray[np.int32]
    margins: NDArray[np.float32]
    misplaced: tuple[int, ...]
    silhouettes: NDArray[np.float32]
    method: str
    settings: dict[str, Any]
    metrics: dict[str, float]
    map2d: NDArray[np.float32]
    map_method: str = "pca"
    curves: dict[str, list[float]] = field(default_factory=dict)
    search: tuple[SearchEntry, ...] = ()
    merges: tuple[Merge, ...] | None = None
    tried: int = 0
    skipped: int = 0
    strengths: NDArray[np.float32] | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dict with everything but the labels of the settings that did not win."""
        return {
            "method": self.method,
            "settings": self.settings,
            "metrics": _rounded(self.metrics),
            "labels": self.labels.tolist(),
            "ranks": self.ranks.tolist(),
            "margins": [round(float(value), 4) for value in self.margins],
            "misplaced": list(self.misplaced),
            "silhouettes": [round(float(value), 4) for value in self.silhouettes],
            "clusters": [asdict(cluster) for cluster in self.clusters],
            "map2d": [[round(float(x), 4), round(float(y), 4)] for x, y in self.map2d],
            "map_method": self.map_method,
            "merges": None if self.merges is None else [asdict(merge) for merge in self.merges],
            "curves": self.curves,
            "search": [entry.to_json() for entry in self.search],
            "tried": self.tried,
            "skipped": self.skipped,
            "strengths": None
            if self.strengths is None
            else [round(float(value), 4) for value in self.strengths],
        }


def _rounded(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in metrics.items()}
