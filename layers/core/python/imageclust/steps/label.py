"""Label: one batch of images to one shard of labels."""

from dataclasses import dataclass

from imageclust import keys
from imageclust.errors import RejectedImage
from imageclust.models import JSON, ImageRef
from imageclust.steps.pictures import process_images, store_labels
from imageclust.wiring import Services


@dataclass(frozen=True)
class LabelBatch:
    """Input of one Label call, as the Distributed Map's ItemBatcher forms it."""

    run_id: str
    model: str
    images: tuple[ImageRef, ...]

    @classmethod
    def from_json(cls, data: JSON) -> "LabelBatch":
        batch = data["BatchInput"]
        images = tuple(ImageRef.from_json(item) for item in data["Items"])
        return cls(run_id=batch["run_id"], model=batch["model"], images=images)


def label_batch(services: Services, batch: LabelBatch) -> JSON:
    """Label what is not stored yet; returns counts and the shard's name.

    An image that the service refuses stays without labels this time and is asked for again by
    the next run; it never fails the batch. One that cannot be decoded is not asked for again.
    """
    labeler = services.open_labeler(batch.model)
    if labeler is None:
        return {"shard": "", "labelled": 0, "failed": 0, "reused": 0}
    stored = services.table.get_many(
        (keys.label_pk(labeler.key, image.image_id), keys.POINTER_SK) for image in batch.images
    )
    images = [
        image
        for image in batch.images
        if (keys.label_pk(labeler.key, image.image_id), keys.POINTER_SK) not in stored
    ]
    if not images:
        return {"shard": "", "labelled": 0, "failed": 0, "reused": len(batch.images)}

    processed = process_images(services, images, min_side=labeler.min_side)
    pixels = [item.pixels for item in processed if not isinstance(item, RejectedImage)]
    done = store_labels(services, labeler.key, images, processed, labeler.label(pixels))
    return {**done, "reused": len(batch.images) - len(images)}
