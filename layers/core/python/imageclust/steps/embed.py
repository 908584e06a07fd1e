"""Embed: one batch of images to one shard of vectors, a thumbnail and facts an image.

Order of writes makes a kill harmless: thumbnails, vectors, sidecar, and last the pointers that
make the shard count. The shard's name follows from its images, so a repeat overwrites like with
like.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imageclust import keys
from imageclust.errors import InvalidInput, Permanent, RejectedImage
from imageclust.images import Processed
from imageclust.models import JSON, ImageRef, to_json_lines
from imageclust.ports import Key
from imageclust.wiring import Services

_READ_AT_ONCE = 64_000_000  # bytes of files held in memory, but for one larger file


@dataclass(frozen=True)
class EmbedBatch:
    """Input of one Embed call, as the Distributed Map's ItemBatcher forms it.

    ``model`` is ``embedder/preprocess`` as the plan froze it.
    """

    run_id: str
    model: str
    images: tuple[ImageRef, ...]

    @classmethod
    def from_json(cls, data: JSON) -> "EmbedBatch":
        batch = data["BatchInput"]
        images = tuple(ImageRef.from_json(item) for item in data["Items"])
        return cls(run_id=batch["run_id"], model=batch["model"], images=images)


def embed_batch(services: Services, batch: EmbedBatch) -> JSON:
    """Embed what is not stored yet; returns counts and the shard's name.

    An image that cannot be decoded is recorded as rejected with its reason, not raised.
    """
    name, _, preprocess = batch.model.partition("/")
    embedder = services.open_embedder(name, preprocess)
    stored = services.table.get_many(
        (keys.vector_pk(embedder.key, image.image_id), keys.POINTER_SK) for image in batch.images
    )
    images = [
        image for image in batch.images if not _is_stored(services, embedder.key, image, stored)
    ]
    if not images:
        return {"shard": "", "embedded": 0, "rejected": 0, "reused": len(batch.images)}

    processed = process_images(services, images, min_side=embedder.min_side)
    good = [item for item in processed if isinstance(item, Processed)]
    vectors = embedder.embed([item.pixels for item in good]).astype(np.float16)
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
        "embedded": len(good),
        "rejected": len(images) - len(good),
        "reused": len(batch.images) - len(images),
    }


def process_images(
    services: Services, images: Sequence[ImageRef], *, min_side: int
) -> list[Processed | RejectedImage]:
    """Read and decode each image once; a failure stands in its place.

    Files are read a few at a time, so that a batch of huge ones does not fill the memory.
    """
    answers: list[Processed | RejectedImage] = []
    waiting: list[ImageRef] = []
    for position, image in enumerate(images, start=1):
        waiting.append(image)
        if position == len(images) or sum(ref.size for ref in waiting) > _READ_AT_ONCE:
            answers += _process(services, waiting, min_side)
            waiting = []
    return answers


def _process(
    services: Services, images: Sequence[ImageRef], min_side: int
) -> list[Processed | RejectedImage]:
    contents: list[bytes | RejectedImage] = []
    for image in images:
        try:
            contents.append(services.store.read(image.uri))
        except (InvalidInput, Permanent) as error:
            contents.append(RejectedImage("unreadable", str(error)))
    readable = [data for data in contents if isinstance(data, bytes)]
    decoded = iter(services.decode(readable, min_side))
    return [next(decoded) if isinstance(data, bytes) else data for data in contents]


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


def _is_stored(services: Services, embedder: str, image: ImageRef, stored: dict[Key, JSON]) -> bool:
    pointer = stored.get((keys.vector_pk(embedder, image.image_id), keys.POINTER_SK))
    if pointer is None:
        return False
    if "shard" not in pointer:
        return True
    uri = keys.join_uri(services.settings.data_bucket, keys.vector_key(embedder, pointer["shard"]))
    return services.store.size(uri) == int(pointer["size"])


def npy_bytes(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
