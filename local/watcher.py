"""The uploads folder as a bucket that tells of changes: the same events, to the same handler."""

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path
from typing import Literal
from uuid import uuid4

from imageclust import keys
from imageclust.errors import ImageclustError
from imageclust.models import JSON
from imageclust.ports import ObjectStore, StoredObject

logger = logging.getLogger(__name__)

Listing = dict[str, StoredObject]

LEAST_PAUSE = 1.0
SHARE = 20
"""A scan may take one part in so many of the time."""

_A_BATCH = 10


@dataclass
class _Folder:
    """A folder of ``uploads``: its last listing, and the listing that was last told of."""

    seen: Listing = field(default_factory=dict)
    told: Listing | None = None


class Watcher:
    """Polls ``uploads/*/`` and sends what changed, once it has stayed the same for one poll.

    Files that changed while nobody watched are found by their times: a folder with anything newer
    than the collection's last run counts as changed.

    Args:
        folder: the folder of the uploads bucket.
        store: lists it, the way the workflow will.
        send: takes one SQS event and answers with ``batchItemFailures``.
        last_run: when the newest run of a collection was started, as seconds; None without one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        bucket: str,
        store: ObjectStore,
        send: Callable[[JSON], JSON],
        last_run: Callable[[str], float | None],
    ) -> None:
        self._path = folder
        self._bucket = bucket
        self._store = store
        self._send = send
        self._last_run = last_run
        self._folders: dict[str, _Folder] = {}
        self._unreadable: set[str] = set()
        self._next = 0.0

    def poll_if_due(self) -> None:
        """Poll, unless the last one was just now; big folders are polled less often."""
        started = time.monotonic()
        if started >= self._next:
            try:
                self.poll()
            finally:
                ended = time.monotonic()
                self._next = ended + max(LEAST_PAUSE, SHARE * (ended - started))

    def poll(self) -> int:
        """Look once. Returns how many events were sent."""
        names = set(self._folders)
        with os.scandir(self._path) as entries:
            names |= {entry.name for entry in entries if _watched(entry)}
        return sum(self._poll_folder(name) for name in sorted(names))

    def _poll_folder(self, name: str) -> int:
        try:
            now = {found.uri: found for found in self._store.list(self._bucket, f"{name}/")}
        except ImageclustError as error:
            if name not in self._unreadable:
                self._unreadable.add(name)
                logger.warning("uploads/%s is not watched: %s", name, error)
            return 0
        self._unreadable.discard(name)
        folder = self._folders.setdefault(name, _Folder())
        before, folder.seen = folder.seen, now
        if folder.told is None:
            return self._first_look(name, folder, before)
        changed = [
            (uri, now.get(uri))
            for uri in now.keys() | folder.told.keys()
            if now.get(uri) != folder.told.get(uri)
        ]
        steady = sorted((uri, new) for uri, new in changed if before.get(uri) == new)
        # One batch stands for all: ingest makes one run of them anyway.
        if not steady or not self._tell(steady[:_A_BATCH]):
            return 0
        unsteady = {uri for uri, new in changed if before.get(uri) != new}
        folder.told = {uri: new for uri, new in now.items() if uri not in unsteady} | {
            uri: old for uri, old in folder.told.items() if uri in unsteady
        }
        return min(len(steady), _A_BATCH)

    def _first_look(self, name: str, folder: _Folder, before: Listing) -> int:
        """A folder that nobody watched so far: did it change since its last run?"""
        if folder.seen != before:
            return 0  # still changing; look again
        since = self._last_run(name)
        if since is None and not folder.seen:
            folder.told = {}
            return 0
        newest, moment = self._newest(name, folder.seen)
        if since is not None and moment <= since:
            folder.told = folder.seen
            return 0
        if not self._tell([(newest, folder.seen.get(newest))]):
            return 0
        folder.told = folder.seen
        return 1

    def _newest(self, name: str, listing: Listing) -> tuple[str, float]:
        """The newest file and the newest time of any file or folder of the collection."""
        top = self._path / name
        newest, moment = keys.join_uri(self._bucket, f"{name}/-"), _changed(top)
        folders: set[Path] = set()
        for uri in listing:
            path = self._path / keys.split_uri(uri)[1]
            folders.update(parent for parent in path.parents if top in parent.parents)
            if (changed := _changed(path)) >= moment:
                newest, moment = uri, changed
        return newest, max([moment, *map(_changed, folders)])

    def _tell(self, changes: list[tuple[str, StoredObject | None]]) -> bool:
        records = [
            sqs_record(s3_event(uri, found, kind="Object Created" if found else "Object Deleted"))
            for uri, found in changes
        ]
        return not self._send({"Records": records}).get("batchItemFailures")


def s3_event(
    uri: str, found: StoredObject | None, *, kind: Literal["Object Created", "Object Deleted"]
) -> JSON:
    """The event that S3 sends to EventBridge for one object."""
    bucket, key = keys.split_uri(uri)
    told: JSON = {"key": key, "sequencer": f"{time.time_ns():016X}"}
    if found is not None:
        told |= {"size": found.size, "etag": found.etag}
    return {
        "version": "0",
        "id": str(uuid4()),
        "detail-type": kind,
        "source": "aws.s3",
        "account": "000000000000",
        "time": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "region": "local",
        "resources": [f"arn:aws:s3:::{bucket}"],
        "detail": {
            "version": "0",
            "bucket": {"name": bucket},
            "object": told,
            "request-id": "local",
            "requester": "local",
            "reason": "PutObject" if found else "DeleteObject",
        },
    }


def sqs_record(body: JSON) -> JSON:
    """The record that a queue hands to a function for one message."""
    text = json.dumps(body)
    moment = str(time.time_ns() // 1_000_000)
    return {
        "messageId": str(uuid4()),
        "receiptHandle": "local",
        "body": text,
        "attributes": {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": moment,
            "SenderId": "local",
            "ApproximateFirstReceiveTimestamp": moment,
        },
        "messageAttributes": {},
        "md5OfBody": md5(text.encode(), usedforsecurity=False).hexdigest(),
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:local:000000000000:uploads",
        "awsRegion": "local",
    }


def _watched(entry: "os.DirEntry[str]") -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
