"""Embed: one batch of images to one shard of vectors, a thumbnail and facts an image.

Order of writes makes a kill harmless: thumbnails, vectors, sidecar, and last the pointers that
make the shard count. The shard's name follows from the images it holds, so a repeat overwrites
like with like.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from imageclust import keys
from imageclust.errors import RejectedImage
from imageclust.late import np
from imageclust.models import JSON, ImageRef, to_json_lines
from imageclust.steps.pictures import (
    TOO_LARGE,
    failure_as_rejection,
    plain_picture,
    process_each,
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
    one at a time, took the function down: they are to be recorded, not tried again. ``parts`` are
    what the first image ids of each batch inference job of the run begin with, none without such
    jobs; with ``prepare`` their records are to be written, not vectors.
    """

    run_id: str
    model: str
    images: tuple[ImageRef, ...]
    labeler: str = ""
    failed: RejectedImage | None = None
    parts: tuple[str, ...] = ()
    prepare: bool = False

    @classmethod
    def from_json(cls, data: JSON) -> EmbedBatch:
        batch = data["BatchInput"]
        images = tuple(ImageRef.from_json(item) for item in data["Items"])
        failed = failure_as_rejection(data["failed"]) if "failed" in data else None
        return cls(
            run_id=batch["run_id"],
            model=batch["model"],
            images=images,
            labeler=batch.get("labeler", ""),
            failed=failed,
            parts=tuple(batch.get("parts", ())),
            prepare=batch.get("prepare", False),
        )


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

    processed: list[Processed | RejectedImage] = []

    def pixels() -> Iterator[NDArray[np.uint8]]:
        """Of each picture as it is decoded: an embedder elsewhere is asked meanwhile."""
        size = len(images)
        for item in process_each(services, images, min_side=embedder.min_side, at_once=size):
            processed.append(item)
            if not isinstance(item, RejectedImage):
                yield item.pixels

    joint = services.open_joint(name, preprocess, batch.labeler) if batch.labeler else None
    if joint is None:
        vectors = embedder.embed(pixels()).astype(np.float16)
    else:
        features, answers = joint.embed_and_label(list(pixels()))
        vectors = features.astype(np.float16)
        # Before the vectors: an image with a stored vector has its labels stored too.
        store_labels(services, joint.labeler, images, processed, answers)
    rows = [store_thumbnail(services, *each) for each in zip(images, processed, strict=True)]
    reused = len(batch.images) - len(images)
    return store_shard(services, embedder.key, rows, vectors, run=batch.run_id, reused=reused)


def store_shard(
    services: Services,
    embedder: str,
    rows: list[JSON],
    vectors: NDArray[np.float16],
    *,
    run: str,
    reused: int,
) -> JSON:
    """Write one shard, its sidecar and the pointers to it; returns counts and the shard's name.

    Args:
        services: where to.
        embedder: its key.
        rows: facts of each image, or why it is rejected.
        vectors: ``(n, d)`` float16 of those that are not rejected, in order; a row that is not
            finite is of a picture that the embedder refused.
        run: the id of the run, for files that it cannot read.
        reused: images of the batch that were stored before.
    """
    usable = np.asarray(np.isfinite(vectors).all(axis=1))
    told = iter(usable)
    refused = RejectedImage("unsupported", "The embedding model does not take this picture.")
    rows = [
        row
        if "rejected" in row or next(told)
        else {"image_id": row["image_id"]} | rejection(refused)
        for row in rows
    ]
    vectors = vectors[usable]
    # Not of the rejected: another run, which could read what this one could not, would write over.
    shard = keys.shard_id(row["image_id"] for row in rows if "rejected" not in row)
    data = npy_bytes(vectors)
    sidecar: list[JSON] = []
    pointers: list[JSON] = []
    place = count()
    for row in rows:
        pointer: JSON = {
            "pk": keys.vector_pk(embedder, row["image_id"]),
            "sk": keys.POINTER_SK,
        }
        if "rejected" in row:
            pointer |= {"rejected": row["rejected"]}
            if row["rejected"]["kind"] == TOO_LARGE:
                pointer["limit"] = services.settings.max_megapixels
        else:
            sidecar.append({"image_id": row["image_id"], "row": next(place), **row})
            pointer |= {"shard": shard, "row": sidecar[-1]["row"], "size": len(data)}
        if row.get("rejected", {}).get("kind") == "unreadable":
            # A fault of the machine is not a property of the bytes: it counts for this run only.
            reason = row["rejected"]["reason"]
            pointer = {"pk": pointer["pk"], "sk": keys.run_sk(run), "reason": reason}
        pointers.append(pointer)
    told_of = to_json_lines(sidecar)
    for pointer in pointers:
        if "shard" in pointer:
            pointer["sidecar"] = len(told_of)
    bucket = services.settings.data_bucket
    services.store.write(keys.join_uri(bucket, keys.vector_key(embedder, shard)), data)
    services.store.write(
        keys.join_uri(bucket, keys.sidecar_key(embedder, shard)),
        told_of,
        content_type="application/jsonl",
    )
    services.table.put_many(pointers)
    return {
        "shard": shard,
        "embedded": len(vectors),
        "rejected": len(rows) - len(vectors),
        "reused": reused,
    }


def rejection(reason: RejectedImage) -> JSON:
    """What a sidecar and a pointer say of an image that has no vector."""
    return {"rejected": {"kind": reason.kind, "reason": reason.reason}}


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
            **rejection(batch.failed),
        }
        for image in images
    )


def store_thumbnail(services: Services, image: ImageRef, item: Processed | RejectedImage) -> JSON:
    """Write the thumbnail of a decoded image; returns what a sidecar keeps beside its vector."""
    if isinstance(item, RejectedImage):
        return {"image_id": image.image_id} | rejection(item)
    thumbnail = keys.join_uri(services.settings.data_bucket, keys.thumbnail_key(image.image_id))
    services.store.write(thumbnail, item.thumbnail or b"", content_type="image/webp")
    return {
        "image_id": image.image_id,
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
