"""What PlanRun, Embed and Label share: what is stored, files to pictures, answers to a shard."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from imageclust import keys
from imageclust.errors import InvalidInput, NotFound, Permanent, RejectedImage
from imageclust.late import np
from imageclust.models import JSON, ImageRef, to_json_lines
from imageclust.ports import Labelled, StoredObject
from imageclust.wiring import Services

if TYPE_CHECKING:  # a cold function starts before it needs a codec
    from numpy.typing import NDArray

    from imageclust.images import Processed

REMOVED = "the file was removed while the run was reading it"
TOO_LARGE = "too-large"
_CHANGED = "the file changed while the run was reading it"

_READ_AT_ONCE = 64_000_000  # bytes of files held in memory, but for one larger file


def plain_picture() -> NDArray[np.uint8]:
    """A picture that every model takes: a function that fails on it cannot work at all."""
    return np.full((320, 320, 3), 128, dtype=np.uint8)


def image_id_of(file: StoredObject, pointer: JSON | None) -> str | None:
    """The content that the file had when it was last read, if it is still that version."""
    if pointer and (pointer["etag"], pointer["size"]) == (file.etag, file.size):
        return str(pointer["image_id"])
    return None


def without_vectors(
    services: Services, images: Sequence[ImageRef], embedder: str
) -> list[ImageRef]:
    """Images with no stored vector; a shard that is missing or torn counts as not stored."""
    found = services.table.get_many(
        (keys.vector_pk(embedder, image.image_id), keys.POINTER_SK) for image in images
    )
    pointers = {pk: item for (pk, _), item in found.items()}
    whole: dict[str, bool] = {}

    def stored(image: ImageRef) -> bool:
        pointer = pointers.get(keys.vector_pk(embedder, image.image_id))
        if pointer is None:
            return False
        shard = pointer.get("shard")
        if shard is None:  # rejected before: the same bytes would be rejected again
            return _same_limit(services, pointer)
        if shard not in whole:
            bucket = services.settings.data_bucket
            whole[shard] = all(
                services.store.size(keys.join_uri(bucket, key)) == size
                for key, size in (
                    (keys.vector_key(embedder, shard), pointer["size"]),
                    (keys.sidecar_key(embedder, shard), pointer.get("sidecar")),
                )
            )
        return whole[shard]

    return [image for image in images if not stored(image)]


def without_labels(services: Services, images: Sequence[ImageRef], labeler: str) -> list[ImageRef]:
    """Images with no stored labels."""
    found = services.table.get_many(
        (keys.label_pk(labeler, image.image_id), keys.POINTER_SK) for image in images
    )
    stored = {pk for (pk, _), pointer in found.items() if _same_limit(services, pointer)}
    return [image for image in images if keys.label_pk(labeler, image.image_id) not in stored]


def _same_limit(services: Services, pointer: JSON) -> bool:
    """False for a picture that was too large when another size was."""
    return pointer.get("limit") in (None, services.settings.max_megapixels)


def process_images(
    services: Services, images: Sequence[ImageRef], *, min_side: int
) -> list[Processed | RejectedImage]:
    """Read and decode each image once; a failure stands in its place."""
    return list(process_each(services, images, min_side=min_side, at_once=len(images)))


def process_each(
    services: Services, images: Sequence[ImageRef], *, min_side: int, at_once: int
) -> Iterator[Processed | RejectedImage]:
    """As ``process_images``, one after the other, for a caller that works on them meanwhile.

    At most ``at_once`` files are read before they are decoded, and fewer of huge ones, so that a
    batch of those does not fill the memory.
    """
    waiting: list[ImageRef] = []
    for position, image in enumerate(images, start=1):
        waiting.append(image)
        full = len(waiting) >= at_once or sum(ref.size for ref in waiting) > _READ_AT_ONCE
        if full or position == len(images):
            yield from _process(services, waiting, min_side)
            waiting = []


def failure_as_rejection(failed: JSON) -> RejectedImage:
    """What the workflow saw of an image that took its function down, as the image's rejection.

    ``failed`` holds the ``error`` name and the ``cause`` as Step Functions reports them. A time-out
    of the function may come as ``Lambda.Unknown``; its cause says so.
    """
    error, cause = failed["error"], failed.get("cause", "")
    late = error in ("States.Timeout", "Sandbox.Timedout") or "timed out" in cause
    if late:
        return RejectedImage("timeout", "Decoding took too long; the file may be damaged.")
    return RejectedImage("crashed", "The decoder crashed on this file; it is damaged or too large.")


def _process(
    services: Services, images: Sequence[ImageRef], min_side: int
) -> Iterator[Processed | RejectedImage]:
    contents: list[bytes | RejectedImage] = []
    for image in images:
        try:
            data = services.store.read(image.uri)
        except NotFound:
            contents.append(RejectedImage("unreadable", REMOVED))
            continue
        except (InvalidInput, Permanent) as error:
            contents.append(RejectedImage("unreadable", str(error)))
            continue
        # Stored under this id, another picture would stay there for every later run.
        same = hashlib.sha256(data).hexdigest() == image.image_id
        contents.append(data if same else RejectedImage("unreadable", _CHANGED))
    readable = [data for data in contents if isinstance(data, bytes)]
    decoded = iter(services.decode(readable, min_side))
    for content in contents:
        yield next(decoded) if isinstance(content, bytes) else content


def label_row(image_id: str, answer: Labelled) -> JSON:
    """One answer as a shard of labels keeps it."""
    row: JSON = {
        "image_id": image_id,
        "labels": [label.to_json() for label in answer.labels],
        "model_version": answer.model_version,
        "error": answer.error,
    }
    if answer.moderation:
        row["moderation"] = [label.to_json() for label in answer.moderation]
    if answer.properties:
        row["properties"] = answer.properties
    return row


def store_labels(
    services: Services,
    labeler: str,
    images: Sequence[ImageRef],
    processed: Sequence[Processed | RejectedImage | None],
    answers: Sequence[Labelled],
) -> JSON:
    """Write one shard of labels and the pointers to it; returns its name and counts.

    ``answers`` stand for the images that were decoded, in order. An image that the service refused
    gets no pointer, so the next run asks again; one that cannot be decoded is not asked for again.
    """
    answered = iter(answers)
    rows: list[JSON] = []
    known: list[str] = []
    pointers: list[JSON] = []
    for image, item in zip(images, processed, strict=True):
        if isinstance(item, RejectedImage):
            answer = Labelled(error=item.reason)
            asked_again = item.kind == "unreadable"
        else:
            answer = next(answered)
            asked_again = bool(answer.error)
        rows.append(label_row(image.image_id, answer))
        if not asked_again:
            known.append(image.image_id)
            too_large = isinstance(item, RejectedImage) and item.kind == TOO_LARGE
            limit = {"limit": services.settings.max_megapixels} if too_large else {}
            pointers.append(
                {"pk": keys.label_pk(labeler, image.image_id), "sk": keys.POINTER_SK, **limit}
            )
    # Not of the refused: another run, which was given their labels, would lose them.
    shard = keys.shard_id(known)
    uri = keys.join_uri(services.settings.data_bucket, keys.label_key(labeler, shard))
    services.store.write(uri, to_json_lines(rows), content_type="application/jsonl")
    services.table.put_many({**pointer, "shard": shard} for pointer in pointers)
    failed = sum(bool(row["error"]) for row in rows)
    return {"shard": shard, "labelled": len(rows) - failed, "failed": failed}
