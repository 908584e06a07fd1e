"""What the steps need of the world. Each port has two real adapters, chosen in ``wiring``.

One contract suite (``tests/contract``) runs over both sides. Methods raise the classes of
``imageclust.errors`` only: ``NotFound``, ``Conflict``, ``Throttled``, ``StoreUnavailable``,
``Permanent``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from imageclust.descriptions import ImageBrief
from imageclust.labels import Label
from imageclust.models import JSON, ClusterBrief, ClusterName

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_S_contra = TypeVar("_S_contra", contravariant=True)
_A_co = TypeVar("_A_co", covariant=True)

Key = tuple[str, str]
"""(pk, sk) of an item."""


@dataclass(frozen=True)
class StoredObject:
    """One object as a listing shows it. ``etag`` changes whenever the content may have changed."""

    uri: str
    size: int
    etag: str


class ObjectStore(Protocol):
    """Buckets of objects: S3, or folders of files. URIs are ``s3://bucket/key`` on both."""

    def list(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        """Objects under ``prefix`` in key order (bytewise UTF-8); none is no error."""
        ...

    def read(self, uri: str) -> bytes:
        """The whole object. Raises NotFound."""
        ...

    def write(self, uri: str, data: bytes, *, content_type: str = "") -> None:
        """Create or replace the object, all or nothing."""
        ...

    def copy(self, source: str, target: str, *, content_type: str = "") -> None:
        """Create or replace ``target`` with the content of ``source``, which this process need
        not hold. Raises NotFound."""
        ...

    def size(self, uri: str) -> int | None:
        """Bytes of the object, None if there is none."""
        ...

    def delete(self, uri: str) -> None:
        """Remove the object; absent is no error."""
        ...

    def path(self, uri: str) -> Path:
        """A local file with the object's content, read-only (S3 downloads it once)."""
        ...


@dataclass(frozen=True)
class Page:
    """One page of a query; ``next`` is None on the last one, else the cursor to give back."""

    items: tuple[JSON, ...]
    next: str | None = None


class Table(Protocol):
    """Items keyed by ``pk`` and ``sk``: DynamoDB, or SQLite.

    An item is a JSON object with text ``pk`` and ``sk``; numbers come back as int or float.
    """

    def get(self, pk: str, sk: str) -> JSON | None: ...

    def put(self, item: JSON, *, unless_exists: bool = False) -> None:
        """Write the whole item. With ``unless_exists`` an existing one raises Conflict."""
        ...

    def update(
        self, pk: str, sk: str, changes: JSON, *, expect: Mapping[str, Any] | None = None
    ) -> JSON:
        """Set the attributes of ``changes`` (None removes one), creating the item if need be.

        Every attribute in ``expect`` must hold that value (None: be absent), else Conflict.
        Returns the item as it is after the write.
        """
        ...

    def delete(self, pk: str, sk: str) -> None: ...

    def get_many(self, keys: Iterable[Key]) -> dict[Key, JSON]:
        """The items that exist among any number of keys."""
        ...

    def put_many(self, items: Iterable[JSON]) -> None:
        """Write any number of items; not atomic over all of them, safe to repeat."""
        ...

    def query(
        self,
        pk: str,
        *,
        prefix: str = "",
        limit: int | None = None,
        after: str | None = None,
        newest_first: bool = False,
    ) -> Page:
        """Items of one ``pk`` whose ``sk`` begins with ``prefix``, sorted by ``sk``.

        ``after`` is a cursor from an earlier page; a broken one raises InvalidInput.
        """
        ...


@dataclass(frozen=True)
class VectorMatch:
    """One answer of a query; ``distance`` is cosine distance (0 the same, 2 opposite)."""

    id: str
    distance: float
    metadata: JSON = field(default_factory=dict)


class VectorIndex(Protocol):
    """Nearest neighbours by cosine: S3 Vectors, or exact search over memory-mapped shards."""

    def create(self, index: str, dimension: int) -> None:
        """Make the index; the same dimension again is no error, another raises InvalidInput."""
        ...

    def put(
        self, index: str, ids: Sequence[str], vectors: NDArray[np.float32], metadata: Sequence[JSON]
    ) -> None:
        """Insert or replace vectors ``(n, dimension)`` float32, no zero or non-finite rows."""
        ...

    def query(
        self,
        index: str,
        vector: NDArray[np.float32],
        *,
        top_k: int,
        where: Mapping[str, Any] | None = None,
    ) -> tuple[VectorMatch, ...]:
        """The ``top_k`` nearest, nearest first. ``where`` keeps metadata equal to each value."""
        ...

    def keep(self, index: str, ids: Collection[str]) -> None:
        """Remove every vector but those of ``ids``. One that is not there is no error."""
        ...


@dataclass(frozen=True)
class Labelled:
    """The labeler's answer for one image: labels, or why there are none.

    ``moderation`` says what it shows that not everyone should see, ``properties`` the colours and
    the quality as the service measures them; both only where they were asked for.
    """

    labels: tuple[Label, ...] = ()
    moderation: tuple[Label, ...] = ()
    properties: JSON = field(default_factory=dict)
    model_version: str = ""
    error: str = ""


class Labeler(Protocol):
    """Image → labels: Rekognition, or an ONNX classifier.

    ``key`` names everything that changes the labels (model, thresholds) in ``[a-z0-9._-]+``.
    """

    key: str
    min_side: int
    """Short side, in pixels, that ``pixels`` should have at least."""

    def label(self, images: Iterable[NDArray[np.uint8]]) -> list[Labelled]:
        """One answer an image, in order; pixels ``(h, w, 3)`` uint8 RGB."""
        ...


class JointModel(Protocol):
    """One model that embeds and labels from the same inference. ``labeler`` is the labels' key."""

    labeler: str

    def embed_and_label(
        self, images: Sequence[NDArray[np.uint8]]
    ) -> tuple[NDArray[np.float32], list[Labelled]]:
        """Vectors ``(n, dimension)`` float32 as the embedder gives, and an answer an image."""
        ...


def never() -> bool:
    """No end of time."""
    return False


class Describer(Protocol):
    """Cluster → title, phrase, description: Bedrock, or the deterministic describer."""

    key: str

    def describe(
        self, briefs: Sequence[ClusterBrief], *, out_of_time: Callable[[], bool] = never
    ) -> Sequence[ClusterName | None]:
        """One name a cluster, in order; None where it has none.

        Once ``out_of_time()``, nothing more is asked.
        """
        ...


class Batch(Protocol[_S_contra, _A_co]):
    """Answers as one asynchronous job: Bedrock batch inference. ``model`` is who answers.

    On this machine there are no such jobs: there the question is answered with None.
    """

    model: str

    def submit(self, *, job: str, subjects: Sequence[_S_contra], folder: str) -> None:
        """Start the job named ``job`` (idempotent by name); ``folder`` is an s3:// prefix."""
        ...

    def collect(self, *, job: str, folder: str) -> Mapping[str, _A_co]:
        """Answers of the records that succeeded, by the id of the subject."""
        ...


BatchDescriber = Batch[ClusterBrief, ClusterName]


class BatchEmbedder(Protocol):
    """Embeddings as asynchronous jobs over folders of records: Bedrock batch inference.

    Models on this machine have no such jobs: there the question is answered with None.
    """

    key: str
    dimension: int
    min_side: int
    records_a_job: int
    """Most records of one job, however much a picture weighs."""

    def record(self, image_id: str, pixels: NDArray[np.uint8]) -> bytes:
        """A line of a job's input. Raises InvalidInput for a picture that no request can hold."""
        ...

    def submit(self, *, job: str, source: str, output: str) -> None:
        """Start the job named ``job`` (idempotent by name) over a folder of records."""
        ...

    def join(self, records: bytes, outputs: Sequence[bytes]) -> dict[str, NDArray[np.float32]]:
        """``(dimension,)`` vectors by image id for all records; NaN where there is none."""
        ...


class Captioner(Protocol):
    """Image → caption of at most 150 characters: Bedrock, or words for its labels.

    ``key`` names everything but the picture that changes a caption; it is empty where captions
    depend on what else a run knows and are made anew. ``model`` is who is told to have made them.
    """

    key: str
    model: str

    def caption(
        self, images: Sequence[ImageBrief], *, out_of_time: Callable[[], bool] = never
    ) -> Sequence[str | None]:
        """One caption an image, in order; None where it has none.

        Once ``out_of_time()``, nothing more is asked.
        """
        ...


BatchCaptioner = Batch[ImageBrief, str]


class Workflows(Protocol):
    """Starts and watches executions: Step Functions, or the local runner."""

    def start(self, run_id: str, request: JSON) -> None:
        """Start the execution named ``run_id``; the same name and input again is no error."""
        ...

    def stop(self, run_id: str, reason: str) -> None: ...

    def running(self, run_id: str) -> bool: ...

    def end_of(self, run_id: str) -> str:
        """How an execution ended that left no word in the table; empty when nobody knows."""
        ...

    def succeed(self, token: str, output: JSON) -> None:
        """Give a waiting task its result. A token that no longer waits raises NotFound."""
        ...

    def fail(self, token: str, error: str, cause: str) -> None: ...


class Scheduler(Protocol):
    """One-off timers, one a name: EventBridge Scheduler, or rows the local server polls."""

    def schedule(self, name: str, at: datetime, payload: JSON) -> None:
        """Fire once at ``at`` (UTC) with ``payload``; a pending timer of that name moves there."""
        ...


class Events(Protocol):
    """Tells others what happened: EventBridge, or a JSON Lines file."""

    def publish(self, kind: str, detail: JSON) -> None: ...


@dataclass(frozen=True)
class SignedUpload:
    """Where and how a client posts one file: a form POST to ``url`` with ``fields`` first."""

    url: str
    fields: dict[str, str]


class Links(Protocol):
    """Addresses that a browser can use: presigned S3, or routes of the local server."""

    def upload(self, uri: str, *, content_type: str, max_bytes: int) -> SignedUpload: ...

    def download(self, uri: str) -> str: ...
