"""The workflow engine: one machine runs an Amazon States Language file.

Source of the behaviour: the Amazon States Language specification and the AWS Step Functions
developer guide (error handling, JSONata, variables, Distributed Map). Where one machine differs:

- ``concurrency`` bounds the tasks that run at once over all maps and branches; a task's time-out
  starts when it gets its slot. A Map also runs at most ``concurrency`` children at once.
- A task that timed out or was stopped is left behind on a daemon thread; its answer is dropped.
- The default limit of 40 concurrent iterations of an inline Map does not apply.
- ``PENDING`` result files are never written: children that never started have no record.
- Without a ResultWriter, a tolerated failure stands in the output as its record, in its place.
"""

import json
import logging
import os
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Literal, TypeVar

from .definition import Choice, Fail, Machine, Map, Parallel, State, Task, Wait, parse_definition
from .errors import QUERY, TIMEOUT, TOLERATED, InvalidDefinition, StateError
from .events import Event, Kind, Listener
from .handling import first_catcher, retry_delay
from .items import Batch, ResultFiles, Source
from .maps import Progress, Tolerance, batched, items_of, selected, with_item
from .resources import Resources
from .scopes import Scope, Slots, Stopped, Workers, together
from .tasks import Tasks
from .tokens import TokenBroker
from .values import JSON, check_size, timestamp, to_text
from .visits import (
    Frame,
    Outcome,
    Visit,
    address,
    caught,
    choose,
    finish,
    number_or,
    text_of,
)

Status = Literal["SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"]
T = TypeVar("T")

_ARN = "arn:aws:states:local:000000000000"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Execution:
    """How an execution ended.

    Attributes:
        status: ``SUCCEEDED``, ``FAILED``, ``TIMED_OUT`` or ``ABORTED``.
        output: the last state's output, when it succeeded.
        error, cause: why not, otherwise.
        states: seconds spent in each state by name, retries and their waits included. States
            inside a Map add up over its children, so they may exceed the Map's own seconds.
    """

    status: Status
    output: JSON = None
    error: str = ""
    cause: str = ""
    states: Mapping[str, float] = field(default_factory=dict)


class Workflow:
    """A workflow file, ready to run on this machine.

    Args:
        definition: the file's content with placeholders filled in (see ``load_definition``).
        resources: the functions, jobs and objects that tasks use.
        concurrency: tasks that run at once, over all executions; by default one a processor.
        tokens: where ``.waitForTaskToken`` answers arrive.
        name: of the state machine, for ``$states.context.StateMachine``.
        clock: Unix seconds.
        sleep: waits between retries and in Wait states; by default a wait that a stop ends.
        jitter: the random numbers of ``JitterStrategy`` FULL.

    Raises:
        InvalidDefinition: the file is wrong or uses something unknown.
    """

    def __init__(
        self,
        definition: Mapping[str, JSON],
        *,
        resources: Resources,
        concurrency: int | None = None,
        tokens: TokenBroker | None = None,
        name: str = "workflow",
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] | None = None,
        jitter: random.Random | None = None,
    ) -> None:
        count = (os.cpu_count() or 1) if concurrency is None else concurrency
        if count < 1:
            raise ValueError(f"concurrency must be at least 1, not {count}")
        self.tokens = tokens or TokenBroker()
        self._machine = parse_definition(definition)
        self._resources = resources
        self._concurrency = count
        self._slots = Slots(count)
        self._name = name
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads retries, no secret
        self._lock = threading.Lock()
        self._running: set[Scope] = set()

    def run(
        self,
        input: JSON,  # noqa: A002 - the word of Step Functions
        *,
        name: str,
        listener: Listener | None = None,
        start_at: str | None = None,
        variables: Mapping[str, JSON] | None = None,
    ) -> Execution:
        """Run one execution to its end; several may run at once on different threads.

        Ctrl-C stops it at once and raises ``KeyboardInterrupt``.

        Args:
            input: the execution's input.
            name: of the execution, for ``$states.context.Execution``.
            listener: hears each event, one call at a time; it must return soon. What it raises
                ends the execution and is raised here.
            start_at: a state of the top level to begin with in place of ``StartAt``.
            variables: variables that are set at the start, for use with ``start_at``.

        Raises:
            InvalidDefinition: there is no state ``start_at``.
        """
        machine = self._machine
        if start_at is not None:
            if start_at not in machine.states:
                raise InvalidDefinition("the workflow", f"StartAt: no state {start_at!r}")
            machine = replace(machine, start_at=start_at)
        run = _Run(
            resources=self._resources,
            concurrency=self._concurrency,
            slots=self._slots,
            tokens=self.tokens,
            machine_name=self._name,
            clock=self._clock,
            sleep=self._sleep,
            jitter=self._jitter,
            listener=listener,
        )
        with self._lock:
            self._running.add(run.scope)
        timer = None
        if machine.timeout_s is not None:
            timer = threading.Timer(min(machine.timeout_s, threading.TIMEOUT_MAX), run.time_out)
            timer.daemon = True
            timer.start()
        try:
            return run.execution(machine, input, name, dict(variables or {}))
        finally:
            if timer is not None:
                timer.cancel()
            with self._lock:
                self._running.discard(run.scope)
            run.end()

    def stop(self) -> None:
        """Stop all executions that run now; each ends with the status ``ABORTED``."""
        with self._lock:
            running = list(self._running)
        for scope in running:
            scope.stop()


class _Run:
    """One execution."""

    def __init__(
        self,
        *,
        resources: Resources,
        concurrency: int,
        slots: Slots,
        tokens: TokenBroker,
        machine_name: str,
        clock: Callable[[], float],
        sleep: Callable[[float], None] | None,
        jitter: random.Random,
        listener: Listener | None,
    ) -> None:
        self.scope = Scope()
        self._resources = resources
        self._concurrency = concurrency
        self._machine_name = machine_name
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._listener = listener
        self._workers = Workers()
        self._tasks = Tasks(resources=resources, slots=slots, tokens=tokens, workers=self._workers)
        self._timed_out = False
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        self._seconds: dict[str, float] = {}
        self._map_runs: dict[str, int] = {}

    # --- the execution as a whole

    def execution(
        self, machine: Machine, input_: JSON, name: str, variables: dict[str, JSON]
    ) -> Execution:
        id_ = f"{_ARN}:execution:{self._machine_name}:{name}"
        frame = Frame(self.scope, id_, variables, self._context(id_, name, input_))
        try:
            check_size(input_, machine.start_at, "an input")
            output = self._machine(machine, input_, frame)
        except StateError as error:
            return Execution("FAILED", None, error.error, error.cause, self._spent())
        except Stopped:
            if self._timed_out:
                cause = "the workflow ran longer than its TimeoutSeconds"
                return Execution("TIMED_OUT", None, TIMEOUT, cause, self._spent())
            return Execution("ABORTED", None, "", "the workflow was stopped", self._spent())
        return Execution("SUCCEEDED", output, states=self._spent())

    def time_out(self) -> None:
        self._timed_out = True
        self.scope.stop()

    def end(self) -> None:
        """Leave behind whatever still runs."""
        self.scope.stop()
        self._workers.close()

    def _context(self, id_: str, name: str, input_: JSON) -> dict[str, JSON]:
        machine = self._machine_name
        return {
            "Execution": {
                "Id": id_,
                "Input": input_,
                "Name": name,
                "StartTime": timestamp(self._clock()),
            },
            "StateMachine": {"Id": f"{_ARN}:stateMachine:{machine}", "Name": machine},
        }

    def _machine(self, machine: Machine, value: JSON, frame: Frame) -> JSON:
        name: str | None = machine.start_at
        while name is not None:
            outcome = self._state(machine.states[name], value, frame)
            frame.variables.update(outcome.assign)
            value, name = outcome.output, outcome.next
        return value

    # --- one state

    def _state(self, state: State, value: JSON, frame: Frame) -> Outcome:
        entered = self._clock()
        self._tell(frame, "entered", state)
        used = [0] * len(state.retry)
        while True:
            frame.scope.check()
            about: dict[str, JSON] = {
                "EnteredTime": timestamp(entered),
                "Name": state.name,
                "RetryCount": sum(used),
            }
            context: dict[str, JSON] = {**frame.context, "State": about}
            visit = Visit(state, value, frame, context)
            try:
                outcome = self._attempt(visit)
                break
            except StateError as error:
                spent = self._clock() - entered
                delay_s = retry_delay(state.retry, used, error, self._jitter)
                if delay_s is not None:
                    attempt = sum(used)
                    self._tell(
                        frame, "retrying", state, spent, error, attempt=attempt, delay_s=delay_s
                    )
                    self._pause(frame.scope, delay_s)
                    continue
                self._tell(frame, "failed", state, spent, error)
                catcher = first_catcher(state.catch, error)
                if catcher is None:
                    self._spend(state.name, spent)
                    raise
                outcome = caught(visit, catcher, error)
                break
        spent = self._clock() - entered
        self._spend(state.name, spent)
        self._tell(frame, "exited", state, spent)
        return outcome

    def _attempt(self, visit: Visit) -> Outcome:
        state = visit.state
        if isinstance(state, Choice):
            return choose(state, visit)
        if isinstance(state, Fail):
            bindings = visit.bindings()
            raise StateError(
                text_of(state.error.evaluate(bindings), visit, "Error"),
                text_of(state.cause.evaluate(bindings), visit, "Cause"),
            )
        if isinstance(state, Wait):
            self._pause(visit.frame.scope, self._wait_s(state, visit))
            return finish(visit)
        if isinstance(state, Task):
            return finish(visit, (self._tasks.run(state, visit),))
        if isinstance(state, Parallel):
            return finish(visit, (self._parallel(state, visit),))
        if isinstance(state, Map):
            run_map = self._distributed_map if state.distributed else self._inline_map
            return finish(visit, (run_map(state, visit),))
        return finish(visit)

    def _wait_s(self, state: Wait, visit: Visit) -> float:
        bindings = visit.bindings()
        if state.seconds is not None:
            return number_or(state.seconds, visit, "Seconds", 0, least=0)
        assert state.until is not None  # noqa: S101 - the parser saw to it
        text = text_of(state.until.evaluate(bindings), visit, "Timestamp")
        try:
            until = datetime.fromisoformat(text)
        except ValueError:
            until = None
        if until is None or until.tzinfo is None or "T" not in text:
            raise StateError(QUERY, f"Timestamp of state '{visit.name}' is no time: {text!r}")
        return max(0.0, until.timestamp() - self._clock())

    def _pause(self, scope: Scope, seconds: float) -> None:
        if self._sleep is None:
            scope.wait(threading.Event(), min(seconds, threading.TIMEOUT_MAX))
        else:
            self._sleep(seconds)
            scope.check()

    # --- branches and maps

    def _parallel(self, state: Parallel, visit: Visit) -> JSON:
        value = visit.input
        if state.arguments is not None:
            value = state.arguments.evaluate(visit.bindings())
            check_size(value, visit.name, "arguments")
        frame = visit.frame

        def branch(machine: Machine, scope: Scope) -> JSON:
            inner = replace(
                frame,
                scope=scope,
                variables=dict(frame.variables),
                within=(*frame.within, state.name),
            )
            return self._machine(machine, value, inner)

        return together(
            self._workers,
            frame.scope,
            [partial(branch, machine) for machine in state.branches],
        )

    def _inline_map(self, state: Map, visit: Visit) -> JSON:
        items = items_of(state, visit)
        most = number_or(state.concurrency, visit, "MaxConcurrency", 0, least=0)
        results: list[JSON] = [None] * len(items)
        progress = Progress(total=len(items))
        lock = threading.Lock()
        self._tell_progress(visit, progress)

        def child(batch: Batch, scope: Scope) -> None:
            frame = replace(
                visit.frame,
                scope=scope,
                variables=dict(visit.frame.variables),
                context=with_item(visit.frame.context, batch.index, items[batch.index]),
                within=(*visit.frame.within, state.name),
                child=batch.index,
            )
            results[batch.index] = self._machine(state.processor, batch.input, frame)
            with lock:
                progress.done += 1
                self._tell_progress(visit, progress)

        source = (
            Batch(index, value, 1) for index, value in enumerate(selected(state, visit, items))
        )
        self._children(visit, source, int(most), child)
        return results

    def _distributed_map(self, state: Map, visit: Visit) -> JSON:
        arn = self._map_run_arn(state, visit)
        most = number_or(state.concurrency, visit, "MaxConcurrency", 0, least=0)
        tolerance = Tolerance.of(state, visit)
        files = self._result_files(state, visit, arn)
        items, total = self._item_source(state, visit)
        source = batched(state, visit, selected(state, visit, items))
        progress = Progress(total=total)
        lock = threading.Lock()
        collected: dict[int, JSON] = {}
        self._tell_progress(visit, progress)

        def child(batch: Batch, scope: Scope) -> None:
            record, output = self._child_execution(state, visit, arn, batch, scope)
            with lock:
                scope.check()
                progress.done += batch.items
                if files is not None:
                    files.add(record)
                else:
                    collected[batch.index] = output if record["Status"] == "SUCCEEDED" else record
                if record["Status"] == "FAILED":
                    progress.failed += batch.items
                self._tell_progress(visit, progress)
                if tolerance.exceeded(progress):
                    raise StateError(
                        TOLERATED,
                        "The specified tolerated failure threshold was exceeded: "
                        f"{progress.failed} of {progress.total} items failed. "
                        f"The last one: {record.get('Error')}: {record.get('Cause')}",
                    )

        try:
            self._children(visit, source, int(most), child)
        except StateError:
            # What did succeed is kept, as the service keeps it.
            if files is not None:
                with lock:
                    files.finish()
            raise
        if files is None:
            return [collected[index] for index in sorted(collected)]
        return {"MapRunArn": arn, "ResultWriterDetails": files.finish()}

    def _child_execution(
        self, state: Map, visit: Visit, arn: str, batch: Batch, scope: Scope
    ) -> tuple[dict[str, JSON], JSON]:
        """One child of a distributed Map: an execution of its own. Gives its record, its output."""
        name = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{arn}/{batch.index}"))
        machine = f"{self._machine_name}/{_label(state)}"
        id_ = f"{_ARN}:execution:{machine}:{name}"
        started = self._clock()
        frame = Frame(
            scope,
            id_,
            {},
            self._context(id_, name, batch.input),
            (*visit.frame.within, state.name),
            batch.index,
        )
        output: JSON = None
        outcome: dict[str, JSON]
        try:
            check_size(batch.input, state.name, "a child's input")
            output = self._machine(state.processor, batch.input, frame)
            outcome = {
                "Output": to_text(output),
                "OutputDetails": {"Included": True},
                "Status": "SUCCEEDED",
            }
        except StateError as error:
            outcome = {"Error": error.error, "Cause": error.cause, "Status": "FAILED"}
        record: dict[str, JSON] = {
            "ExecutionArn": id_,
            "Input": to_text(batch.input),
            "InputDetails": {"Included": True},
            "Name": name,
            "RedriveCount": 0,
            "RedriveStatus": "NOT_REDRIVABLE",
            "StartDate": timestamp(started),
            "StateMachineArn": f"{_ARN}:stateMachine:{machine}",
            "StopDate": timestamp(self._clock()),
            **outcome,
        }
        return record, output

    def _map_run_arn(self, state: Map, visit: Visit) -> str:
        """The same for the same attempt in a repeated run of the same name: it writes over."""
        frame = visit.frame
        place = json.dumps([frame.execution, frame.within, frame.child, visit.name])
        with self._lock:
            self._map_runs[place] = count = self._map_runs.get(place, 0) + 1
        id_ = uuid.uuid5(uuid.NAMESPACE_URL, f"{place}/{count}")
        return f"{_ARN}:mapRun:{self._machine_name}/{_label(state)}:{id_}"

    def _item_source(self, state: Map, visit: Visit) -> tuple[Iterable[JSON], int]:
        if state.reader is None:
            items = items_of(state, visit)
            return items, len(items)
        bucket, key = address(state.reader, visit, "ItemReader", "Key")
        source = Source(self._resources, bucket, key)
        return source.read(), source.count()

    def _result_files(self, state: Map, visit: Visit, arn: str) -> ResultFiles | None:
        if state.writer is None:
            return None
        bucket, prefix = address(state.writer, visit, "ResultWriter", "Prefix")
        return ResultFiles(self._resources, bucket=bucket, prefix=prefix, map_run_arn=arn)

    def _children(
        self,
        visit: Visit,
        source: Iterator[Batch],
        most: int,
        child: Callable[[Batch, Scope], None],
    ) -> None:
        """Run the children of a Map: a few threads, each takes the next batch when it is free."""
        taking = threading.Lock()

        def work(scope: Scope) -> None:
            while True:
                scope.check()
                with taking:
                    batch = next(source, None)
                if batch is None:
                    return
                child(batch, scope)

        count = min(most or self._concurrency, self._concurrency)
        together(self._workers, visit.frame.scope, [work] * count)

    # --- the listener

    def _tell(
        self,
        frame: Frame,
        kind: Kind,
        state: State,
        seconds: float = 0.0,
        error: StateError | None = None,
        *,
        attempt: int = 0,
        delay_s: float = 0.0,
    ) -> None:
        if error is not None:
            _log.debug("%s %s: %s", state.name, kind, error.error, exc_info=error)
        if self._listener is None or frame.scope.stopped:
            return
        event = Event(
            kind,
            state.name,
            state.type,
            self._clock(),
            frame.within,
            frame.child,
            seconds,
            error=error.error if error else "",
            cause=error.cause if error else "",
            attempt=attempt,
            delay_s=delay_s,
        )
        with self._telling:
            self._listener(event)

    def _tell_progress(self, visit: Visit, progress: "Progress") -> None:
        frame = visit.frame
        if self._listener is None or frame.scope.stopped:
            return
        event = Event(
            "progress",
            visit.name,
            visit.state.type,
            self._clock(),
            frame.within,
            frame.child,
            done=progress.done,
            failed=progress.failed,
            total=progress.total,
        )
        with self._telling:
            self._listener(event)

    def _spend(self, name: str, seconds: float) -> None:
        with self._lock:
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def _spent(self) -> dict[str, float]:
        with self._lock:
            return dict(self._seconds)


def _label(state: Map) -> str:
    """What the service makes of a Map's name where it needs one without spaces."""
    return re.sub(r"[^A-Za-z0-9_-]", "", state.name)[:40] or "Map"
