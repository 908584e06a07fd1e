"""Label: one batch of images to one shard of labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imageclust.errors import RejectedImage
from imageclust.models import JSON, ImageRef
from imageclust.steps.pictures import (
    failure_as_rejection,
    plain_picture,
    process_each,
    store_labels,
    without_labels,
)
from imageclust.wiring import Services

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_AT_ONCE = 16  # files read before they are decoded, while the labeler works on others


@dataclass(frozen=True)
class LabelBatch:
    """Input of one Label call, as the Distributed Map's ItemBatcher forms it.

    ``failed`` is set when these images, one at a time, took the function down.
    """

    run_id: str
    model: str
    images: tuple[ImageRef, ...]
    failed: RejectedImage | None = None

    @classmethod
    def from_json(cls, data: JSON) -> LabelBatch:
        batch = data["BatchInput"]
        images = tuple(ImageRef.from_json(item) for item in data["Items"])
        failed = failure_as_rejection(data["failed"]) if "failed" in data else None
        return cls(run_id=batch["run_id"], model=batch["model"], images=images, failed=failed)


def label_batch(services: Services, batch: LabelBatch) -> JSON:
    """Label what is not stored yet; returns counts and the shard's name.

    An image that the service refuses stays without labels this time and is asked for again by
    the next run; it never fails the batch. One that cannot be decoded is not asked for again.
    """
    labeler = services.open_labeler(batch.model)
    if labeler is None:
        return {"shard": "", "labelled": 0, "failed": 0, "reused": 0}
    images = without_labels(services, batch.images, labeler.key)
    if not images:
        return {"shard": "", "labelled": 0, "failed": 0, "reused": len(batch.images)}

    if batch.failed:
        # As in Embed: a function that cannot work at all must not blame the images.
        labeler.label([plain_picture()])
        done = store_labels(services, labeler.key, images, [batch.failed] * len(images), [])
        return {**done, "reused": len(batch.images) - len(images)}
    refused: list[RejectedImage | None] = []

    def pixels() -> Iterator[NDArray[np.uint8]]:
        # Decoded while the labeler asks about those before: its rate is what takes the time.
        each = process_each(services, images, min_side=labeler.min_side, at_once=_AT_ONCE)
        for item in each:
            if isinstance(item, RejectedImage):
                refused.append(item)
            else:
                refused.append(None)
                yield item.pixels

    answers = labeler.label(pixels())
    done = store_labels(services, labeler.key, images, refused, answers)
    return {**done, "reused": len(batch.images) - len(images)}
