"""What Embed and Label left behind, read back for the steps that need all images at once."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from imageclust import keys
from imageclust.errors import CorruptData, InvalidInput
from imageclust.labels import Label
from imageclust.late import np
from imageclust.models import JSON, FileSeen, parse_json_lines
from imageclust.wiring import Services

if TYPE_CHECKING:
    from numpy.typing import NDArray

_T = TypeVar("_T")

_READERS = 8  # S3 answers in some 25 ms whatever it is asked for
_WINDOW = 64  # shards of a call

_NOT_EMBEDDED = "it could not be embedded this time"
_RETRY = "run again to retry"


@dataclass(frozen=True, eq=False)
class Gathered:
    """The images of a run that have a vector; ``rejected`` maps the others to the reason.

    ``image_ids`` (sorted) index the rows of ``vectors`` ``(n, d)`` float32; ``facts`` holds the
    sidecar row of each. Each is read at its first use: a run that finds its clustering stored
    needs neither, and PublishRun no vectors.
    """

    image_ids: tuple[str, ...]
    rejected: dict[str, str]
    read_vectors: Callable[[], NDArray[np.float32]]
    read_facts: Callable[[], dict[str, JSON]]

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        return self.read_vectors()

    @cached_property
    def facts(self) -> dict[str, JSON]:
        return self.read_facts()

    def without(self, image_ids: Collection[str]) -> Gathered:
        """The same but for these images."""
        rows = [row for row, i in enumerate(self.image_ids) if i not in image_ids]
        ids = tuple(self.image_ids[row] for row in rows)
        return Gathered(ids, self.rejected, lambda: self.vectors[rows], lambda: self.facts)


def read_files(services: Services, address: JSON) -> list[FileSeen]:
    """The run's file list as PlanRun wrote it."""
    data = services.store.read(keys.join_uri(address["bucket"], address["key"]))
    return [FileSeen.from_json(row) for row in parse_json_lines(data)]


def kept_paths(files: Iterable[FileSeen], patterns: Sequence[str]) -> frozenset[str]:
    """Paths of the files that stand for their copies because the user says so.

    A pattern is a path or a glob, in which ``*`` matches folders too. Raises InvalidInput for one
    that matches no file.
    """
    paths = {file.path for file in files} if patterns else set()
    kept: set[str] = set()
    for pattern in patterns:
        glob = re.compile(translate(pattern))
        matched = {pattern} if pattern in paths else {path for path in paths if glob.match(path)}
        if not matched:
            raise InvalidInput(
                f"keepers: no file of the collection is called or matches '{pattern}'"
            )
        kept |= matched
    return frozenset(kept)


def first_paths(files: Iterable[FileSeen], kept: Collection[str] = ()) -> dict[str, str]:
    """The path that stands for each image: a ``kept`` one, else the first by name."""
    first: dict[str, str] = {}
    for file in sorted(files, key=lambda file: (file.path not in kept, file.path)):
        if file.image_id:
            first.setdefault(file.image_id, file.path)
    return first


def read_rows(services: Services, clusters: JSON, name: str) -> list[JSON]:
    """One of the JSON Lines documents of a clustering; ``clusters`` is what ClusterImages said."""
    uri = keys.join_uri(clusters["bucket"], clusters["prefix"] + name)
    return parse_json_lines(services.store.read(uri))


def gather(services: Services, image_ids: Iterable[str], embedder: str, *, run: str) -> Gathered:
    """Find the stored vectors of these images; those without one are rejected with a reason.

    ``run`` is the id of the run whose files Embed may have found unreadable.
    """
    wanted = sorted(set(image_ids))
    found = services.table.get_many((keys.vector_pk(embedder, i), keys.POINTER_SK) for i in wanted)
    missing = [i for i in wanted if (keys.vector_pk(embedder, i), keys.POINTER_SK) not in found]
    unread = services.table.get_many(
        (keys.vector_pk(embedder, i), keys.run_sk(run)) for i in missing
    )
    rejected: dict[str, str] = {}
    places: dict[str, list[tuple[int, str]]] = {}  # shard -> (row in shard, image id)
    for image_id in wanted:
        pointer = found.get((keys.vector_pk(embedder, image_id), keys.POINTER_SK))
        if pointer is None:
            failure = unread.get((keys.vector_pk(embedder, image_id), keys.run_sk(run)), {})
            reason = failure.get("reason", _NOT_EMBEDDED).rstrip(".")
            rejected[image_id] = f"{reason}; {_RETRY}"
        elif "shard" not in pointer:
            rejected[image_id] = pointer["rejected"]["reason"]
        else:
            places.setdefault(pointer["shard"], []).append((pointer["row"], image_id))
    kept = tuple(image_id for image_id in wanted if image_id not in rejected)
    position = {image_id: row for row, image_id in enumerate(kept)}
    bucket = services.settings.data_bucket

    def read_vectors() -> NDArray[np.float32]:
        vectors: NDArray[np.float32] | None = None
        uris = [keys.join_uri(bucket, keys.vector_key(embedder, shard)) for shard in places]
        for matrix, members in zip(_each(uris, services, _matrix), places.values(), strict=True):
            if vectors is None:
                vectors = np.empty((len(kept), matrix.shape[1]), dtype=np.float32)
            for row, image_id in members:
                vectors[position[image_id]] = matrix[row]
        return np.empty((0, 0), dtype=np.float32) if vectors is None else vectors

    def read_facts() -> dict[str, JSON]:
        facts: dict[str, JSON] = {}
        uris = [keys.join_uri(bucket, keys.sidecar_key(embedder, shard)) for shard in places]
        for rows, members in zip(_each(uris, services, _rows), places.values(), strict=True):
            facts.update((image_id, rows[image_id]) for _, image_id in members)
        return facts

    return Gathered(kept, rejected, read_vectors, read_facts)


def _each(uris: Sequence[str], services: Services, parse: Callable[[bytes], _T]) -> Iterator[_T]:
    """The objects in order; several are on their way at once, and only a few are held."""

    def read(uri: str) -> _T:
        try:
            return parse(services.store.read(uri))
        except ValueError as error:
            raise CorruptData(
                f"the shard {uri} does not read back: remove it, and the next run embeds its "
                f"images anew ({error})"
            ) from error

    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(uris), _WINDOW):
            yield from pool.map(read, uris[start : start + _WINDOW])


def _matrix(data: bytes) -> NDArray[np.float16]:
    matrix: NDArray[np.float16] = np.load(io.BytesIO(data), allow_pickle=False)
    return matrix


def _rows(data: bytes) -> dict[str, JSON]:
    return {row["image_id"]: row for row in parse_json_lines(data)}


@dataclass(frozen=True)
class Answers:
    """What the labeler said, by image id; images without an answer are absent.

    ``flagged`` are the names of what should not be shown, ``properties`` the service's measures.
    """

    labels: dict[str, tuple[Label, ...]]
    flagged: dict[str, tuple[str, ...]]
    properties: dict[str, JSON]


def read_answers(services: Services, image_ids: Sequence[str], labeler: str) -> Answers:
    """Stored answers of a labeler, by its key; "" has none."""
    answers = Answers({}, {}, {})
    if not labeler:
        return answers
    found = services.table.get_many(
        (keys.label_pk(labeler, image_id), keys.POINTER_SK) for image_id in image_ids
    )
    wanted = set(image_ids)
    bucket = services.settings.data_bucket
    shards = sorted({item["shard"] for item in found.values()})
    uris = [keys.join_uri(bucket, keys.label_key(labeler, shard)) for shard in shards]
    for rows in _each(uris, services, parse_json_lines):
        for row in rows:
            image_id = row["image_id"]
            if image_id not in wanted or row["error"]:
                continue
            answers.labels[image_id] = tuple(Label.from_json(item) for item in row["labels"])
            if row.get("moderation"):
                answers.flagged[image_id] = tuple(item["Name"] for item in row["moderation"])
            if row.get("properties"):
                answers.properties[image_id] = row["properties"]
    return answers
