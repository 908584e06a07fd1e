"""What the API shows: collections, runs, clusters, members, files and images, page by page.

Reads the table only; addresses of pictures are links that a browser can open. A page holds at most
``limit`` items and ``next``, the cursor of the following page (None on the last one).
"""

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from imageclust import keys
from imageclust.errors import InvalidInput, NotFound
from imageclust.models import JSON
from imageclust.ports import Page, Table
from imageclust.steps.start_run import collection_of, run_record
from imageclust.steps.usage import cost_of_run, progress_of
from imageclust.wiring import Services

T = TypeVar("T")

FileStatus = Literal["clustered", "outlier", "duplicate", "rejected"]

_PLACES = 100


@dataclass(frozen=True)
class Listing(Generic[T]):
    """One page of a list. ``next`` is the cursor of the following page, null on the last one."""

    items: tuple[T, ...]
    next: str | None = None


@dataclass(frozen=True)
class CollectionView:
    """A collection. ``current_run`` is the run it shows, ``running_run`` the one under way.

    A run that repeats the results of the one shown does not take its place.
    ``config`` is what runs started by uploads use; ``changed_since`` says since when files wait
    for a run.
    """

    name: str
    created: str
    title: str | None = None
    config: JSON = field(default_factory=dict)
    current_run: str | None = None
    running_run: str | None = None
    changed_since: str | None = None


@dataclass(frozen=True)
class RunView:
    """A run: state, configuration, progress, counts, and for a failed one why and what to do.

    ``exports`` are links by file name, given when one run is asked for and it succeeded.
    ``progress`` is given when one run is asked for while it runs: the states that are ``done``,
    and numbers of images: ``seen``, ``to_embed`` and ``embedded``, ``to_label`` and ``labelled``.
    ``same_as`` is the run before, when nothing had changed since: clusters and files are its own.
    """

    run_id: str
    collection: str
    state: Literal["RUNNING", "SUCCEEDED", "FAILED", "INVALID", "CANCELLED"]
    trigger: str
    created: str
    finished: str | None
    config: JSON
    progress: JSON
    counts: JSON | None
    clusters: int | None
    failure: JSON | None
    seconds: JSON
    metrics: JSON
    models: JSON
    estimate: JSON | None = None
    cost: JSON | None = None
    captions: JSON | None = None
    notes: list[str] = field(default_factory=list)
    exports: dict[str, str] = field(default_factory=dict)
    same_as: str | None = None


@dataclass(frozen=True)
class Picture:
    """An image by its id (SHA-256 of the content) with the link of its thumbnail."""

    image_id: str
    thumbnail: str


@dataclass(frozen=True)
class AnswerView:
    """What one describer called a cluster."""

    title: str
    phrase: str
    description: str
    described_by: str


@dataclass(frozen=True)
class ClusterView:
    """A named group of a run. ``exemplars`` are its most typical images.

    ``answers`` holds what each of several describers said; the names above are those shown.
    """

    cluster_id: str
    title: str
    phrase: str
    description: str
    size: int
    labels: list[Any]
    exemplars: list[Picture]
    cohesion: float | None
    described_by: str = ""
    answers: list[AnswerView] = field(default_factory=list)


@dataclass(frozen=True)
class MemberView:
    """An image of a cluster; rank 0 is the most typical one.

    ``flagged`` names what moderation found in it; such an image should not be shown to all.
    """

    image_id: str
    path: str
    rank: int
    margin: float | None
    status: str
    thumbnail: str
    flagged: list[str] = field(default_factory=list)
    caption: str | None = None


@dataclass(frozen=True)
class FileView:
    """What a run made of one file. A rejected one has a reason, a duplicate what it repeats."""

    path: str
    status: str
    image_id: str | None = None
    cluster_id: str | None = None
    duplicate_of: str | None = None
    reason: str | None = None
    thumbnail: str | None = None


@dataclass(frozen=True)
class PlaceView:
    """Where a run put an image."""

    collection: str
    run_id: str
    status: str
    cluster_id: str | None = None
    rank: int | None = None
    caption: str | None = None


@dataclass(frozen=True)
class ImageView:
    """One image: what is known of it, and where each run put it (why it is here).

    ``caption`` is the newest of those that runs gave it, ``captioned_by`` the model that said it.
    """

    image_id: str
    width: int | None
    height: int | None
    format: str | None
    labels: list[Any]
    flagged: list[str]
    properties: JSON | None
    facts: Any
    thumbnail: str
    places: list[PlaceView]
    caption: str | None = None
    captioned_by: str | None = None


def list_collections(
    services: Services, *, limit: int, cursor: str | None
) -> Listing[CollectionView]:
    """Collections by name."""
    page = services.table.query(keys.COLLECTIONS_PK, limit=limit, after=cursor)
    return Listing(tuple(_collection_view(item) for item in page.items), page.next)


def get_collection(services: Services, name: str) -> CollectionView:
    """Raises NotFound."""
    item = services.table.get(keys.COLLECTIONS_PK, name)
    if item is None:
        raise NotFound(f"There is no collection '{name}'.")
    return _collection_view(item)


def list_runs(
    services: Services, collection: str, *, limit: int, cursor: str | None
) -> Listing[RunView]:
    """Runs of a collection, newest first. Raises NotFound."""
    get_collection(services, collection)
    page = services.table.query(
        keys.collection_pk(collection),
        prefix=keys.run_sk(""),
        limit=limit,
        after=cursor,
        newest_first=True,
    )
    return Listing(tuple(_run_view(item) for item in page.items), page.next)


def get_run(services: Services, run_id: str) -> RunView:
    """Raises NotFound."""
    item = _run_item(services.table, run_id)
    if item["state"] == "RUNNING":
        item = {
            **item,
            "cost": cost_of_run(services, run_id),
            "progress": progress_of(services, run_id),
        }
    links = {
        name: services.links.download(uri) for name, uri in run_exports(services, item).items()
    }
    return _run_view(item, links)


def run_exports(services: Services, run: JSON) -> dict[str, str]:
    """Address of each file that a run exported, by name.

    A run that repeats another's results has a ``run.json`` of its own beside that one's files.
    """
    bucket, found = services.settings.data_bucket, {}
    for run_id in (run.get("same_as"), run["run_id"]):
        prefix = keys.export_key(run_id, "") if run_id and run.get("exports") else ""
        root = len(keys.join_uri(bucket, prefix))
        for item in services.store.list(bucket, prefix) if prefix else ():
            found[item.uri[root:]] = item.uri
    return found


def results_of(services: Services, run_id: str) -> str:
    """The run that holds the results: itself, or the one that it repeats. Raises NotFound."""
    return str(_run_item(services.table, run_id).get("same_as") or run_id)


def list_clusters(
    services: Services, run_id: str, *, limit: int, cursor: str | None
) -> Listing[ClusterView]:
    """Clusters of a run by id, the biggest first as the run numbered them. Raises NotFound."""
    page = services.table.query(
        keys.run_pk(results_of(services, run_id)),
        prefix=keys.cluster_sk(""),
        limit=limit,
        after=cursor,
    )
    return Listing(tuple(_cluster_view(services, item) for item in page.items), page.next)


def get_cluster(services: Services, run_id: str, cluster_id: str) -> ClusterView:
    """Raises NotFound."""
    item = services.table.get(
        keys.run_pk(results_of(services, run_id)), keys.cluster_sk(cluster_id)
    )
    if item is None:
        raise NotFound(f"The run {run_id} has no cluster '{cluster_id}'.")
    return _cluster_view(services, item)


def list_members(
    services: Services, run_id: str, cluster_id: str, *, limit: int, cursor: str | None
) -> Listing[MemberView]:
    """Members of a cluster, the most typical first. Raises NotFound."""
    get_cluster(services, run_id, cluster_id)
    run_id = results_of(services, run_id)
    page = _sharded_page(services.table, run_id, cluster_id, limit=limit, cursor=cursor)
    return Listing(tuple(_member_view(services, item) for item in page.items), page.next)


def list_outliers(
    services: Services, run_id: str, *, limit: int, cursor: str | None
) -> Listing[MemberView]:
    """Images that no cluster of the run holds, the least far ones first. Raises NotFound."""
    run_id = results_of(services, run_id)
    page = _sharded_page(services.table, run_id, keys.OUTLIERS, limit=limit, cursor=cursor)
    return Listing(tuple(_member_view(services, item) for item in page.items), page.next)


def list_files(
    services: Services, run_id: str, status: FileStatus, *, limit: int, cursor: str | None
) -> Listing[FileView]:
    """The run's files of one status, by path. Raises NotFound."""
    held = keys.run_pk(results_of(services, run_id))
    prefix = keys.file_sk(status, "")
    page = services.table.query(held, prefix=prefix, limit=limit, after=cursor)
    return Listing(tuple(_file_view(services, item) for item in page.items), page.next)


def get_image(services: Services, image_id: str) -> ImageView:
    """Raises NotFound. At most 100 places are shown."""
    item = services.table.get(keys.image_pk(image_id), keys.IMAGE_SK)
    if item is None:
        raise NotFound(f"There is no image '{image_id}'.")
    prefix = keys.run_sk("")
    page = services.table.query(
        keys.image_pk(image_id), prefix=prefix, limit=_PLACES, newest_first=True
    )
    said = next((place for place in page.items if place.get("caption")), {})
    return ImageView(
        image_id=image_id,
        width=item.get("width"),
        height=item.get("height"),
        format=item.get("format"),
        labels=list(item.get("labels") or ()),
        flagged=list(item.get("flagged") or ()),
        properties=item.get("properties"),
        facts=item.get("facts"),
        thumbnail=_thumbnail(services, image_id),
        places=[_place_view(place, place["sk"].removeprefix(prefix)) for place in page.items],
        caption=said.get("caption"),
        captioned_by=said.get("captioned_by"),
    )


def _sharded_page(table: Table, run_id: str, group: str, *, limit: int, cursor: str | None) -> Page:
    """One page over the partitions that a big group's members are spread over, in rank order."""

    def partition(shard: int) -> str:
        return keys.member_pk(run_id, group, shard * keys.MEMBERS_A_SHARD)

    shard, inner = _decode(cursor) if cursor is not None else (0, None)
    items: list[JSON] = []
    while True:
        page = table.query(partition(shard), limit=limit - len(items), after=inner)
        items += page.items
        if page.next is not None:
            return Page(tuple(items), _encode(shard, page.next))
        shard, inner = shard + 1, None
        if not page.items or (int(page.items[-1]["sk"]) + 1) % keys.MEMBERS_A_SHARD:
            return Page(tuple(items))
        if len(items) == limit:
            more = table.query(partition(shard), limit=1).items
            return Page(tuple(items), _encode(shard, None) if more else None)


def _encode(shard: int, inner: str | None) -> str:
    return base64.urlsafe_b64encode(json.dumps([shard, inner]).encode()).decode().rstrip("=")


def _decode(cursor: str) -> tuple[int, str | None]:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        value = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        value = None
    match value:
        case [int() as shard, (None | str()) as inner] if 0 <= shard < 10_000:
            return shard, inner
    raise InvalidInput("The cursor is broken or belongs to another list; begin without one.")


def _run_item(table: Table, run_id: str) -> JSON:
    item = run_record(table, run_id)
    if item is None:
        raise NotFound(f"There is no run '{run_id}'.")
    return item


def _collection_view(item: JSON) -> CollectionView:
    return CollectionView(
        name=item["sk"],
        created=item.get("created", ""),
        title=item.get("title"),
        config=item.get("config") or {},
        current_run=item.get("current_run"),
        running_run=item.get("running_run"),
        changed_since=item.get("dirty"),
    )


def _run_view(item: JSON, exports: dict[str, str] | None = None) -> RunView:
    return RunView(
        run_id=item["run_id"],
        collection=item["collection"],
        state=item["state"],
        trigger=item.get("trigger", ""),
        created=item.get("created", ""),
        finished=item.get("finished"),
        config=item.get("config") or {},
        progress=item.get("progress") or {},
        counts=item.get("counts"),
        clusters=item.get("clusters"),
        failure=item.get("failure"),
        seconds=item.get("seconds") or {},
        metrics=item.get("metrics") or {},
        models=item.get("models") or {},
        estimate=item.get("estimate"),
        cost=item.get("cost"),
        captions=item.get("captions"),
        notes=list(item.get("notes") or ()),
        exports=exports or {},
        same_as=item.get("same_as"),
    )


def _cluster_view(services: Services, item: JSON) -> ClusterView:
    return ClusterView(
        cluster_id=item["cluster_id"],
        title=item.get("title", ""),
        phrase=item.get("phrase", ""),
        description=item.get("description", ""),
        size=item["size"],
        labels=list(item.get("labels") or ()),
        exemplars=[
            Picture(image_id, _thumbnail(services, image_id))
            for image_id in item.get("exemplars") or ()
        ],
        cohesion=item.get("cohesion"),
        described_by=item.get("described_by", ""),
        answers=[AnswerView(**answer) for answer in item.get("answers") or ()],
    )


def _member_view(services: Services, item: JSON) -> MemberView:
    return MemberView(
        image_id=item["image_id"],
        path=_shown(item.get("path", "")),
        rank=item["rank"],
        margin=item.get("margin"),
        status=item.get("status", "clustered"),
        thumbnail=_thumbnail(services, item["image_id"]),
        flagged=list(item.get("flagged") or ()),
        caption=item.get("caption"),
    )


def _file_view(services: Services, item: JSON) -> FileView:
    image_id = item.get("image_id") or None
    return FileView(
        path=_shown(item["path"]),
        status=item["status"],
        image_id=image_id,
        cluster_id=item.get("cluster_id") or None,
        duplicate_of=_shown(item.get("duplicate_of") or "") or None,
        reason=item.get("reason") or None,
        thumbnail=_thumbnail(services, image_id) if image_id else None,
    )


def _place_view(item: JSON, run_id: str) -> PlaceView:
    return PlaceView(
        collection=collection_of(run_id),
        run_id=run_id,
        status=item.get("status", ""),
        cluster_id=item.get("cluster_id") or None,
        rank=item.get("rank"),
        caption=item.get("caption"),
    )


def _shown(path: str) -> str:
    """The path as text that JSON can carry: bytes that are not UTF-8 shown as escapes."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _thumbnail(services: Services, image_id: str) -> str:
    bucket = services.settings.data_bucket
    return services.links.download(keys.join_uri(bucket, keys.thumbnail_key(image_id)))
