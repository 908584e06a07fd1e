"""PublishRun: check the law of conservation, write what the API reads, switch the collection.

The switch of ``current_run`` comes last: until then readers see the run before.

More images than one call can write come back with ``complete: false`` and how far it came; the
workflow calls again.

A run that found just what the run shown now had found is recorded with ``same_as``, the id of that
run, and nothing is written twice: its clusters, files and exports are those of the other one, which
the collection goes on showing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import imageclust
from imageclust import keys
from imageclust.descriptions import ClusterNames
from imageclust.descriptions.words import counted
from imageclust.errors import Conflict, LawBroken
from imageclust.labels import Label
from imageclust.late import np
from imageclust.models import (
    JSON,
    ClusterName,
    Counts,
    FileSeen,
    Outcome,
    RunConfig,
    digest_of,
    pretty_json,
)
from imageclust.steps.captions import read_captions
from imageclust.steps.copies import similar_csv
from imageclust.steps.describe_clusters import read_names
from imageclust.steps.gather import (
    Gathered,
    first_paths,
    gather,
    kept_paths,
    read_answers,
    read_files,
    read_rows,
)
from imageclust.steps.start_run import finish_run, run_record, title_of
from imageclust.steps.usage import cost_of_run, store_usage
from imageclust.wiring import Services

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ITEMS = 10_000  # written between two looks at the clock: some seconds
_VECTORS = 4_000  # likewise, some ten seconds


@dataclass(frozen=True)
class PublishRequest:
    """Input of PublishRun: what every state before it returned."""

    run_id: str
    collection: str
    config: RunConfig
    plan: JSON
    clusters: JSON
    map: JSON
    names: JSON
    seconds: dict[str, float]
    written: JSON | None = None
    """What calls before this one have written; None: everything has to be done in this one."""

    @classmethod
    def from_json(cls, data: JSON) -> PublishRequest:
        return cls(
            run_id=data["run_id"],
            collection=data["collection"],
            config=RunConfig.from_json(data["config"]),
            plan=data["plan"],
            clusters=data["clusters"],
            map=data["map"],
            names=data["names"],
            seconds=data["seconds"],
            written=data.get("written"),
        )


def publish_run(
    services: Services, request: PublishRequest, *, clock: Callable[[], float] = time.monotonic
) -> JSON:
    """Publish one run; returns its counts, or how much is written where time did not suffice.

    Raises:
        LawBroken: an image would be lost or counted twice. Nothing is published then.
        Conflict: the run is over, or images that it clustered have no vector any more.
    """
    deadline = clock() + services.settings.publish_seconds
    made_of = _made_of(services, request)
    shown = _shown_run(services, request.collection)
    if (
        shown
        and shown["run_id"] != request.run_id
        and shown.get("made_of") == made_of
        and shown["exported"] == _exported(services, shown["run_id"])
    ):
        return _publish_again(services, request, shown)
    return _publish(services, request, made_of, out_of_time=lambda: clock() > deadline)


def _publish(
    services: Services,
    request: PublishRequest,
    made_of: str,
    *,
    out_of_time: Callable[[], bool],
) -> JSON:
    """Write everything that the run found."""
    from imageclust.exports import Export, export_files  # with the template engine

    started, begun = time.monotonic(), time.time()
    files = read_files(services, request.plan["files"])
    places = {
        row["image_id"]: row for row in read_rows(services, request.clusters, "assignments.jsonl")
    }
    # What had no vector when it was clustered may have one now, from another run: not of this one.
    placed = [image_id for image_id, row in places.items() if row["status"] != "rejected"]
    gathered = gather(services, placed, request.plan["embedder"], run=request.run_id)
    if gathered.rejected:  # the rows of the stored matrix would be those of other images
        reason = next(iter(gathered.rejected.values())).removesuffix(".")
        raise Conflict(
            f"another run changed what is stored of {counted(len(gathered.rejected), 'image')} "
            f"since this one clustered them ({reason}): start the run again"
        )
    clusters = read_rows(services, request.clusters, "clusters.jsonl")
    similar = read_rows(services, request.clusters, "similar.jsonl")
    names = read_names(services, request.names)
    captions = read_captions(services, request.names["captions"])
    answers = read_answers(services, gathered.image_ids, request.plan["labeler"])
    own = answers.labels
    spread = {row["image_id"]: row for row in read_rows(services, request.clusters, "labels.jsonl")}
    labels = _labels_of_run(request, own, spread)
    summary_uri = keys.join_uri(
        request.clusters["bucket"], request.clusters["prefix"] + "summary.json"
    )
    summary = json.loads(services.store.read(summary_uri))
    result = summary["result"]
    result["map_method"] = request.map["method"]
    if request.map["method"] != "pca":
        for image_id, there in zip(placed, _map(services, request), strict=True):
            # The plain one stays beside it.
            places[image_id].update(map=there, map_pca=places[image_id]["map"])

    first = first_paths(files, kept_paths(files, request.config.keepers))
    outcomes = outcomes_of(files, places, first)
    counts = count_outcomes(outcomes)
    if not counts.balanced or counts.seen != request.plan["images"]["seen"]:
        raise LawBroken(f"{request.plan['images']['seen']} files seen, but {counts.to_json()}")

    cluster_items = [
        {**cluster, **_names_json(names[cluster["cluster_id"]]), "labels": top}
        for cluster, top in zip(clusters, _top_labels(services, request), strict=True)
    ]
    for image_id, row in spread.items():
        if row["spread"]:
            places[image_id]["labels_spread"] = True
    for image_id, flags in answers.flagged.items():
        places[image_id]["flagged"] = list(flags)
    for image_id, measured in answers.properties.items():
        places[image_id]["properties"] = measured
    # What an image itself was told, in whichever run, goes before what was spread to it.
    spread_only = {i for i, row in spread.items() if row["spread"] and i not in own}
    # As ClusterImages stored them, a row for each image that has one; read where they are needed.
    matrix_uri = keys.join_uri(
        request.clusters["bucket"], request.clusters["prefix"] + "embeddings.npy"
    )
    vectors: NDArray[np.float32] = np.load(services.store.path(matrix_uri), mmap_mode="r")
    found = _Found(
        outcomes,
        places,
        first,
        cluster_items,
        gathered,
        vectors,
        {**labels, **own},
        frozenset(spread_only),
        captions,
    )
    written = _write(services, request, found, out_of_time)
    store_usage(services, "PublishRun", {"run_id": request.run_id}, started=begun)
    if written is not None:
        return {"complete": False, "written": written}
    before = request.seconds.get("PublishRun", 0.0)
    seconds = {**request.seconds, "PublishRun": round(before + time.monotonic() - started, 3)}
    record: JSON = {
        "run_id": request.run_id,
        "collection": request.collection,
        "title": title_of(services.table, request.collection),
        "state": "SUCCEEDED",
        "config": request.config.to_json(),
        "counts": counts.to_json(),
        "images": request.plan["images"],
        "notes": _notes(request),
        "estimate": request.plan["estimate"],
        # All but the exports and this record, which are about to be written.
        "cost": cost_of_run(services, request.run_id, embedder=request.config.embedder),
        "clusters": len(cluster_items),
        "models": {
            "embedder": request.plan["embedder"],
            "labeler": request.plan["labeler"],
            "describer": request.names["model"],
            "sha256": {k: v for k, v in request.plan["digests"].items() if v},
            "placement": request.plan["embed"]["why"],
        },
        "labels": {
            "mode": request.config.labels,
            **({"flagged": len(answers.flagged)} if request.config.moderation == "on" else {}),
            **summary["labels"],
        },
        "map": request.map,
        "captions": _caption_counts(request),
        "duplicates": {"policy": request.config.duplicates, **summary["duplicates"]},
        "metrics": result["metrics"],
        "method": result["method"],
        "settings": result["settings"],
        "seconds": seconds,
        "versions": versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    export = Export(
        record=record,
        outcomes=tuple(outcomes),
        clusters=tuple(cluster_items),
        result=result,
        image_ids=gathered.image_ids,
        vectors=vectors,
        facts=gathered.facts,
        labels=labels,
        places=places,
        search_labels=_search_labels(services, request),
        captions=captions,
    )
    bucket = services.settings.data_bucket

    def address(name: str) -> str:
        return keys.join_uri(bucket, keys.export_key(request.run_id, name))

    services.store.copy(
        matrix_uri, address("embeddings.npy"), content_type="application/octet-stream"
    )
    sizes = {"embeddings.npy": services.store.size(matrix_uri) or 0}
    files_made = export_files(export)
    if request.config.duplicates == "confirmed":
        pairs = ((row["a"], row["b"], row["score"]) for row in similar)
        csv = ("similar.csv", similar_csv(pairs, first), "text/csv; charset=utf-8")
        files_made = chain([csv], files_made)
    for name, data, content_type in files_made:
        services.store.write(address(name), data, content_type=content_type)
        sizes[name] = len(data)
    # Late, for searches of the run before; not once this run is over (a call that is repeated, or
    # goes on after it was cancelled), when another run may fill it.
    run = run_record(services.table, request.run_id)
    if run is None or run["state"] == "RUNNING":
        services.index.keep(_index(request), gathered.image_ids)
    _finish(services, request, {**record, "made_of": made_of, "exported": _summed(sizes)})
    return _done(request, counts, len(cluster_items))


def _done(request: PublishRequest, counts: Counts, clusters: int) -> JSON:
    return {
        "complete": True,
        "run_id": request.run_id,
        "counts": counts.to_json(),
        "clusters": clusters,
    }


def _finish(services: Services, request: PublishRequest, record: JSON) -> None:
    """End the run and tell those who listen."""
    final = finish_run(
        services,
        request.collection,
        request.run_id,
        state="SUCCEEDED",
        changes={**record, "exports": keys.export_key(request.run_id, "")},
    )
    if final != "SUCCEEDED":
        raise Conflict(f"the run {request.run_id} is over already: {final}")
    told = ("run_id", "collection", "counts", "same_as")
    detail: JSON = {name: record[name] for name in told if name in record}
    services.events.publish("Run Published", detail)
    store_usage(services, "PublishRun", {"run_id": request.run_id}, started=time.time())


_OF_ONE_RUN = ("pk", "sk", "trigger", "created", "exports", "exported", "made_of", "failure")
"""What the table knows of a run and a run that repeats its results does not take over."""


def _publish_again(services: Services, request: PublishRequest, shown: JSON) -> JSON:
    """Record a run that found what the ``shown`` run holds already."""
    started, begun = time.monotonic(), time.time()
    counts = Counts.from_json(shown["counts"])
    listed = _read_list(services, request).count(b"\n")
    if not counts.balanced or not counts.seen == listed == request.plan["images"]["seen"]:
        raise LawBroken(f"{listed} files listed, but {counts.to_json()}")
    store_usage(services, "PublishRun", {"run_id": request.run_id}, started=begun)
    record: JSON = {
        **{name: value for name, value in shown.items() if name not in _OF_ONE_RUN},
        "run_id": request.run_id,
        "same_as": shown["run_id"],
        "images": request.plan["images"],
        "estimate": request.plan["estimate"],
        "cost": cost_of_run(services, request.run_id, embedder=request.config.embedder),
        "models": {**shown["models"], "placement": request.plan["embed"]["why"]},
        "seconds": {**request.seconds, "PublishRun": round(time.monotonic() - started, 3)},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    uri = keys.join_uri(services.settings.data_bucket, keys.export_key(request.run_id, "run.json"))
    services.store.write(uri, pretty_json(record), content_type="application/json")
    _finish(services, request, record)
    return _done(request, counts, record["clusters"])


def _made_of(services: Services, request: PublishRequest) -> str:
    """Digest of all that the published results depend on, our own code included."""
    plan, names = request.plan, request.names
    named = services.store.read(keys.join_uri(names["bucket"], names["key"]))
    captions = sorted(read_captions(services, names["captions"]).items())
    return digest_of(
        {
            "code": _code_digest(),
            "title": title_of(services.table, request.collection),
            "files": hashlib.sha256(_read_list(services, request)).hexdigest(),
            "config": request.config.to_json(),
            "models": [plan["embedder"], plan["labeler"], plan["digests"], names["model"]],
            "notes": _notes(request),
            "clusters": request.clusters["digest"],
            "map": request.map,
            "names": hashlib.sha256(named).hexdigest(),
            "captions": captions,
        }
    )


@cache
def _code_digest() -> str:
    """Digest of the library's files: another gallery or engine has results of its own."""
    root, digest = Path(imageclust.__path__[0]), hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.suffix in (".py", ".j2", ".json"):
            digest.update(f"{path.relative_to(root)} {path.stat().st_size} ".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _read_list(services: Services, request: PublishRequest) -> bytes:
    address = request.plan["files"]
    return services.store.read(keys.join_uri(address["bucket"], address["key"]))


def _shown_run(services: Services, collection: str) -> JSON | None:
    """The record of the run that the collection shows."""
    item = services.table.get(keys.COLLECTIONS_PK, collection) or {}
    run_id = item.get("current_run")
    return None if run_id is None else run_record(services.table, run_id)


def _exported(services: Services, run_id: str) -> str:
    """What is left of a run's exports, to compare with what was written."""
    bucket, prefix = services.settings.data_bucket, keys.export_key(run_id, "")
    root = len(keys.join_uri(bucket, prefix))
    return _summed({item.uri[root:]: item.size for item in services.store.list(bucket, prefix)})


def _summed(sizes: dict[str, int]) -> str:
    return digest_of(sizes)[:16]


def versions() -> dict[str, str]:
    """Versions of what computes results, as far as this process has them."""
    from importlib import metadata  # takes a while to load

    found = {"imageclust": imageclust.__version__, "python": platform.python_version()}
    for package in ("numpy", "scipy", "onnxruntime", "opencv-python-headless"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def outcomes_of(
    files: list[FileSeen], places: dict[str, JSON], first: dict[str, str]
) -> list[Outcome]:
    """What became of each file, in file order.

    The ``first`` path of an image stands for it; its other files are duplicates of that one and
    carry its cluster, and so are all files of a confirmed copy, of the image that was kept.
    Copies of a rejected image are rejected like it.
    """
    return [_outcome(file, places, first) for file in files]


def _outcome(file: FileSeen, places: dict[str, JSON], first: dict[str, str]) -> Outcome:
    if not file.image_id:
        return Outcome(path=file.path, image_id="", status="rejected", reason=file.reason or "")
    place = places[file.image_id]
    told = Outcome(path=file.path, image_id=file.image_id, status=place["status"])
    if place["status"] == "rejected":
        return replace(told, reason=place["reason"])
    told = replace(told, cluster_id=place["cluster_id"], rank=place["rank"])
    stands_for_it = first[place.get("duplicate_of", file.image_id)]
    if stands_for_it == file.path:
        return told
    return replace(told, status="duplicate", duplicate_of=stands_for_it)


def count_outcomes(outcomes: list[Outcome]) -> Counts:
    def number(status: str) -> int:
        return sum(outcome.status == status for outcome in outcomes)

    return Counts(
        seen=len(outcomes),
        clustered=number("clustered"),
        outliers=number("outlier"),
        duplicates=number("duplicate"),
        rejected=number("rejected"),
    )


def _notes(request: PublishRequest) -> list[str]:
    """What the run should tell its people, of every state that has something to say."""
    captions = request.names["captions"] or {"notes": []}
    return [*request.plan["notes"], *request.names["notes"], *captions["notes"]]


def _caption_counts(request: PublishRequest) -> JSON:
    """How many images the run wanted captions of, how many have one, and who says them."""
    told = request.names["captions"] or {"wanted": 0, "given": 0, "model": ""}
    kept = {name: told[name] for name in ("wanted", "given", "model")}
    return {"mode": request.config.captions, **kept}


def _labels_of_run(
    request: PublishRequest, own: dict[str, tuple[Label, ...]], spread: dict[str, JSON]
) -> dict[str, tuple[Label, ...]]:
    """The labels that this run went by, by image id."""
    if request.config.labels != "exemplars":
        return own
    return {
        image_id: tuple(Label.from_json(label) for label in row["labels"])
        for image_id, row in spread.items()
    }


def _search_labels(services: Services, request: PublishRequest) -> NDArray[np.int32]:
    name = request.clusters["prefix"] + keys.SEARCH_LABELS
    uri = keys.join_uri(request.clusters["bucket"], name)
    labels: NDArray[np.int32] = np.load(services.store.path(uri), allow_pickle=False)
    return labels


def _map(services: Services, request: PublishRequest) -> list[list[float]]:
    """Places on the map that DrawMap drew, in the order of the assignments."""
    uri = keys.join_uri(request.clusters["bucket"], keys.map_key(request.clusters["digest"]))
    flat: list[list[float]] = np.load(services.store.path(uri), allow_pickle=False).tolist()
    return [[round(x, 3), round(y, 3)] for x, y in flat]


def _top_labels(services: Services, request: PublishRequest) -> list[list[str]]:
    briefs = read_rows(services, request.clusters, "briefs.jsonl")
    return [[name for name, _, _ in brief["labels"][:10]] for brief in briefs]


def _names_json(names: ClusterNames) -> JSON:
    """The names that are shown, and with several describers every answer beside them."""
    answers = [_name_json(answer) for answer in names.answers]
    return {**_name_json(names.shown), **({"answers": answers} if len(answers) > 1 else {})}


def _name_json(name: ClusterName) -> JSON:
    data = name.to_json()
    model = data.pop("model")
    return {**data, "described_by": model}


@dataclass(frozen=True)
class _Found:
    """What the run found, read back and joined."""

    outcomes: list[Outcome]
    places: dict[str, JSON]
    first: dict[str, str]
    clusters: list[JSON]
    gathered: Gathered
    vectors: NDArray[np.float32]
    labels: dict[str, tuple[Label, ...]]
    spread_only: frozenset[str]
    captions: dict[str, JSON]


def _items(services: Services, request: PublishRequest, found: _Found) -> Iterator[JSON]:
    """Table items of the run: clusters, members, outliers, images and their place."""
    run_id = request.run_id
    for cluster in found.clusters:
        yield {
            "pk": keys.run_pk(run_id),
            "sk": keys.cluster_sk(cluster["cluster_id"]),
            **cluster,
        }
    uploads = services.settings.uploads_bucket
    prefix = keys.uploads_prefix(request.collection)
    for outcome in found.outcomes:
        yield {
            "pk": keys.run_pk(run_id),
            "sk": keys.file_sk(outcome.status, outcome.path),
            **{k: v for k, v in outcome.to_json().items() if v not in ("", None)},
        }
    for image_id in found.gathered.image_ids:
        place = found.places[image_id]
        group = place["cluster_id"] or keys.OUTLIERS
        told: JSON = {name: place[name] for name in ("flagged", "properties") if name in place}
        fact = found.gathered.facts[image_id]
        member: JSON = {
            "run_id": run_id,
            "collection": request.collection,
            "image_id": image_id,
            "path": found.first[image_id],
            "cluster_id": place["cluster_id"],
            "rank": place["rank"],
            "margin": place["margin"],
            "status": place["status"],
            **({"flagged": place["flagged"]} if "flagged" in place else {}),
        }
        if image_id in found.captions:
            said = found.captions[image_id]
            member |= {"caption": said["caption"], "captioned_by": said["model"]}
        if place["status"] == "duplicate":
            # A copy follows its keeper: it is no member of its own.
            member["duplicate_of"] = place["duplicate_of"]
        else:
            yield {
                "pk": keys.member_pk(run_id, group, place["rank"]),
                "sk": keys.member_sk(place["rank"]),
                **member,
            }
        yield {"pk": keys.image_pk(image_id), "sk": keys.run_sk(run_id), **member}
        yield {
            "pk": keys.image_pk(image_id),
            "sk": keys.IMAGE_SK,
            "image_id": image_id,
            "width": fact["width"],
            "height": fact["height"],
            "format": fact["format"],
            "notes": fact["notes"],
            "facts": fact["fingerprint"],
            "labels": [label.to_json() for label in found.labels.get(image_id, ())],
            **told,
            **({"labels_spread": True} if image_id in found.spread_only else {}),
            "uri": keys.join_uri(uploads, prefix + found.first[image_id]),
            "thumbnail": keys.join_uri(services.settings.data_bucket, keys.thumbnail_key(image_id)),
        }


def _index(request: PublishRequest) -> str:
    """The collection's search index; once a run is published it holds what that run placed."""
    return keys.index_name(request.collection, request.plan["embedder"])


def _write(
    services: Services, request: PublishRequest, found: _Found, out_of_time: Callable[[], bool]
) -> JSON | None:
    """Write the table's items, then the index; how far it came where it must go on, else None.

    Both have one order in every call, so numbers tell how far. Writing one again does no harm.
    """
    in_turns = request.written is not None
    written = {"items": 0, "vectors": 0, **(request.written or {})}
    items = islice(_items(services, request, found), written["items"], None)
    while chunk := list(islice(items, _ITEMS)):
        services.table.put_many(chunk)
        written["items"] += len(chunk)
        if in_turns and out_of_time():
            return written
    index = _index(request)
    services.index.create(index, found.vectors.shape[1])
    for start in range(written["vectors"], len(found.vectors), _VECTORS):
        if in_turns and start > written["vectors"] and out_of_time():
            return {**written, "vectors": start}
        _index_vectors(services, index, found, range(len(found.vectors))[start : start + _VECTORS])
    return None


def _index_vectors(services: Services, index: str, found: _Found, rows: range) -> None:
    """Put these rows into the collection's search index (zero vectors have no angle)."""
    block = np.asarray(found.vectors[rows.start : rows.stop])
    usable = np.flatnonzero(block.any(axis=1))
    ids = [found.gathered.image_ids[rows[row]] for row in usable]
    metadata = [
        {
            "image_id": image_id,
            "cluster_id": found.places[image_id]["cluster_id"],
            "labels": [label.name for label in found.labels.get(image_id, ())[:10]],
        }
        for image_id in ids
    ]
    services.index.put(index, ids, block[usable], metadata)
