"""Objects in S3."""

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from weakref import WeakKeyDictionary

from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.failures import translated
from imageclust.errors import InvalidInput, NotFound
from imageclust.keys import join_uri, split_uri
from imageclust.ports import StoredObject

_SPARE_BYTES = 64_000_000  # of the disk, for other files


class S3Store:
    """Buckets of S3.

    Args:
        clients: the AWS clients.
        cache: folder for what ``path`` downloads; None means one in the system's temporary folder.
    """

    def __init__(self, clients: Clients, *, cache: Path | None = None) -> None:
        self._clients = clients
        self._cache = cache or Path(tempfile.gettempdir()) / "imageclust-objects"
        # The copy that each thread fetches or was given last: it may be about to be opened.
        self._given: WeakKeyDictionary[threading.Thread, str] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def list(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        """Objects under ``prefix`` in S3's order, which is bytewise.

        The empty objects with a slash at the end that consoles make for folders are left out.
        """
        with translated(f"s3://{bucket}/{prefix}"):
            pages = self._clients.s3.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=bucket, Prefix=prefix):
                for entry in page.get("Contents", ()):
                    if entry["Key"].endswith("/") and not entry["Size"]:
                        continue
                    yield StoredObject(
                        uri=join_uri(bucket, entry["Key"]),
                        size=entry["Size"],
                        etag=entry["ETag"].strip('"'),
                    )

    def read(self, uri: str) -> bytes:
        """The whole object. Raises NotFound."""
        bucket, key = split_uri(uri)
        with translated(uri):
            return self._clients.s3.get_object(Bucket=bucket, Key=key)["Body"].read()

    def write(self, uri: str, data: bytes, *, content_type: str = "") -> None:
        """Create or replace the object, all or nothing."""
        _check_key(uri)
        bucket, key = split_uri(uri)
        extra: dict[str, Any] = {"ContentType": content_type} if content_type else {}
        with translated(uri):
            self._clients.s3.put_object(Bucket=bucket, Key=key, Body=data, **extra)

    def copy(self, source: str, target: str, *, content_type: str = "") -> None:
        """Within S3, so nothing is downloaded; up to 5 GB. Raises NotFound."""
        _check_key(target)
        (from_bucket, from_key), (bucket, key) = split_uri(source), split_uri(target)
        extra: dict[str, Any] = {"MetadataDirective": "REPLACE", "ContentType": content_type}
        with translated(source):
            self._clients.s3.copy_object(
                Bucket=bucket,
                Key=key,
                CopySource={"Bucket": from_bucket, "Key": from_key},
                **(extra if content_type else {}),
            )

    def size(self, uri: str) -> int | None:
        """Bytes of the object, None if there is none."""
        bucket, key = split_uri(uri)
        try:
            with translated(uri):
                return self._clients.s3.head_object(Bucket=bucket, Key=key)["ContentLength"]
        except NotFound:
            return None

    def delete(self, uri: str) -> None:
        """Remove the object; absent is no error."""
        bucket, key = split_uri(uri)
        with translated(uri):
            self._clients.s3.delete_object(Bucket=bucket, Key=key)

    def path(self, uri: str) -> Path:
        """A copy in the cache folder, downloaded once for each version of the object.

        Open it before this thread asks for another: where the disk is full, older copies go.
        """
        bucket, key = split_uri(uri)
        with translated(uri):
            head = self._clients.s3.head_object(Bucket=bucket, Key=key)
            etag = head["ETag"]
            mine = hashlib.sha256(uri.encode()).hexdigest()[:32]
            version = hashlib.sha256(etag.encode()).hexdigest()[:16]
            path = self._cache / f"{mine}-{version}{PurePosixPath(key).suffix[:16]}"
            with self._lock:
                self._given[threading.current_thread()] = path.name
            if path.exists():
                return path
            body = self._clients.s3.get_object(Bucket=bucket, Key=key, IfMatch=etag)["Body"]
            self._cache.mkdir(parents=True, exist_ok=True)
            self._make_room(head["ContentLength"])
            descriptor, temporary = tempfile.mkstemp(dir=self._cache, prefix=path.name)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    for chunk in body.iter_chunks(1 << 20):
                        stream.write(chunk)
                Path(temporary).replace(path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        # A Lambda's disk is small: only the newest version stays.
        for old in self._cache.glob(f"{mine}-*"):
            self._remove(old)
        return path

    def _make_room(self, size: int) -> None:
        """Remove the oldest copies until ``size`` bytes fit: a warm function has served others."""
        if self._fits(size):
            return
        for file in sorted(self._cache.iterdir(), key=_age):
            self._remove(file)
            if self._fits(size):
                return

    def _remove(self, file: Path) -> None:
        """Remove a copy, or what a killed download left, unless a thread is about to use it."""
        with self._lock:
            if not file.name.startswith(tuple(self._given.values())):
                file.unlink(missing_ok=True)

    def _fits(self, size: int) -> bool:
        return shutil.disk_usage(self._cache).free >= size + _SPARE_BYTES


def _age(file: Path) -> float:
    """When the file was written; 0 where another thread has just moved or removed it."""
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _check_key(uri: str) -> None:
    """Raise InvalidInput for a key that S3 would take but no folder of files could hold."""
    key = split_uri(uri)[1]
    if "\0" in key or any(part in ("", ".", "..") for part in key.split("/")):
        raise InvalidInput(
            f"{key!r} cannot name an object: it may not be absolute, nor hold '..' or empty parts."
        )
