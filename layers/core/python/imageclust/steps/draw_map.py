"""DrawMap: a flat map of a clustering's images.

A clustering has a plain map (PCA) of its own. This one keeps neighbours together (t-SNE); its
library does not fit into ClusterImages' function, and a run is whole without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imageclust import keys
from imageclust.late import np
from imageclust.models import JSON
from imageclust.steps.embed import npy_bytes
from imageclust.steps.gather import read_rows
from imageclust.wiring import Services

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SEED = 0


@dataclass(frozen=True)
class MapRequest:
    """Input of DrawMap: what ClusterImages returned."""

    clusters: JSON

    @classmethod
    def from_json(cls, data: JSON) -> MapRequest:
        return cls(clusters=data["clusters"])


def draw_map(services: Services, request: MapRequest) -> JSON:
    """Store the map, (n, 2) float32 in the order of ``embeddings.npy``; say how it was made.

    Where there are too few different images to tell near from far, nothing is stored.
    """
    found = request.clusters
    address = keys.join_uri(found["bucket"], found["prefix"])
    target = keys.join_uri(found["bucket"], keys.map_key(found["digest"]))
    if services.store.size(target) is None:
        from imageclust.clustering.maps import tsne_map  # with SciPy; a stored map spares it

        vectors = np.load(services.store.path(address + "embeddings.npy"), mmap_mode="r")
        flat = tsne_map(vectors, _exemplars(services, found), seed=_SEED)
        if flat is None:
            return {"method": "pca", "why": "too few different images for t-SNE"}
        services.store.write(target, npy_bytes(flat))
    return {"method": "tsne", "why": ""}


def _exemplars(services: Services, clusters: JSON) -> NDArray[np.int64]:
    """Rows of ``embeddings.npy`` that show the clusters: every cluster's first, then its second…"""
    rows = {
        row["image_id"]: place
        for place, row in enumerate(read_rows(services, clusters, "assignments.jsonl"))
    }
    shown = [
        (rank, rows[image_id])
        for cluster in read_rows(services, clusters, "clusters.jsonl")
        for rank, image_id in enumerate(cluster["exemplars"])
    ]
    return np.array([row for _, row in sorted(shown)], dtype=np.int64)
