"""The two ends of a distributed Map: items read as they are needed, results written in chunks.

Neither end holds more than a batch or a chunk, so 10,000 items take no more memory than 100.
"""

import contextlib
import json
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

from .errors import ITEM_READER, RESULT_WRITER, StateError
from .resources import Resources
from .values import JSON, PAYLOAD_LIMIT, size, to_text

# A result file is written when it has grown to this many bytes.
CHUNK_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Batch:
    """The input of one child.

    Attributes:
        index: of the child, from 0.
        input: what the child gets.
        items: how many items of the Map are in it.
    """

    index: int
    input: JSON
    items: int


@dataclass(frozen=True, slots=True)
class Source:
    """An object with items, as JSON Lines."""

    resources: Resources
    bucket: str
    key: str

    def count(self) -> int:
        """How many items there are: one pass over the object that parses nothing."""
        with self._guard(), contextlib.closing(_generator(self._open())) as lines:
            return sum(1 for line in lines if line.strip())

    def read(self) -> Iterator[JSON]:
        """The items, one at a time; raises ``States.ItemReaderFailed``."""
        with self._guard(), contextlib.closing(_generator(self._open())) as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    item: JSON = json.loads(line)
                except ValueError as error:
                    raise self._failed(f"line {number} is not JSON: {error}") from None
                yield item

    def _open(self) -> Iterable[bytes]:
        return self.resources.read_object(self.bucket, self.key)

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except StateError as error:
            if error.error == ITEM_READER:
                raise
            raise self._failed(str(error)) from error
        except Exception as error:  # whatever the machine's store raises
            raise self._failed(f"{type(error).__name__}: {error}") from error

    def _failed(self, reason: str) -> StateError:
        return StateError(ITEM_READER, f"s3://{self.bucket}/{self.key} cannot be read: {reason}")


def batches(
    items: Iterable[JSON], *, most_items: int, batch_input: tuple[JSON] | None
) -> Iterator[Batch]:
    """Group items as ``ItemBatcher`` does: full batches, the last one shorter.

    Args:
        items: the items.
        most_items: ``MaxItemsPerBatch``; a child's input never exceeds 256 KiB, so batches of
            large items come out smaller.
        batch_input: ``BatchInput`` in a tuple, if there is one.

    Yields:
        ``{"BatchInput": …, "Items": […]}`` as the input of one child.
    """
    around: dict[str, JSON] = {"BatchInput": batch_input[0]} if batch_input else {}
    limit = PAYLOAD_LIMIT - size({**around, "Items": []})
    held: list[JSON] = []
    held_bytes = index = 0
    for item in items:
        item_bytes = size(item) + 1
        full = len(held) >= most_items
        if held and (full or held_bytes + item_bytes - 1 > limit):
            yield Batch(index, {**around, "Items": held}, len(held))
            held, held_bytes, index = [], 0, index + 1
        held.append(item)
        held_bytes += item_bytes
    if held:
        yield Batch(index, {**around, "Items": held}, len(held))


class ResultFiles:
    """What ``ResultWriter`` leaves: ``SUCCEEDED_n``, ``FAILED_n`` and ``manifest.json``.

    Not safe for several threads at once; the engine holds a lock.

    Args:
        resources: where the files go.
        bucket, prefix: their address; the files lie under ``prefix/<id of the map run>/``.
        map_run_arn: the map run; its last part is the id.
    """

    def __init__(
        self,
        resources: Resources,
        *,
        bucket: str,
        prefix: str,
        map_run_arn: str,
    ) -> None:
        self._resources = resources
        self._bucket = bucket
        folder = map_run_arn.rsplit(":", 1)[-1]
        self._folder = f"{prefix.rstrip('/')}/{folder}" if prefix else folder
        self._arn = map_run_arn
        self._held: dict[str, list[bytes]] = {"SUCCEEDED": [], "FAILED": []}
        self._bytes = {"SUCCEEDED": 0, "FAILED": 0}
        self._files: dict[str, list[JSON]] = {"SUCCEEDED": [], "FAILED": []}

    def add(self, record: dict[str, JSON]) -> None:
        """Keep the record of one child; writes a file when enough are held."""
        status = str(record["Status"])
        data = to_text(record).encode("utf-8", "backslashreplace")
        self._held[status].append(data)
        self._bytes[status] += len(data) + 1
        if self._bytes[status] >= CHUNK_BYTES:
            self._flush(status)

    def finish(self) -> JSON:
        """Write what is left and the manifest; gives ``ResultWriterDetails``."""
        for status in self._held:
            if self._held[status]:
                self._flush(status)
        manifest: JSON = {
            "DestinationBucket": self._bucket,
            "MapRunArn": self._arn,
            "ResultFiles": {
                "FAILED": self._files["FAILED"],
                "PENDING": [],
                "SUCCEEDED": self._files["SUCCEEDED"],
            },
        }
        key = f"{self._folder}/manifest.json"
        self._write(key, to_text(manifest).encode("utf-8", "backslashreplace"))
        return {"Bucket": self._bucket, "Key": key}

    def _flush(self, status: str) -> None:
        data = b"[" + b",".join(self._held[status]) + b"]"
        key = f"{self._folder}/{status}_{len(self._files[status])}.json"
        self._write(key, data)
        self._files[status].append({"Key": key, "Size": len(data)})
        self._held[status] = []
        self._bytes[status] = 0

    def _write(self, key: str, data: bytes) -> None:
        try:
            self._resources.write_object(self._bucket, key, data)
        except Exception as error:  # whatever the machine's store raises
            raise StateError(
                RESULT_WRITER,
                f"s3://{self._bucket}/{key} cannot be written: {type(error).__name__}: {error}",
            ) from error


def _generator(lines: Iterable[bytes]) -> Generator[bytes, None, None]:
    """A generator over ``lines`` that closes them when it is closed."""
    try:
        yield from lines
    finally:
        close = getattr(lines, "close", None)
        if close is not None:
            close()
