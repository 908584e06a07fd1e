"""Embed: one batch of images to one shard of vectors, a thumbnail and facts an image.

Order of writes makes a kill harmless: thumbnails, vectors, sidecar, and last the pointers that
make the shard count. The shard's name follows from its images, so a repeat overwrites like with
like.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from imageclust import keys
from imageclust.errors import RejectedImage
from imageclust.late import np
from imageclust.models import JSON, ImageRef, to_json_lines
from imageclust.steps.pictures import (
    failure_as_rejection,
    plain_picture,
    process_images,
    store_labels,
    without_vectors,
)
from imageclust.wiring import Services

if TYPE_CHECKING:  # a cold function starts before it needs a codec or a model
    from numpy.typing import NDArray

    from imageclust.embedding import Embedder
    from imageclust.images import Processed


@dataclass(frozen=True)
class EmbedBatch:
    """Input of one Embed call, as the Distributed Map's ItemBatcher forms it.

    ``model`` is ``embedder/preprocess`` as the plan froze it. ``labeler`` names the labeler whose
    labels come from the same inference, if there is one. ``failed`` is set when these images,
    one at a time, took the function down: they are to be recorded, not tried again.
    """

    run_id: str
    model: str
    images: tuple[ImageRef, ...]
    labeler: str = ""
    failed: RejectedImage | None = None

    @classmethod
    def from_json(cls, data: JSON) -> EmbedBatch:
        batch = data["BatchInput"]
        images = tuple(ImageRef.from_json(item) for item in data["Items"])
        failed = failure_as_rejection(data["failed"]) if "failed" in data else None
        return cls(batch["run_id"], batch["model"], images, batch.get("labeler", ""), failed)


def embed_batch(services: Services, batch: EmbedBatch) -> JSON:
    """Embed what is not stored yet; returns counts and the shard's name.

    An image that cannot be decoded is recorded as rejected with its reason, not raised.
    """
    name, _, preprocess = batch.model.partition("/")
    embedder = services.open_embedder(name, preprocess)
    images = without_vectors(services, batch.images, embedder.key)
    if not images:
        return {"shard": "", "embedded": 0, "rejected": 0, "reused": len(batch.images)}
    if batch.failed:
        _record_failed(services, embedder, batch, images)
        reused = len(batch.images) - len(images)
        return {"shard": "", "embedded": 0, "rejected": len(images), "reused": reused}

    processed = process_images(services, images, min_side=embedder.min_side)
    pixels = [item.pixels for item in processed if not isinstance(item, RejectedImage)]
    joint = services.open_joint(name, preprocess, batch.labeler) if batch.labeler else None
    if joint is None:
        vectors = embedder.embed(pixels).astype(np.float16)
    else:
        features, answers = joint.embed_and_label(pixels)
        vectors = features.astype(np.float16)
        # Before the vectors: an image with a stored vector has its labels stored too.
        store_labels(services, joint.labeler, images, processed, answers)
    processed, vectors = _without_refused(processed, vectors)
    shard = keys.shard_id(image.image_id for image in images)
    bucket = services.settings.data_bucket
    rows: list[JSON] = []
    pointers: list[JSON] = []
    data = npy_bytes(vectors)
    row = count()
    for image, item in zip(images, processed, strict=True):
        pointer: JSON = {
            "pk": keys.vector_pk(embedder.key, image.image_id),
            "sk": keys.POINTER_SK,
        }
        if isinstance(item, RejectedImage):
            fact: JSON = {"rejected": {"kind": item.kind, "reason": item.reason}}
            pointer |= fact
        else:
            thumbnail = keys.join_uri(bucket, keys.thumbnail_key(image.image_id))
            services.store.write(thumbnail, item.thumbnail or b"", content_type="image/webp")
            fact = {"row": next(row), **facts_of(item)}
            pointer |= {"shard": shard, "row": fact["row"], "size": len(data)}
        # A fault of the machine is not a property of the bytes: the next run tries again.
        if not (isinstance(item, RejectedImage) and item.kind == "unreadable"):
            pointers.append(pointer)
        rows.append({"image_id": image.image_id, **fact})
    services.store.write(keys.join_uri(bucket, keys.vector_key(embedder.key, shard)), data)
    services.store.write(
        keys.join_uri(bucket, keys.sidecar_key(embedder.key, shard)),
        to_json_lines(rows),
        content_type="application/jsonl",
    )
    services.table.put_many(pointers)
    return {
        "shard": shard,
        "embedded": len(vectors),
        "rejected": len(images) - len(vectors),
        "reused": len(batch.images) - len(images),
    }


def _without_refused(
    processed: list[Processed | RejectedImage], vectors: NDArray[np.float16]
) -> tuple[list[Processed | RejectedImage], NDArray[np.float16]]:
    """A picture that the embedder gave no numbers for is rejected; its row goes."""
    usable = np.asarray(np.isfinite(vectors).all(axis=1))
    told = iter(usable)
    kept = [
        RejectedImage("unsupported", "The embedding model does not take this picture.")
        if not isinstance(item, RejectedImage) and not next(told)
        else item
        for item in processed
    ]
    return kept, vectors[usable]


def _record_failed(
    services: Services, embedder: Embedder, batch: EmbedBatch, images: list[ImageRef]
) -> None:
    """Reject images that took the function down, once the function has shown that it works.

    A function without enough memory for its model crashes on every image. It crashes on a plain
    picture too, so nothing is blamed on the images and the run fails.
    """
    embedder.embed([plain_picture()])
    assert batch.failed is not None  # noqa: S101 - the caller looked
    name, _, preprocess = batch.model.partition("/")
    joint = services.open_joint(name, preprocess, batch.labeler) if batch.labeler else None
    if joint is not None:
        store_labels(services, joint.labeler, images, [batch.failed] * len(images), [])
    services.table.put_many(
        {
            "pk": keys.vector_pk(embedder.key, image.image_id),
            "sk": keys.POINTER_SK,
            "rejected": {"kind": batch.failed.kind, "reason": batch.failed.reason},
        }
        for image in images
    )


def facts_of(item: Processed) -> JSON:
    """What a sidecar keeps of a decoded image beside its vector."""
    return {
        "width": item.width,
        "height": item.height,
        "format": item.format,
        "frames": item.frames,
        "notes": list(item.notes),
        "fingerprint": item.fingerprint.to_json(),
    }


def npy_bytes(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
