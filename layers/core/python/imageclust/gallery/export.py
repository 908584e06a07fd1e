"""What a run hands to its downloads and its page."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from imageclust.labels import Label
from imageclust.models import JSON, Outcome


@dataclass(frozen=True, eq=False)
class Export:
    """Everything a run found.

    Attributes:
        record: the run as ``run.json`` tells it.
        outcomes: what became of each file.
        clusters: the clusters, largest first, with their names.
        result: the clustering as ``ClusteringResult.to_json`` wrote it.
        image_ids: the distinct images, in the order of every row below.
        vectors: ``(n, d)`` float32.
        facts: image id → what embedding found out about the file.
        labels: image id → its labels.
        places: image id → status, cluster, rank, margin and place on the map.
        search_labels: ``(m, n)`` int32, -1 = outlier: the labels of the search's best settings,
            in their order. None where only the result's own labels were kept.
        captions: image id → ``caption`` and the ``model`` that said it, where there is one.
    """

    record: JSON
    outcomes: tuple[Outcome, ...]
    clusters: tuple[JSON, ...]
    result: JSON
    image_ids: tuple[str, ...]
    vectors: NDArray[np.float32]
    facts: dict[str, JSON]
    labels: dict[str, tuple[Label, ...]]
    places: dict[str, JSON]
    search_labels: NDArray[np.int32] | None = None
    captions: Mapping[str, JSON] = field(default_factory=dict)

    def flagged(self, image_id: str) -> bool:
        """Whether moderation keeps the image out of what may be public."""
        return bool(self.places.get(image_id, {}).get("flagged"))
