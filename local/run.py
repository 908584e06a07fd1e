"""``imageclust run``: a folder through the workflow, its results to another folder."""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import cast

from imageclust import keys
from imageclust.descriptions.words import counted
from imageclust.errors import AlreadyRunning, InvalidInput, Permanent
from imageclust.models import JSON, RunConfig, check_collection_name
from imageclust.steps.browse import run_exports
from imageclust.steps.ingest import ensure_collection
from imageclust.steps.start_run import cancel_run, start_run
from imageclust.wiring import Services, use

from local.home import failures_logged, open_services
from local.progress import Progress
from local.workflows import LocalWorkflows

_OF_SOME_RUNS = frozenset({"captions.csv", "similar.csv"})


@dataclass(frozen=True)
class RunOutcome:
    """The run's record as stored, and its failure if it has one."""

    record: JSON
    failure: JSON | None


def run_folder(
    photos: Path,
    *,
    home: Path,
    out: Path | None,
    collection: str | None,
    config: RunConfig,
    quiet: bool = False,
) -> RunOutcome:
    """Run the workflow over a folder, or finish the run of it that was interrupted.

    Progress goes to standard error, the summary to standard output unless ``quiet``.

    Raises:
        InvalidInput: the folder, the name or the results folder cannot be used.
        Permanent: the results could not be written.
    """
    if not photos.exists():
        raise InvalidInput(f"there is no folder {photos}")
    if not photos.is_dir():
        raise InvalidInput(f"{photos} is a file; give the folder that holds it")
    photos = photos.resolve()
    out = (out or Path(f"{photos.name or 'photos'}-clusters")).absolute()
    check_out(out, photos)
    name = check_collection_name(collection) if collection else name_for(photos)
    home.mkdir(parents=True, exist_ok=True)
    progress = Progress(sys.stderr)
    services = open_services(home, listener=progress.tell)
    use(services)
    with closing(services):
        with progress, _only_one(home, name), failures_logged(home):
            record = _run(
                services,
                name,
                config,
                title=collection or photos.name,
                link=lambda: link_photos(home, name, photos),
            )
        if record["state"] == "SUCCEEDED":
            copy_results(services, record, out)
            record = json.loads((out / "run.json").read_bytes())
            if not quiet:
                print(_summary(record, out))
    return RunOutcome(record=record, failure=record.get("failure"))


@contextmanager
def _only_one(home: Path, collection: str) -> Iterator[None]:
    """One command at a time works on a collection; a death lets go of the lock."""
    locks = home / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / f"collection-{collection}").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(collection) from None
        yield


def _busy(collection: str) -> Permanent:
    return Permanent(f"another imageclust works on the collection '{collection}' just now")


def _run(
    services: Services, collection: str, config: RunConfig, *, title: str, link: Callable[[], None]
) -> JSON:
    """Finish the collection's interrupted run of this configuration, else start one; wait.

    ``link`` makes the collection show its folder; never under a run that is alive.
    """
    ensure_collection(services, collection, now=datetime.now(UTC))
    item = services.table.get(keys.COLLECTIONS_PK, collection) or {}
    workflows = cast(LocalWorkflows, services.workflows)
    interrupted = item.get("running_run")
    if interrupted and workflows.running_elsewhere(interrupted):
        raise _busy(collection)
    link()
    # The server goes on with this configuration when the folder changes.
    services.table.update(
        keys.COLLECTIONS_PK, collection, {"config": config.to_json(), "title": title}
    )
    if interrupted and item["running_request"]["config"] != config.to_json():
        cancel_run(services, run_id=interrupted, now=datetime.now(UTC))
        interrupted = None
    try:
        if interrupted:
            workflows.start(interrupted, item["running_request"])
            run_id = interrupted
        else:
            run_id = start_run(
                services,
                collection=collection,
                config=config,
                trigger="cli",
                now=datetime.now(UTC),
            )
    except AlreadyRunning as busy:
        raise Permanent(str(busy)) from busy
    try:
        execution = workflows.wait(run_id)
    except KeyboardInterrupt:
        workflows.stop(run_id, "interrupted from the keyboard")
        raise
    record = services.table.get(keys.collection_pk(collection), keys.run_sk(run_id))
    if record is None or record["state"] == "RUNNING":
        raise Permanent(f"the run ended as {execution.status}: {execution.error} {execution.cause}")
    return {name: value for name, value in record.items() if name not in ("pk", "sk")}


def copy_results(services: Services, record: JSON, out: Path) -> None:
    """Copy the run's exports and thumbnails to ``out``; each file appears whole or not at all."""
    bucket = services.settings.data_bucket
    exports = run_exports(services, record)
    try:
        thumbnails = out / "thumbnails"
        thumbnails.mkdir(parents=True, exist_ok=True)
        there = {name for name in os.listdir(thumbnails) if name.endswith(".webp")}
        wanted = {f"{i}.webp": i for i in _shown_ids(services, exports["images.jsonl"])}
        for name in wanted.keys() - there:
            uri = keys.join_uri(bucket, keys.thumbnail_key(wanted[name]))
            _place(services.store.path(uri), thumbnails / name)
        for name in there - wanted.keys():
            (thumbnails / name).unlink()
        # Files that only some runs have, and ranks, of an earlier run do not belong to this one.
        for name in _OF_SOME_RUNS - exports.keys():
            (out / name).unlink(missing_ok=True)
        ranks = {name.split("/")[1] for name in exports if name.startswith("search/")}
        for found in (out / "search").glob("*"):
            if found.is_dir() and found.name not in ranks:
                shutil.rmtree(found)
        for name, uri in exports.items():
            target = out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _place(services.store.path(uri), target)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        raise Permanent(
            f"the results could not be written to {out}: {reason}; the run itself is stored, "
            "and the same command writes them again"
        ) from error


def _shown_ids(services: Services, uri: str) -> Iterator[str]:
    """The images that moderation does not keep back."""
    with services.store.path(uri).open("rb") as lines:
        for line in lines:
            row = json.loads(line)
            if not row.get("flagged"):
                yield row["image_id"]


def _place(source: Path, target: Path) -> None:
    """Copy a file with its time of change, unless it lies there with that time and size."""
    told = source.stat()
    with contextlib.suppress(FileNotFoundError):
        there = target.stat()
        if (there.st_mtime_ns, there.st_size) == (told.st_mtime_ns, told.st_size):
            return
    partial = target.with_name(f".{target.name}.part")
    try:
        shutil.copyfile(source, partial)
        os.utime(partial, ns=(told.st_mtime_ns, told.st_mtime_ns))
        partial.replace(target)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def check_out(out: Path, photos: Path) -> None:
    """Refuse a results folder that cannot be written before any work is done."""
    # Through links too: the marker below would hide the photos from every later run.
    real, folder = out.resolve(), photos.resolve()
    if real == folder or real in folder.parents:
        raise InvalidInput(f"the results cannot go to {out}: the photos lie in it")
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / keys.NOT_PHOTOS).touch()
    except (FileExistsError, NotADirectoryError):
        raise InvalidInput(f"the results cannot go to {out}: it is not a folder") from None
    except OSError as error:
        raise InvalidInput(f"the results cannot go to {out}: {error.strerror}") from error


def name_for(photos: Path) -> str:
    """A collection name for a folder: its own name, and a digest of where it lies."""
    slug = re.sub(r"[^a-z0-9]+", "-", photos.name.lower()).strip("-")[:30].strip("-")
    digest = sha256(os.fsencode(photos)).hexdigest()[:6]
    return f"{slug}-{digest}" if slug else f"photos-{digest}"


def link_photos(home: Path, collection: str, photos: Path) -> None:
    """Let ``uploads/COLLECTION`` be the folder itself: photos are read where they lie."""
    link = home / "uploads" / collection
    if link.is_symlink():
        if link.readlink() == photos:
            return
    elif link.exists():
        raise InvalidInput(
            f"the collection '{collection}' already holds uploaded photos; "
            "choose another name with --collection"
        )
    # In one move: to a server that looks meanwhile, the photos never seem to be gone.
    new = link.with_name(f".{collection}")
    new.unlink(missing_ok=True)
    new.symlink_to(photos, target_is_directory=True)
    new.replace(link)


def _summary(record: JSON, out: Path) -> str:
    counts = record["counts"]
    same_as = record.get("same_as")
    captions = record["captions"]
    told = ""
    if captions["wanted"]:
        told = f", {captions['given']:,} of {counted(captions['wanted'], 'caption')}"
    lines = [f"nothing has changed since the run {same_as}"] if same_as else []
    lines += [
        f"{counted(counts['seen'], 'file')}: {counts['clustered']:,} in "
        f"{counted(record['clusters'], 'cluster')}, {counted(counts['outliers'], 'outlier')}, "
        f"{counted(counts['duplicates'], 'duplicate')}, {counts['rejected']:,} rejected{told}",
        f"embedder {record['models']['embedder']}, method {record['method']}, "
        f"{sum(record['seconds'].values()):.1f} s",
        *([f"why rejected: see {out / 'assignments.csv'}"] if counts["rejected"] else []),
        *(f"note: {note}" for note in record["notes"]),
        f"gallery: {out / 'index.html'}",
    ]
    return "\n".join(lines)
