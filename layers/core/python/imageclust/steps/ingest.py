"""How files come in: collections, upload links, and the news that files changed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from imageclust import keys
from imageclust.errors import Conflict, InvalidInput, NotFound
from imageclust.models import JSON, RunConfig, check_collection_name
from imageclust.ports import SignedUpload
from imageclust.steps.start_run import look_again
from imageclust.wiring import Services

LONGEST_WAIT = 10
"""Quiet periods after which a collection that never falls quiet is run all the same."""

_CHANGES = ("Object Created", "Object Deleted")
_IMAGE_TYPE = re.compile(r"image/[a-z0-9.+-]{1,60}|application/octet-stream")
_LONGEST_NAME = 800
_LONGEST_PART = 240


@dataclass(frozen=True)
class UploadRequest:
    """One file that a client wants to upload; ``size`` in bytes."""

    name: str
    content_type: str
    size: int


@dataclass(frozen=True)
class Offer:
    """Where and how to post one file: a form with ``fields`` first and ``file`` last."""

    name: str
    url: str
    fields: dict[str, str]


def create_collection(
    services: Services,
    name: str,
    *,
    now: datetime,
    config: RunConfig | None = None,
    title: str | None = None,
) -> None:
    """Make a collection; ``config`` is what runs started by uploads use.

    Raises InvalidInput for a bad name, Conflict when it exists.
    """
    item: JSON = {
        "pk": keys.COLLECTIONS_PK,
        "sk": check_collection_name(name),
        "name": name,
        "created": _iso(now),
        "config": (config or RunConfig()).to_json(),
    }
    if title:
        item["title"] = title
    try:
        services.table.put(item, unless_exists=True)
    except Conflict:
        raise Conflict(f"There is a collection '{name}' already.") from None


def ensure_collection(services: Services, name: str, *, now: datetime) -> None:
    """Make the collection with the default configuration unless it exists."""
    if services.table.get(keys.COLLECTIONS_PK, name) is None:
        try:
            create_collection(services, name, now=now)
        except Conflict:
            return  # another event made it just now


def check_upload_name(name: str) -> str:
    """Return ``name`` if it can name a file of a collection, else raise InvalidInput.

    Folders are allowed (``summer/beach.jpg``); what could leave the collection, hide in it or
    break a file system is not.
    """
    parts = name.split("/")
    problem = ""
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) <= 0xDFFF for c in name):
        problem = "it holds control characters"
    elif "\\" in name:
        problem = "it holds a backslash; use / between folders"
    elif any(part in ("", ".", "..") for part in parts):
        problem = "it must be a relative path without empty parts, '.' or '..'"
    elif any(part.startswith(".") for part in parts):
        problem = "names that begin with a dot are hidden files"
    elif len(name.encode()) > _LONGEST_NAME or any(len(p.encode()) > _LONGEST_PART for p in parts):
        problem = f"it is longer than {_LONGEST_NAME} bytes, or a part than {_LONGEST_PART}"
    if problem:
        raise InvalidInput(f"{name[:200]!r} cannot name an upload: {problem}")
    return name


def offer_uploads(
    services: Services, collection: str, files: Sequence[UploadRequest]
) -> list[Offer]:
    """A form for each file that puts it into the collection, in order.

    Raises NotFound without such a collection; InvalidInput for a bad name, a type that is no image,
    or a size that is zero or above ``settings.max_upload_bytes``.
    """
    if services.table.get(keys.COLLECTIONS_PK, collection) is None:
        raise NotFound(f"There is no collection '{collection}'.")
    return [_offer(services, collection, file) for file in files]


def changed_collection(event: object, *, bucket: str) -> str:
    """The collection that an EventBridge event of the uploads bucket is about.

    Keys in these events are not URL-encoded. Raises InvalidInput, saying why, for an event that
    concerns no collection.
    """
    if not isinstance(event, Mapping):
        raise InvalidInput("not an event of created or deleted files")
    kind = event.get("detail-type")
    if kind not in _CHANGES or event.get("source") != "aws.s3":
        raise InvalidInput(f"not an event of created or deleted files: {kind!r}")
    try:
        found, key = event["detail"]["bucket"]["name"], event["detail"]["object"]["key"]
    except (KeyError, TypeError):
        raise InvalidInput("an event without bucket and key") from None
    if found != bucket:
        raise InvalidInput(f"an event of another bucket: {found!r}")
    collection, slash, name = str(key).partition("/")
    if not slash or not name:
        raise InvalidInput(f"{key!r} lies in no collection: put files at COLLECTION/NAME")
    return check_collection_name(collection)


def note_change(services: Services, collection: str, *, now: datetime) -> None:
    """Files of the collection changed: run it once nothing has changed for the quiet period.

    Safe to repeat and to lose the race: the mark is written before the timer is set, and both
    before the event is acknowledged.
    """
    ensure_collection(services, collection, now=now)
    since = _mark_dirty(services, collection, now)
    quiet = timedelta(seconds=services.settings.quiet_seconds)
    latest = since + LONGEST_WAIT * quiet
    look_again(services, collection, max(now, min(now + quiet, latest)))


def _mark_dirty(services: Services, collection: str, now: datetime) -> datetime:
    """Mark the collection changed; return when the first change not yet run happened."""
    table, first = services.table, _iso(now)
    try:
        table.update(keys.COLLECTIONS_PK, collection, {"dirty": first}, expect={"dirty": None})
    except Conflict:
        first = (table.get(keys.COLLECTIONS_PK, collection) or {}).get("dirty") or first
    return datetime.fromisoformat(first)


def _offer(services: Services, collection: str, file: UploadRequest) -> Offer:
    name = check_upload_name(file.name)
    kind = file.content_type.lower()
    if not _IMAGE_TYPE.fullmatch(kind) or kind == "image/svg+xml":
        raise InvalidInput(f"{name!r} has the type {kind[:60]!r}; only images can be uploaded")
    most = services.settings.max_upload_bytes
    if not 1 <= file.size <= most:
        raise InvalidInput(f"{name!r} has {file.size} bytes; a file may have 1 to {most}")
    uri = keys.join_uri(services.settings.uploads_bucket, keys.uploads_prefix(collection) + name)
    form: SignedUpload = services.links.upload(uri, content_type=kind, max_bytes=file.size)
    return Offer(name=name, url=form.url, fields=form.fields)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
