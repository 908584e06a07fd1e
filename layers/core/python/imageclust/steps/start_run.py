"""One run at a time for each collection: start, finish, cancel, recover.

The collection's item holds the claim: ``running_run``, ``running_request`` (all that is needed to
start it), ``running_since`` and ``absorbed`` (the changes it took over). Every move is one
conditional write, and everything after a write can be repeated by anyone, so a crash between two
moves is mended by whoever comes next:

- claim (conditional) → run item (unless it exists) → ``workflows.start`` (idempotent by name). Who
  meets a claim whose execution is not running repeats the last two, and only when that does not
  help calls the run dead.
- ``dirty`` on the collection means: files changed and no run has listed them yet. Events set it
  before they are acknowledged; a claim clears it before the files are listed. It holds the time of
  the first such change.
- a collection that is dirty or has a run has a timer, one, which means nothing but "look again".
  Events set it to the end of the quiet period; a claim, and a timer that finds a run under way, to
  some minutes later; a run that ends with changes waiting to a quiet period from then.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Literal, cast

from imageclust import keys
from imageclust.errors import AlreadyRunning, Conflict, NotFound, StoreUnavailable
from imageclust.models import JSON, RunConfig, RunRequest, RunState, digest_of
from imageclust.ports import Table
from imageclust.wiring import Services

Trigger = Literal["upload", "api", "cli", "schedule"]

RECHECK = timedelta(minutes=10)
"""How often a collection with a run under way is looked at, in case the execution died."""

GRACE = timedelta(minutes=2)
"""A run claimed less than this ago may be starting; services take a while to show it."""

_RUN_ID = re.compile(r"([a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?)-\d{8}T\d{6}-[0-9a-f]{8}")
_CLAIM = ("running_run", "running_request", "running_since", "absorbed")
_TURNS = 20


def collection_of(run_id: str) -> str:
    """The collection whose run this is. Raises NotFound for what cannot be a run id."""
    match = _RUN_ID.fullmatch(run_id)
    if match is None:
        raise NotFound(f"There is no run '{run_id}'.")
    return match[1]


def run_id_for(collection: str, now: datetime, seed: str) -> str:
    """``{collection}-{YYYYmmddTHHMMSS}-{8 hex of the seed}``: at most 65 of ``[A-Za-z0-9-]``."""
    return f"{collection}-{now.astimezone(UTC):%Y%m%dT%H%M%S}-{digest_of(seed)[:8]}"


def start_run(
    services: Services,
    *,
    collection: str,
    config: RunConfig,
    trigger: Trigger,
    now: datetime,
    idempotency_key: str | None = None,
) -> str:
    """Start a run of the collection and return its id.

    The same idempotency key returns the same run, whether it is under way or over. Raises NotFound
    without such a collection, AlreadyRunning while another run is under way, Conflict when the key
    came with another configuration before.
    """
    _collection(services.table, collection)
    digest = digest_of([collection, config.to_json(), trigger])
    run_id = run_id_for(collection, now, idempotency_key or f"{digest} {now.isoformat()}")
    if idempotency_key is not None:
        run_id = _remembered(
            services.table, collection, idempotency_key, run_id=run_id, digest=digest
        )
    request = RunRequest(run_id=run_id, collection=collection, config=config, trigger=trigger)
    run = run_record(services.table, run_id)
    if run is not None and run["state"] != "RUNNING":
        return run_id
    for _ in range(_TURNS):
        item = _collection(services.table, collection)
        holder = item.get("running_run")
        if holder == run_id:
            since = item["running_since"]
            break
        if holder is not None:
            if _under_way(services, item, now):
                raise AlreadyRunning(collection, holder)
            continue
        look_again(services, collection, now + RECHECK)
        since = _iso(now)
        if _claim(services.table, item, request, since):
            break
    else:
        raise StoreUnavailable(f"'{collection}' is changing too fast to start a run.")
    _launch(services, request.to_json(), created=since)
    run = run_record(services.table, run_id)
    if run is not None and run["state"] != "RUNNING":
        # It was over before our claim (two calls with one key) or is over already.
        _let_go(services, collection, run_id, now)
    return run_id


def start_after_changes(services: Services, *, collection: str, now: datetime) -> str | None:
    """The timer of a collection: start a run if files changed and none is under way.

    Returns the id of the run it started. A run under way is looked after: started again if it was
    interrupted, recorded as failed if it is dead.
    """
    item = services.table.get(keys.COLLECTIONS_PK, collection)
    if item is None:
        return None
    if item.get("running_run") is not None and _under_way(services, item, now):
        _watch(services, collection, now)
        return None
    item = _collection(services.table, collection)  # the run that held it may have given back
    if item.get("dirty") is None:
        return None
    config = RunConfig.from_json(item.get("config") or {})
    try:
        return start_run(services, collection=collection, config=config, trigger="upload", now=now)
    except AlreadyRunning:
        _watch(services, collection, now)
        return None


def finish_run(
    services: Services,
    collection: str,
    run_id: str,
    *,
    state: RunState,
    changes: JSON,
    now: datetime | None = None,
) -> RunState:
    """End a run: write its final state, show it if it succeeded, let go of the collection.

    Safe to repeat. Returns the state that the run has now, which is another one when it was ended
    before: a cancelled run stays cancelled and is not shown.
    """
    final = _end(services.table, collection, run_id, state, changes)
    _let_go(services, collection, run_id, now or datetime.now(UTC))
    return final


def cancel_run(services: Services, *, run_id: str, now: datetime) -> None:
    """Stop a run; a cancelled one again is no error. Raises NotFound, or Conflict when it is over.

    The state is written first, so a run that publishes at the same moment loses or wins whole.
    """
    collection = collection_of(run_id)
    if run_record(services.table, run_id) is None:
        raise NotFound(f"There is no run '{run_id}'.")
    state = _end(services.table, collection, run_id, "CANCELLED", {"finished": _iso(now)})
    if state != "CANCELLED":
        raise Conflict(f"The run {run_id} is over already: {state}.")
    _stop(services, run_id)
    _let_go(services, collection, run_id, now)


def recover(services: Services, *, now: datetime) -> tuple[str, ...]:
    """Look at every collection: start interrupted runs again, let go of dead ones, set timers.

    For the start of the local server, and now and then on AWS: a timer that is moved just when it
    fires may be lost there. Returns the ids of the runs that are under way.
    """
    under_way = []
    for item in services.table.query(keys.COLLECTIONS_PK).items:
        if item.get("running_run") is not None and _under_way(services, item, now):
            under_way.append(item["running_run"])
        elif item.get("dirty") is not None:
            _look_when_quiet(services, item["sk"], now)
    return tuple(under_way)


def look_again(services: Services, collection: str, at: datetime) -> None:
    """Set the collection's one timer; ``functions.start_run`` gets its payload."""
    services.scheduler.schedule(collection, at, {"collection": collection})


def _watch(services: Services, collection: str, now: datetime) -> None:
    """Look after the run under way; if it ended just now, our timer must not delay the next."""
    look_again(services, collection, now + RECHECK)
    item = _collection(services.table, collection)
    if item.get("running_run") is None and item.get("dirty") is not None:
        _look_when_quiet(services, collection, now)


def _look_when_quiet(services: Services, collection: str, now: datetime) -> None:
    look_again(services, collection, now + timedelta(seconds=services.settings.quiet_seconds))


def _under_way(services: Services, item: JSON, now: datetime) -> bool:
    """Whether the run that holds the collection is alive, after trying to start it again.

    A run that is over or dead is let go, and a dead one is recorded as failed.
    """
    run_id, collection = str(item["running_run"]), str(item["sk"])
    run = run_record(services.table, run_id)
    if run is None or run["state"] == "RUNNING":
        if services.workflows.running(run_id):
            return True
        # Through the record: a table may give 1 back for 1.0, and the input must be the same.
        request = RunRequest.from_json(item["running_request"]).to_json()
        _launch(services, request, created=item["running_since"])
        run = run_record(services.table, run_id)
        if run is not None and run["state"] == "RUNNING":
            young = now - datetime.fromisoformat(item["running_since"]) < GRACE
            if young or services.workflows.running(run_id):
                return True
            _record_death(services, collection, run_id, now)
    elif run["state"] == "CANCELLED":
        _stop(services, run_id)
    _let_go(services, collection, run_id, now)
    return False


def _let_go(services: Services, collection: str, run_id: str, now: datetime) -> None:
    """Free the collection from a run that has its final state, and show the run if it succeeded.

    Files that changed during the run start another one after a quiet period. So do changes that a
    run asked for by a person took over and did not publish; a failed run that changes started is
    not tried again until something changes.
    """
    run = run_record(services.table, run_id)
    for _ in range(_TURNS):
        item = services.table.get(keys.COLLECTIONS_PK, collection)
        if item is None:
            return
        held = item.get("running_run") == run_id
        dirty = item.get("dirty")
        if held and dirty is None and _gives_back(item, run):
            dirty = item.get("absorbed")
        changes: JSON = {"dirty": dirty, **(dict.fromkeys(_CLAIM) if held else {})}
        if run is not None and run["state"] == "SUCCEEDED":
            changes["current_run"] = _shown(services.table, run, item.get("current_run"))
        if _moved(services.table, item, changes):
            break
    else:
        raise StoreUnavailable(f"'{collection}' is changing too fast to finish {run_id}.")
    if dirty is not None and (held or item.get("running_run") is None):
        # A crash before this line costs time only: the timer set with the claim comes later.
        _look_when_quiet(services, collection, now)


def _end(table: Table, collection: str, run_id: str, state: RunState, changes: JSON) -> RunState:
    """Write the final state unless the run has one; the work of a failed run may still succeed."""
    pk, sk = keys.collection_pk(collection), keys.run_sk(run_id)
    for _ in range(_TURNS):
        now = (table.get(pk, sk) or {}).get("state")
        open_ = (
            (None, "RUNNING", "FAILED", "INVALID") if state == "SUCCEEDED" else (None, "RUNNING")
        )
        if now not in open_:
            return cast(RunState, now)
        told = {"run_id": run_id, "collection": collection, "failure": None, **changes}
        try:
            table.update(pk, sk, {**told, "state": state}, expect={"state": now})
        except Conflict:
            continue
        return state
    raise StoreUnavailable(f"The run {run_id} is changing too fast to end it.")


def _shown(table: Table, run: JSON, current: str | None) -> str:
    """The id of the run to show: the one that was started last, or whose results that one repeats.

    A late end of an old run hides no newer one.
    """
    shown = run_record(table, current) if current else None
    newer = shown is not None and shown["created"] > run["created"]
    return str(current if newer else run.get("same_as") or run["run_id"])


def _claim(table: Table, item: JSON, request: RunRequest, since: str) -> bool:
    changes = {
        "running_run": request.run_id,
        "running_request": request.to_json(),
        "running_since": since,
        "absorbed": item.get("dirty"),
        "dirty": None,
    }
    return _moved(table, item, changes)


def _moved(table: Table, item: JSON, changes: JSON) -> bool:
    """Change a collection unless its claim, its changes or the run it shows moved meanwhile."""
    expect = {name: item.get(name) for name in ("running_run", "dirty", "current_run")}
    try:
        table.update(keys.COLLECTIONS_PK, item["sk"], changes, expect=expect)
    except Conflict:
        return False
    return True


def _launch(services: Services, request: JSON, *, created: str) -> None:
    """Write the run's item and start its execution; both are safe to repeat."""
    run_id, collection = request["run_id"], request["collection"]
    item = {
        "pk": keys.collection_pk(collection),
        "sk": keys.run_sk(run_id),
        **request,
        "state": "RUNNING",
        "created": created,
    }
    try:
        services.table.put(item, unless_exists=True)
    except Conflict:
        run = run_record(services.table, run_id)
        if run is not None and run["state"] != "RUNNING":
            return
    services.workflows.start(run_id, request)


def _record_death(services: Services, collection: str, run_id: str, now: datetime) -> None:
    """End a run whose execution is over and left no word, and tell those who listen."""
    end = services.workflows.end_of(run_id)
    failure = {
        "state": "",
        "error": "ExecutionLost",
        "cause": f"The execution ended without a result ({end})."
        if end
        else "The execution ended without a result: it was stopped or deleted from outside.",
        "advice": "Start a new run; what is stored already is used again.",
    }
    changes = {"finished": _iso(now), "failure": failure}
    if _end(services.table, collection, run_id, "FAILED", changes) == "FAILED":
        told = {"run_id": run_id, "collection": collection, **failure}
        services.events.publish("Run Failed", told)


def _stop(services: Services, run_id: str) -> None:
    if not services.workflows.running(run_id):
        return
    try:
        services.workflows.stop(run_id, "cancelled")
    except NotFound:
        return  # it ended meanwhile


def _gives_back(item: JSON, run: JSON | None) -> bool:
    """Whether the changes that the claim took over still wait for a run."""
    if run is None or run.get("created") != item["running_since"]:
        return True  # the claim came after the run: two calls with one key
    return run["state"] != "SUCCEEDED" and run.get("trigger") != "upload"


def _remembered(table: Table, collection: str, key: str, *, run_id: str, digest: str) -> str:
    """The run id that this key got the first time; it is written before anything starts."""
    pk = f"idempotency#{collection}#{digest_of(key)}"
    item = {"pk": pk, "sk": keys.POINTER_SK, "run_id": run_id, "digest": digest}
    try:
        table.put(item, unless_exists=True)
    except Conflict:
        item = table.get(pk, keys.POINTER_SK) or item
    if item["digest"] != digest:
        raise Conflict(
            "This idempotency key was used before with another configuration; use a new key."
        )
    return str(item["run_id"])


def _collection(table: Table, name: str) -> JSON:
    item = table.get(keys.COLLECTIONS_PK, name)
    if item is None:
        raise NotFound(f"There is no collection '{name}'.")
    return item


def title_of(table: Table, collection: str) -> str:
    """What people call the collection."""
    item = table.get(keys.COLLECTIONS_PK, collection) or {}
    return str(item.get("title") or collection)


def run_record(table: Table, run_id: str) -> JSON | None:
    """What the table knows of a run. Raises NotFound for what cannot be a run id."""
    return table.get(keys.collection_pk(collection_of(run_id)), keys.run_sk(run_id))


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")
