"""One run at a time, nothing lost: every crash point and every one-step interleaving.

The table and the timers are the real local ones. Executions are recorded and not run, with Step
Functions' rules: a name starts once, and a closed execution is never started again.
"""

import dataclasses
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from imageclust import keys, wiring
from imageclust.errors import AlreadyRunning, Conflict, NotFound
from imageclust.models import JSON, RunConfig
from imageclust.steps.ingest import create_collection, note_change
from imageclust.steps.start_run import (
    GRACE,
    RECHECK,
    cancel_run,
    collection_of,
    finish_run,
    recover,
    run_id_for,
    start_after_changes,
    start_run,
)
from imageclust.wiring import Services, local_services

from functions import start_run as function

T0 = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
CONFIG = RunConfig(clusters=5)


class Executions:
    """Executions by name: running, or closed for ever."""

    def __init__(self) -> None:
        self.alive: dict[str, bool] = {}
        self.starts: list[str] = []

    def start(self, run_id: str, request: JSON) -> None:
        assert request["run_id"] == run_id
        if run_id not in self.alive:
            self.alive[run_id] = True
            self.starts.append(run_id)

    def stop(self, run_id: str, reason: str) -> None:
        self.alive[run_id] = False

    def running(self, run_id: str) -> bool:
        return self.alive.get(run_id, False)

    def end_of(self, run_id: str) -> str:
        return "" if self.alive.get(run_id, True) else "TIMED_OUT: States.Timeout"

    def succeed(self, token: str, output: JSON) -> None:
        raise NotFound(token)

    def fail(self, token: str, error: str, cause: str) -> None:
        raise NotFound(token)


class World:
    """A collection and a clock that each action moves on a little."""

    def __init__(self, services: Services, name: str = "a") -> None:
        self.name = name
        self.executions = Executions()
        self.services = dataclasses.replace(services, workflows=self.executions)
        self.now = T0
        self.last_event: datetime | None = None
        create_collection(self.services, name, now=self.now, config=CONFIG)

    def tick(self, seconds: float = 1) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now

    def event(self, services: Services | None = None) -> None:
        self.last_event = self.tick()
        note_change(services or self.services, self.name, now=self.last_event)

    def post(self, services: Services | None = None, **options: Any) -> str:
        told = {"config": RunConfig(), "trigger": "api", "now": self.tick(), **options}
        return start_run(services or self.services, collection=self.name, **told)

    def finish(self, services: Services | None = None, state: Any = "SUCCEEDED") -> None:
        """The execution that is alive ends, as PublishRun or RecordFailure end it."""
        for run_id in [name for name, alive in self.executions.alive.items() if alive]:
            told = services or self.services
            finish_run(told, self.name, run_id, state=state, changes={}, now=self.tick())
            self.executions.alive[run_id] = False

    def timers(self, services: Services | None = None) -> None:
        used = services or self.services
        fire = self.services.scheduler.fire_due  # type: ignore[attr-defined]

        def go(payload: JSON) -> None:
            if payload == {"collection": self.name}:  # other worlds share the table
                start_after_changes(used, collection=self.name, now=self.now)

        fire(self.now, go)

    def settle(self) -> None:
        """Let time pass and everything that runs end well, until nothing happens any more."""
        for _ in range(4):
            self.tick(RECHECK.total_seconds() + 1)
            self.timers()
            self.finish()

    @property
    def item(self) -> JSON:
        found = self.services.table.get(keys.COLLECTIONS_PK, self.name)
        assert found is not None
        return found

    def run(self, run_id: str) -> JSON:
        found = self.services.table.get(keys.collection_pk(self.name), keys.run_sk(run_id))
        assert found is not None
        return found

    def runs(self) -> list[JSON]:
        pk = keys.collection_pk(self.name)
        return list(self.services.table.query(pk, prefix="run#", newest_first=True).items)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = local_services(tmp_path, workflows=lambda _: Executions())
    yield made
    made.close()


@pytest.fixture
def world(services: Services) -> World:
    return World(services)


def test_run_ids_name_their_collection_and_sort_by_time() -> None:
    name = "a-20260101t000000-00000000-b"[:40]
    run_id = run_id_for(name, T0, "key")
    assert collection_of(run_id) == name
    assert len(run_id_for("x" * 40, T0, "key")) <= 80
    assert run_id == f"{name}-20261122T120000-{run_id[-8:]}"
    assert run_id < run_id_for(name, T0 + timedelta(seconds=1), "another")


@pytest.mark.parametrize(
    "bad", ["", "a", "a-20261122T120000", "../a-20261122T120000-0123abcd", "A"]
)
def test_what_is_no_run_id_is_not_found(bad: str) -> None:
    with pytest.raises(NotFound, match="no run"):
        collection_of(bad)


def test_a_run_starts_and_ends(world: World) -> None:
    run_id = world.post(config=CONFIG)
    run = world.run(run_id)
    assert (run["state"], run["trigger"], run["config"]) == ("RUNNING", "api", CONFIG.to_json())
    assert world.item["running_run"] == run_id
    world.finish()
    assert world.run(run_id)["state"] == "SUCCEEDED"
    assert world.item["current_run"] == run_id
    assert "running_run" not in world.item


def test_a_second_run_is_refused_and_names_the_first(world: World) -> None:
    first = world.post()
    with pytest.raises(AlreadyRunning, match=first) as refused:
        world.post()
    assert refused.value.run_id == first
    assert world.executions.starts == [first]


def test_the_same_key_is_the_same_run_while_it_runs_and_after(world: World) -> None:
    first = world.post(idempotency_key="k")
    assert world.post(idempotency_key="k") == first
    world.finish()
    assert world.post(idempotency_key="k") == first
    assert world.executions.starts == [first]
    assert "running_run" not in world.item
    with pytest.raises(Conflict, match="another configuration"):
        world.post(idempotency_key="k", config=CONFIG)
    assert world.post(idempotency_key="other") != first


def test_a_run_needs_its_collection(world: World) -> None:
    with pytest.raises(NotFound, match="no collection 'b'"):
        start_run(world.services, collection="b", config=CONFIG, trigger="api", now=T0)


def test_changes_start_one_run_with_the_collections_settings(world: World) -> None:
    for _ in range(20):
        world.event()
    world.timers()
    assert world.executions.starts == []  # not quiet yet
    world.tick(world.services.settings.quiet_seconds)
    world.timers()
    (run_id,) = world.executions.starts
    assert world.run(run_id)["config"] == CONFIG.to_json()
    assert world.run(run_id)["trigger"] == "upload"
    world.settle()
    assert world.executions.starts == [run_id]


def test_a_collection_that_is_never_quiet_is_run_all_the_same(world: World) -> None:
    quiet = world.services.settings.quiet_seconds
    for _ in range(12 * quiet):
        world.event()
        world.timers()
    assert len(world.executions.starts) == 1


def test_a_change_during_a_run_starts_another_after_it(world: World) -> None:
    first = world.post()
    world.event()
    world.tick(60)
    world.timers()
    assert world.executions.starts == [first]
    world.finish()
    world.tick(world.services.settings.quiet_seconds)
    world.timers()
    assert len(world.executions.starts) == 2
    world.settle()
    assert len(world.executions.starts) == 2


def test_a_run_by_hand_takes_over_the_changes_before_it(world: World) -> None:
    world.event()
    run_id = world.post()
    world.settle()
    assert world.executions.starts == [run_id]


@pytest.mark.parametrize("state", ["FAILED", "INVALID"])
def test_a_run_by_hand_that_fails_gives_the_changes_back(world: World, state: str) -> None:
    world.event()
    run_id = world.post()
    world.finish(state=state)
    world.settle()
    assert len(world.executions.starts) == 2
    assert world.run(run_id)["state"] == state
    assert world.runs()[0]["trigger"] == "upload"


def test_a_failed_run_that_changes_started_is_not_tried_for_ever(world: World) -> None:
    world.event()
    world.tick(60)
    world.timers()
    world.finish(state="FAILED")
    world.settle()
    assert len(world.executions.starts) == 1
    world.event()
    world.settle()
    assert len(world.executions.starts) == 2


def test_cancel_stops_lets_go_and_wins_over_a_late_end(world: World) -> None:
    run_id = world.post()
    cancel_run(world.services, run_id=run_id, now=world.tick())
    assert not world.executions.running(run_id)
    assert world.run(run_id)["state"] == "CANCELLED"
    assert "running_run" not in world.item
    late = finish_run(world.services, "a", run_id, state="SUCCEEDED", changes={}, now=world.now)
    assert late == "CANCELLED"
    assert "current_run" not in world.item
    cancel_run(world.services, run_id=run_id, now=world.tick())  # again is no error


def test_what_is_over_cannot_be_cancelled(world: World) -> None:
    run_id = world.post()
    world.finish()
    with pytest.raises(Conflict, match="over already: SUCCEEDED"):
        cancel_run(world.services, run_id=run_id, now=world.tick())
    with pytest.raises(NotFound):
        cancel_run(world.services, run_id="a-20261122T120000-00000000", now=world.tick())


def test_an_old_run_that_ends_late_hides_no_newer_one(world: World) -> None:
    old = world.post()
    finish_run(world.services, "a", old, state="FAILED", changes={}, now=world.now)
    new = world.post()
    world.finish()
    finish_run(world.services, "a", old, state="SUCCEEDED", changes={}, now=world.now)
    assert world.item["current_run"] == new
    assert world.run(old)["state"] == "SUCCEEDED"


def test_a_dead_execution_does_not_block_for_ever(world: World) -> None:
    dead = world.post()
    world.executions.alive[dead] = False  # stopped from outside: nobody recorded an end
    with pytest.raises(AlreadyRunning):
        world.post()  # it may be starting
    world.tick(GRACE.total_seconds())
    new = world.post()
    assert world.run(dead)["state"] == "FAILED"
    failure = world.run(dead)["failure"]
    assert failure["error"] == "ExecutionLost"
    assert "TIMED_OUT: States.Timeout" in failure["cause"]
    assert failure["advice"]
    assert world.item["running_run"] == new


def test_a_dead_execution_is_found_with_nobody_asking(world: World) -> None:
    dead = world.post()
    world.executions.alive[dead] = False
    world.tick(RECHECK.total_seconds())
    world.timers()
    assert world.run(dead)["state"] == "FAILED"


def test_recover_starts_what_was_claimed_and_not_started(world: World) -> None:
    crashing = _crash_at(world.services, 1, only="start", before=True)
    with pytest.raises(Crash):
        world.post(crashing)
    assert world.executions.starts == []
    assert recover(world.services, now=world.tick()) == (world.item["running_run"],)
    assert world.executions.starts == [world.item["running_run"]]


def test_the_handler_starts_the_run(world: World) -> None:
    wiring.use(world.services)
    assert function.handler({"collection": "a"}, None) == {"collection": "a", "run_id": None}
    world.event()
    run_id = function.handler({"collection": "a"}, None)["run_id"]
    assert world.executions.starts == [run_id]
    assert function.handler({"collection": "gone"}, None)["run_id"] is None


def test_the_sweep_finds_what_timers_missed(world: World) -> None:
    wiring.use(world.services)
    run_id = world.post(now=datetime.now(UTC))
    world.event()
    world.services.table.update("timers", "a", {"at": None, "payload": None})
    assert function.handler({}, None) == {"under_way": [run_id]}
    assert function.handler({"source": "aws.events"}, None) == {"under_way": [run_id]}
    world.finish()
    world.services.table.update("timers", "a", {"at": None, "payload": None})
    assert function.handler({}, None) == {"under_way": []}
    assert world.services.table.get("timers", "a")["payload"] == {"collection": "a"}  # type: ignore[index]


# --- crashes: the process dies before or after any one call to a port


class Crash(BaseException):
    """The process is gone."""


class _Port:
    """A port whose calls are counted."""

    def __init__(self, port: Any, called: Callable[[str, Callable[[], Any]], Any]) -> None:
        self._port, self._called = port, called

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        return lambda *args, **options: self._called(name, lambda: method(*args, **options))


def _watched(services: Services, called: Callable[[str, Callable[[], Any]], Any]) -> Services:
    return dataclasses.replace(
        services,
        table=_Port(services.table, called),
        scheduler=_Port(services.scheduler, called),
        workflows=_Port(services.workflows, called),
    )


def _crash_at(services: Services, at: int, *, before: bool, only: str = "") -> Services:
    count = iter(range(1, 1000))

    def called(name: str, call: Callable[[], Any]) -> Any:
        here = (not only or name == only) and next(count) == at
        if here and before:
            raise Crash
        result = call()
        if here:
            raise Crash
        return result

    return _watched(services, called)


Action = Callable[[World, Services | None], object]
ACTIONS: dict[str, Action] = {
    "event": World.event,
    "timer": World.timers,
    "finish": World.finish,
    "post": lambda world, services: _quietly(lambda: world.post(services, idempotency_key="k")),
    "cancel": lambda world, services: _quietly(
        lambda: cancel_run(
            services or world.services,
            run_id=world.item.get("running_run") or f"{world.name}-20261122T120000-00000000",
            now=world.tick(),
        )
    ),
}


def _quietly(call: Callable[[], object]) -> None:
    try:
        call()
    except (AlreadyRunning, NotFound, Conflict):
        return


def _situations() -> Iterator[tuple[str, list[str]]]:
    yield "idle", []
    yield "changed", ["event"]
    yield "running", ["post"]
    yield "running, changed", ["post", "event"]
    yield "running by changes, changed", ["event", "wait", "timer", "event"]


SITUATIONS = dict(_situations())


def _enter(world: World, situation: str) -> None:
    for step in SITUATIONS[situation]:
        if step == "wait":
            world.tick(60)
        else:
            ACTIONS[step](world, None)
    world.tick(60)  # timers that were set are due


def _check(world: World, last_event: datetime | None) -> None:
    """Nothing hangs, nothing was lost: a run was claimed after the last event and succeeded."""
    world.settle()
    item = world.item
    assert "running_run" not in item
    assert "dirty" not in item
    assert {run["state"] for run in world.runs()} <= {"SUCCEEDED", "CANCELLED", "FAILED"}
    if last_event is not None:
        covering = [
            run
            for run in world.runs()
            if datetime.fromisoformat(run["created"]) >= last_event.replace(microsecond=0)
            and (run["state"] == "SUCCEEDED" or run["trigger"] == "upload")
        ]
        assert covering, world.runs()


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("action", ACTIONS)
def test_a_crash_anywhere_loses_nothing(services: Services, situation: str, action: str) -> None:
    for before in (True, False):
        for at in range(1, 60):
            world = World(services, f"{at}-{before}".lower())
            _enter(world, situation)
            event_at = world.now if action == "event" else world.last_event
            try:
                ACTIONS[action](world, _crash_at(world.services, at, before=before))
            except Crash:
                ACTIONS[action](world, None)  # the platform calls again
            else:
                break
            _check(world, event_at)
            assert len(world.executions.starts) == len(set(world.executions.starts))
        else:
            pytest.fail("the action never ended")


def _interrupt_at(
    services: Services, at: int, action: Callable[[], object]
) -> tuple[Services, list[str]]:
    """Services that run ``action`` after their call number ``at``, and the calls made."""
    calls: list[str] = []

    def called(name: str, call: Callable[[], Any]) -> Any:
        result = call()
        calls.append(name)
        if len(calls) == at:
            action()
        return result

    return _watched(services, called), calls


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("first", ACTIONS)
def test_any_action_may_come_in_the_middle_of_another(
    services: Services, situation: str, first: str
) -> None:
    for name, second in ACTIONS.items():
        for at in range(1, 60):
            world = World(services, f"{name}-{at}")
            _enter(world, situation)
            event_at = world.now if "event" in (first, name) else world.last_event
            watched, calls = _interrupt_at(world.services, at, partial(second, world, None))
            ACTIONS[first](world, watched)
            if len(calls) < at:
                break
            alive = [run_id for run_id, alive in world.executions.alive.items() if alive]
            assert len(alive) <= 1, alive
            _check(world, event_at)
        else:
            pytest.fail("the action never ended")
