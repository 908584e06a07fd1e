"""Buckets as folders: objects are files, keys are paths below the bucket's folder."""

import errno
import io
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NoReturn
from uuid import uuid4

from imageclust.errors import InvalidInput, NotFound, Permanent, StoreUnavailable
from imageclust.keys import NOT_PHOTOS, join_uri, split_uri
from imageclust.ports import StoredObject

_TEMPORARY = ".imageclust-tmp-"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_BUSY = {errno.EAGAIN, errno.EBUSY, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE,
         errno.ETIMEDOUT}  # fmt: skip
_ABSENT = {errno.ENOENT, errno.ENOTDIR}
_COPY_BYTES = 1 << 20


class FileStore:
    """Objects as files. Writes are atomic: a temporary file beside the target, fsync, rename.

    A name that is not UTF-8 survives as surrogates in its key. Folders reached through a symbolic
    link (a collection that points to somebody's photos) are read, never written. Folders below a
    listed one that hold ``NOT_PHOTOS`` are left out.

    Args:
        roots: bucket name → its folder, which need not exist yet.
    """

    def __init__(self, roots: Mapping[str, Path]) -> None:
        self._roots = {bucket: Path(os.path.abspath(root)) for bucket, root in roots.items()}

    def list(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        """Files under ``prefix`` in bytewise key order.

        Symbolic links to files and folders are followed, except where that would list a folder
        twice or for ever. A folder inside that cannot be read and a broken link are listed as
        objects of size 0 that cannot be read, so that they are accounted for; an unreadable top
        folder raises InvalidInput.
        """
        folder, _, beginning = prefix.rpartition("/")
        top = self._locate(bucket, folder) if folder else self._root(bucket)
        base = f"{folder}/" if folder else ""
        if not top.is_dir():
            return
        walk = _Walk(top)
        for key, path in walk.files(base):
            if beginning and not key.startswith(prefix):
                continue
            yield _stored(join_uri(bucket, key), path)

    def read(self, uri: str) -> bytes:
        """The whole file. Raises NotFound, or InvalidInput when it is there but unreadable."""
        path = self.path(uri)
        try:
            return path.read_bytes()
        except OSError as error:
            _raise_reading(error, path)

    def write(self, uri: str, data: bytes, *, content_type: str = "") -> None:  # noqa: ARG002
        """Create or replace the file, all or nothing.

        Raises Permanent when the disk is full or the folder is read-only.
        """
        self._put(uri, io.BytesIO(data))

    def copy(self, source: str, target: str, *, content_type: str = "") -> None:  # noqa: ARG002
        """Create or replace ``target`` with the content of ``source``. Raises NotFound."""
        with self.path(source).open("rb") as stream:
            self._put(target, stream)

    def _put(self, uri: str, source: BinaryIO) -> None:
        path = self._writable(uri)
        # Random: a container that is killed and started again has its process number again.
        temporary = path.with_name(f"{_TEMPORARY}{uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("xb") as stream:
                    shutil.copyfileobj(source, stream, _COPY_BYTES)
                    stream.flush()
                    os.fsync(stream.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        except OSError as error:
            _raise_writing(error, path)

    def size(self, uri: str) -> int | None:
        """Bytes of the file, None if there is none."""
        path = self._locate(*split_uri(uri))
        try:
            found = path.stat()
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            _raise_reading(error, path)
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def delete(self, uri: str) -> None:
        """Remove the file; absent is no error."""
        path = self._writable(uri)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            if error.errno not in _ABSENT:
                _raise_writing(error, path)

    def path(self, uri: str) -> Path:
        """The file itself: read it, never write to it."""
        path = self._locate(*split_uri(uri))
        try:
            mode = path.stat().st_mode
        except OSError as error:
            _raise_reading(error, path)
        if not stat.S_ISREG(mode):
            # Opening a pipe or a device could wait for ever.
            what = "a folder that cannot be read" if stat.S_ISDIR(mode) else "not a regular file"
            raise InvalidInput(f"{_shown(path)} is {what}.")
        return path

    def _root(self, bucket: str) -> Path:
        try:
            return self._roots[bucket]
        except KeyError:
            raise NotFound(f"There is no bucket '{bucket}' here.") from None

    def _locate(self, bucket: str, key: str) -> Path:
        root = self._root(bucket)
        parts = key.split("/")
        if "\0" in key or any(part in ("", ".", "..") for part in parts):
            raise InvalidInput(
                f"{key!r} cannot name an object: it may not be absolute, "
                "nor hold '..' or empty parts."
            )
        return root.joinpath(*parts)

    def _writable(self, uri: str) -> Path:
        bucket, key = split_uri(uri)
        path = self._locate(bucket, key)
        root = self._root(bucket)
        try:
            real_parent, real_root = path.parent.resolve(), root.resolve()
        except (OSError, RuntimeError) as error:
            raise Permanent(f"{_shown(path)} cannot be written: {error}.") from error
        if path.name.startswith(_TEMPORARY):
            raise InvalidInput(f"Names that begin with {_TEMPORARY!r} are kept for the store.")
        if real_parent != real_root / path.parent.relative_to(root):
            raise InvalidInput(
                f"{_shown(path)} lies behind a symbolic link: photos are read where they lie "
                "and never changed."
            )
        return path


class _Walk:
    """One depth-first listing; ``chain`` are the real folders that enclose the current one."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self._walked = [os.path.realpath(top)]

    def files(self, base: str) -> Iterator[tuple[str, Path]]:
        """(key, path) of every file, in bytewise order of the keys."""
        stack = _reversed_entries(self._top, base, (self._walked[0],))
        while stack:
            _, key, path, chain = stack.pop()
            if chain is None:
                yield key, path
                continue
            entered = self._enter(path, chain)
            if entered is None:
                continue
            try:
                stack += _reversed_entries(path, f"{key}/", entered)
            except InvalidInput:
                yield key, path

    def _enter(self, path: Path, chain: tuple[str, ...]) -> tuple[str, ...] | None:
        if os.path.exists(path / NOT_PHOTOS):  # Path.exists raises where the folder is closed
            return None
        if not path.is_symlink():
            return chain
        real = os.path.realpath(path)
        if any(_inside(real, walked) for walked in self._walked):
            return None  # listed at its own place
        if any(_inside(above, real) for above in chain):
            return None  # it encloses us: a loop
        self._walked.append(real)
        return (*chain, real)


# (sort key, object key, path, real folders above or None for a file)
_Entry = tuple[bytes, str, Path, tuple[str, ...] | None]


def _reversed_entries(folder: Path, base: str, chain: tuple[str, ...]) -> list[_Entry]:
    entries: list[_Entry] = []
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.name.startswith(_TEMPORARY):
                    continue
                name, key = os.fsencode(entry.name), base + entry.name
                # A folder sorts as its keys do: with the slash that follows its name.
                if entry.is_dir():
                    entries.append((name + b"/", key, Path(entry.path), chain))
                elif entry.is_file() or entry.is_symlink():
                    entries.append((name, key, Path(entry.path), None))
    except OSError as error:
        raise InvalidInput(
            f"The folder {_shown(folder)} cannot be read: {os.strerror(error.errno or 0)}."
        ) from error
    return sorted(entries, key=lambda entry: entry[0], reverse=True)


def _stored(uri: str, path: Path) -> StoredObject:
    try:
        found = path.stat()
    except OSError as error:
        return StoredObject(uri=uri, size=0, etag=f"unreadable-{error.errno}")
    if not stat.S_ISREG(found.st_mode):
        return StoredObject(uri=uri, size=0, etag="unreadable")
    etag = f"{found.st_size}-{found.st_mtime_ns}-{found.st_ino}"
    return StoredObject(uri=uri, size=found.st_size, etag=etag)


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _shown(path: Path) -> str:
    """The path for a message, where people know it, not through the link of a collection.

    Bytes that are not UTF-8 are shown as escapes.
    """
    real = os.path.join(os.path.realpath(path.parent), path.name)
    return os.fsencode(real).decode(errors="backslashreplace")


def _raise_reading(error: OSError, path: Path) -> NoReturn:
    if error.errno in _ABSENT and path.is_symlink():
        aim = _shown(path.readlink())
        raise InvalidInput(f"This is a symbolic link to {aim}, which does not exist.") from error
    if error.errno in _ABSENT:
        raise NotFound(f"There is no file {_shown(path)}.") from error
    cause = os.strerror(error.errno or 0)
    if error.errno in _BUSY:
        raise StoreUnavailable(f"{_shown(path)} could not be read just now: {cause}.") from error
    raise InvalidInput(f"{_shown(path)} cannot be read: {cause}.") from error


def _raise_writing(error: OSError, path: Path) -> NoReturn:
    cause = os.strerror(error.errno or 0)
    if error.errno in _FULL:
        # Not retryable: nobody frees space while the workflow waits between two attempts.
        raise Permanent(
            f"{_shown(path)} cannot be written because the disk is full: free some space and "
            "run again; what is stored so far is kept."
        ) from error
    if error.errno in _BUSY or error.errno == errno.EIO:
        raise StoreUnavailable(f"{_shown(path)} could not be written: {cause}.") from error
    if error.errno == errno.ENAMETOOLONG:
        raise InvalidInput(f"{_shown(path)} is too long a name for this file system.") from error
    if error.errno == errno.EROFS:
        cause = "the file system is read-only"
    raise Permanent(f"{_shown(path)} cannot be written: {cause}.") from error
