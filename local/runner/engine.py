"""The workflow engine: one machine runs an Amazon States Language file.

Source of the behaviour: the Amazon States Language specification and the AWS Step Functions
developer guide (error handling, JSONata, variables, Distributed Map). Where one machine differs:

- ``concurrency`` bounds the tasks that run at once over all maps and branches; a task's time-out
  starts when it gets its slot. A Map also runs at most ``concurrency`` children at once.
- A task that timed out or was stopped is left behind on a daemon thread; its answer is dropped.
- The default limit of 40 concurrent iterations of an inline Map does not apply.
- An EXPRESS child is not ended after five minutes.
- ``PENDING`` result files are never written: children that never started have no record.
"""

import json
import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypeVar

from .definition import (
    BATCH_SYNC,
    LAMBDA_TOKEN,
    Catcher,
    Choice,
    Fail,
    Machine,
    Map,
    Parallel,
    Retrier,
    Rule,
    State,
    Task,
    Wait,
    parse_definition,
)
from .errors import (
    DATA_LIMIT,
    HEARTBEAT,
    QUERY,
    RUNTIME,
    TASK_FAILED,
    TIMEOUT,
    TOLERATED,
    InvalidDefinition,
    StateError,
)
from .events import Event, Kind, Listener
from .expressions import Template
from .items import Batch, ResultFiles, Source, batches
from .resources import Resources
from .scopes import Job, Scope, Slots, Stopped, Workers
from .tokens import TokenBroker
from .values import JSON, check_size, timestamp, to_text

Status = Literal["SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"]
T = TypeVar("T")

_ARN = "arn:aws:states:local:000000000000"
_FOREVER_S = 99_999_999
# How long a failed Parallel or Map waits for its other threads to leave their waits.
_UNWIND_S = 1.0

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


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where a state runs: its variables, its context and what stops it."""

    scope: Scope
    execution: str
    variables: dict[str, JSON]
    context: dict[str, JSON]
    within: tuple[str, ...] = ()
    child: int | None = None


@dataclass(frozen=True, slots=True)
class _Visit:
    """One attempt at a state."""

    state: State
    input: JSON
    frame: _Frame
    context: dict[str, JSON]

    def bindings(self, **more: JSON) -> dict[str, Any]:
        """What expressions of the state see."""
        states: dict[str, JSON] = {"input": self.input, "context": self.context, **more}
        return {**self.frame.variables, "states": states}

    @property
    def name(self) -> str:
        return self.state.name


@dataclass(frozen=True, slots=True)
class _Outcome:
    output: JSON
    next: str | None
    assign: dict[str, JSON]


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
        self._slots = slots
        self._tokens = tokens
        self._machine_name = machine_name
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._listener = listener
        self._workers = Workers()
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
        frame = _Frame(self.scope, id_, variables, self._context(id_, name, input_))
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

    def _machine(self, machine: Machine, value: JSON, frame: _Frame) -> JSON:
        name: str | None = machine.start_at
        while name is not None:
            outcome = self._state(machine.states[name], value, frame)
            frame.variables.update(outcome.assign)
            value, name = outcome.output, outcome.next
        return value

    # --- one state

    def _state(self, state: State, value: JSON, frame: _Frame) -> _Outcome:
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
            visit = _Visit(state, value, frame, context)
            try:
                outcome = self._attempt(visit)
                break
            except StateError as error:
                spent = self._clock() - entered
                delay_s = self._retry(state.retry, used, error)
                if delay_s is not None:
                    attempt = sum(used)
                    self._tell(
                        frame, "retrying", state, spent, error, attempt=attempt, delay_s=delay_s
                    )
                    self._pause(frame.scope, delay_s)
                    continue
                self._tell(frame, "failed", state, spent, error)
                catcher = _first(state.catch, error)
                if catcher is None:
                    self._spend(state.name, spent)
                    raise
                outcome = _caught(visit, catcher, error)
                break
        spent = self._clock() - entered
        self._spend(state.name, spent)
        self._tell(frame, "exited", state, spent)
        return outcome

    def _attempt(self, visit: _Visit) -> _Outcome:
        state = visit.state
        if isinstance(state, Choice):
            return _choose(state, visit)
        if isinstance(state, Fail):
            bindings = visit.bindings()
            raise StateError(
                _text(state.error.evaluate(bindings), visit, "Error"),
                _text(state.cause.evaluate(bindings), visit, "Cause"),
            )
        if isinstance(state, Wait):
            self._pause(visit.frame.scope, self._wait_s(state, visit))
            return _finish(visit)
        if isinstance(state, Task):
            return _finish(visit, (self._task(state, visit),))
        if isinstance(state, Parallel):
            return _finish(visit, (self._parallel(state, visit),))
        if isinstance(state, Map):
            run_map = self._distributed_map if state.distributed else self._inline_map
            return _finish(visit, (run_map(state, visit),))
        return _finish(visit)

    def _retry(
        self, retriers: Sequence[Retrier], used: list[int], error: StateError
    ) -> float | None:
        """Seconds until the next attempt, or ``None``; counts it against its retrier."""
        for index, retrier in enumerate(retriers):
            if not _matches(retrier.errors, error.error):
                continue
            if used[index] >= retrier.attempts:
                return None
            delay_s = retrier.interval_s
            # Step by step: a power of the rate overflows after many attempts.
            for _ in range(used[index]):
                delay_s *= retrier.backoff
                if delay_s >= (retrier.most_s or _FOREVER_S):
                    break
            delay_s = min(delay_s, retrier.most_s or _FOREVER_S)
            used[index] += 1
            return self._jitter.uniform(0, delay_s) if retrier.jitter else delay_s
        return None

    def _wait_s(self, state: Wait, visit: _Visit) -> float:
        bindings = visit.bindings()
        if state.seconds is not None:
            return _number(state.seconds.evaluate(bindings), visit, "Seconds", 0)
        assert state.until is not None  # noqa: S101 - the parser saw to it
        text = _text(state.until.evaluate(bindings), visit, "Timestamp")
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

    # --- tasks

    def _task(self, state: Task, visit: _Visit) -> JSON:
        if state.resource == LAMBDA_TOKEN:
            result = self._wait_for_token(state, visit)
        elif state.resource == BATCH_SYNC:
            result = self._batch(state, visit)
        else:
            function, payload = self._call_of(state, visit)
            answer = self._in_slot(state, visit, lambda: self._resources.invoke(function, payload))
            result = {"ExecutedVersion": "$LATEST", "Payload": answer, "StatusCode": 200}
        try:
            # Through text: the result is checked, and no handler keeps a hand on it.
            copied: JSON = json.loads(check_size(result, visit.name, "a result"))
        except (TypeError, ValueError, RecursionError) as error:
            raise StateError(
                "Runtime.MarshalError", _cause("Runtime.MarshalError", f"not JSON: {error}")
            ) from None
        return copied

    def _arguments(self, state: Task, visit: _Visit) -> dict[str, JSON]:
        assert state.arguments is not None  # noqa: S101 - the parser saw to it
        value = state.arguments.evaluate(visit.bindings())
        copied = json.loads(check_size(value, visit.name, "arguments"))
        if not isinstance(copied, dict):
            raise StateError(RUNTIME, f"Arguments of state '{visit.name}' are not an object")
        return copied

    def _call_of(self, state: Task, visit: _Visit) -> tuple[str, JSON]:
        arguments = self._arguments(state, visit)
        if unknown := sorted(set(arguments) - {"FunctionName", "Payload"}):
            raise StateError(RUNTIME, f"Arguments.{unknown[0]} of '{visit.name}' is unsupported")
        function = _text(arguments.get("FunctionName"), visit, "Arguments.FunctionName")
        return function, arguments.get("Payload", {})

    def _in_slot(self, state: Task, visit: _Visit, call: Callable[[], JSON]) -> JSON:
        timeout_s = _optional(state.timeout_s, visit, "TimeoutSeconds", _FOREVER_S)
        scope = visit.frame.scope
        release = self._slots.take(scope)
        job: Job[JSON] | None = None
        try:
            scope.check()
            job = self._workers.start(call, after=release)
            scope.wait(job.event, timeout_s)
        finally:
            if job is None or not job.done:
                release()
        if not job.done:
            raise StateError(TIMEOUT, f"state '{visit.name}' ran over {timeout_s:g} seconds")
        try:
            return job.result()
        except BaseException as error:
            raise _reported(error) from error

    def _batch(self, state: Task, visit: _Visit) -> JSON:
        arguments = self._arguments(state, visit)
        cancel = threading.Event()
        visit.frame.scope.watch(cancel)
        try:
            return self._in_slot(
                state, visit, lambda: self._resources.submit_job(arguments, cancel=cancel)
            )
        except StateError as error:
            # A job that failed has no error name of its own; services' errors keep theirs.
            own = isinstance(error.__cause__, StateError) or error.error == TIMEOUT
            raise (error if own else StateError(TASK_FAILED, error.cause)) from error.__cause__
        finally:
            cancel.set()
            visit.frame.scope.unwatch(cancel)

    def _wait_for_token(self, state: Task, visit: _Visit) -> JSON:
        task = self._tokens.open()
        scope = visit.frame.scope
        context: dict[str, JSON] = {**visit.context, "Task": {"Token": task.token}}
        visit = replace(visit, context=context)
        release: Callable[[], None] | None = None
        try:
            timeout_s = _optional(state.timeout_s, visit, "TimeoutSeconds", _FOREVER_S)
            beat_s = _optional(state.heartbeat_s, visit, "HeartbeatSeconds", _FOREVER_S)
            function, payload = self._call_of(state, visit)
            release = self._slots.take(scope)
            scope.check()

            def call() -> None:
                try:
                    self._resources.invoke(function, payload)
                except BaseException as error:  # noqa: BLE001 - handed to the waiting thread
                    self._tokens.fail(task, error)

            task.beat = time.monotonic()
            deadline = task.beat + timeout_s
            self._workers.start(call, after=release)
            while True:
                task.event.clear()
                if task.answered:
                    break
                now = time.monotonic()
                if now >= deadline:
                    raise StateError(
                        TIMEOUT, f"state '{visit.name}' had no answer in {timeout_s:g} seconds"
                    )
                if now >= task.beat + beat_s:
                    raise StateError(
                        HEARTBEAT, f"state '{visit.name}' had no heartbeat in {beat_s:g} seconds"
                    )
                scope.wait(task.event, min(deadline, task.beat + beat_s) - now)
        finally:
            self._tokens.close(task)
            if release is not None:
                release()
        if task.failure is not None:
            raise _reported(task.failure) from task.failure
        return task.output

    # --- branches and maps

    def _parallel(self, state: Parallel, visit: _Visit) -> JSON:
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

        return self._together(
            frame.scope,
            [partial(branch, machine) for machine in state.branches],
        )

    def _inline_map(self, state: Map, visit: _Visit) -> JSON:
        items = _items(state, visit)
        most = _optional(state.concurrency, visit, "MaxConcurrency", 0, least=0)
        results: list[JSON] = [None] * len(items)
        progress = _Progress(total=len(items))
        self._tell_progress(visit, progress)

        def child(batch: Batch, scope: Scope) -> None:
            frame = replace(
                visit.frame,
                scope=scope,
                variables=dict(visit.frame.variables),
                context=_with_item(visit.frame.context, batch.index, items[batch.index]),
                within=(*visit.frame.within, state.name),
                child=batch.index,
            )
            results[batch.index] = self._machine(state.processor, batch.input, frame)
            with self._lock:
                progress.done += 1
                self._tell_progress(visit, progress)

        source = (
            Batch(index, value, 1) for index, value in enumerate(_selected(state, visit, items))
        )
        self._children(visit, source, int(most), child)
        return results

    def _distributed_map(self, state: Map, visit: _Visit) -> JSON:
        arn = self._map_run_arn(state, visit)
        most = _optional(state.concurrency, visit, "MaxConcurrency", 0, least=0)
        tolerance = _Tolerance.of(state, visit)
        files = self._result_files(state, visit, arn)
        items, total = self._item_source(state, visit)
        selected = _selected(state, visit, items)
        source = _batched(state, visit, selected)
        progress = _Progress(total=total)
        collected: dict[int, JSON] = {}
        self._tell_progress(visit, progress)

        def child(batch: Batch, scope: Scope) -> None:
            record, output = self._child_execution(state, visit, arn, batch, scope)
            with self._lock:
                progress.done += batch.items
                if files is not None:
                    files.add(record, output)
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
                with self._lock:
                    files.finish()
            raise
        if files is None:
            return [collected[index] for index in sorted(collected)]
        return {"MapRunArn": arn, "ResultWriterDetails": files.finish()}

    def _child_execution(
        self, state: Map, visit: _Visit, arn: str, batch: Batch, scope: Scope
    ) -> tuple[dict[str, JSON], JSON]:
        """One child of a distributed Map: an execution of its own. Gives its record, its output."""
        name = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{arn}/{batch.index}"))
        machine = f"{self._machine_name}/{state.label}"
        id_ = f"{_ARN}:execution:{machine}:{name}"
        started = self._clock()
        frame = _Frame(
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

    def _map_run_arn(self, state: Map, visit: _Visit) -> str:
        """The same for the same attempt in a repeated run of the same name: it writes over."""
        frame = visit.frame
        place = json.dumps([frame.execution, frame.within, frame.child, visit.name])
        with self._lock:
            self._map_runs[place] = count = self._map_runs.get(place, 0) + 1
        id_ = uuid.uuid5(uuid.NAMESPACE_URL, f"{place}/{count}")
        return f"{_ARN}:mapRun:{self._machine_name}/{state.label}:{id_}"

    def _item_source(self, state: Map, visit: _Visit) -> tuple[Iterable[JSON], int]:
        if state.reader is None:
            items = _items(state, visit)
            return items, len(items)
        bucket, key = _address(state.reader.arguments, visit, "ItemReader", "Key")
        most = state.reader.most
        source = Source(
            self._resources,
            bucket,
            key,
            lines=state.reader.input_type == "JSONL",
            most=None if most is None else int(_optional(most, visit, "MaxItems", 0, least=1)),
        )
        return source.read(), source.count()

    def _result_files(self, state: Map, visit: _Visit, arn: str) -> ResultFiles | None:
        if state.writer is None:
            return None
        bucket, prefix = _address(state.writer.arguments, visit, "ResultWriter", "Prefix")
        return ResultFiles(
            self._resources,
            bucket=bucket,
            prefix=prefix,
            map_run_arn=arn,
            transformation=state.writer.transformation,
            lines=state.writer.output_type == "JSONL",
        )

    def _children(
        self,
        visit: _Visit,
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
        self._together(visit.frame.scope, [work] * count)

    def _together(self, outer: Scope, calls: Sequence[Callable[[Scope], T]]) -> list[T]:
        """Run calls at once and give their results; the first that fails stops the others."""
        scope = Scope(outer)
        lock = threading.Lock()
        settled, ended = threading.Event(), threading.Event()
        results: dict[int, T] = {}
        failures: list[BaseException] = []
        left = [len(calls)]

        def one(index: int, call: Callable[[Scope], T]) -> None:
            try:
                value = call(scope)
                with lock:
                    results[index] = value
            except BaseException as error:  # noqa: BLE001 - raised again by the waiting thread
                with lock:
                    failures.append(error)
                settled.set()
            with lock:
                left[0] -= 1
                last = left[0] == 0
            if last:
                ended.set()
                settled.set()

        try:
            for index, call in enumerate(calls):
                self._workers.start(partial(one, index, call))
            scope.wait(settled)
            if failures:
                scope.stop()
                ended.wait(_UNWIND_S)
                raise failures[0]
            return [results[index] for index in range(len(calls))]
        finally:
            scope.stop()
            scope.close()

    # --- the listener

    def _tell(
        self,
        frame: _Frame,
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

    def _tell_progress(self, visit: _Visit, progress: "_Progress") -> None:
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


@dataclass(slots=True)
class _Progress:
    """Items of a Map: how many are done, how many of those failed, how many there are."""

    total: int
    done: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class _Tolerance:
    """How many items of a distributed Map may fail; ``None`` where the file sets no limit."""

    count: float | None
    percentage: float | None

    @classmethod
    def of(cls, state: Map, visit: _Visit) -> "_Tolerance":
        return cls(
            _limit(state.tolerated_count, visit, "ToleratedFailureCount"),
            _limit(state.tolerated_percentage, visit, "ToleratedFailurePercentage", most=100),
        )

    def exceeded(self, progress: _Progress) -> bool:
        if self.count is None and self.percentage is None:
            return progress.failed > 0
        over_count = self.count is not None and progress.failed > self.count
        share = None if self.percentage is None else self.percentage * progress.total
        return over_count or (share is not None and progress.failed * 100 > share)


def _finish(visit: _Visit, result: tuple[JSON] | None = None) -> _Outcome:
    """Output and Assign of a state that did its work; ``result`` in a tuple if it has one."""
    state = visit.state
    more: dict[str, JSON] = {} if result is None else {"result": result[0]}
    output = visit.input if result is None else result[0]
    return _outcome(visit, more, state, otherwise=output, next_=state.next)


def _caught(visit: _Visit, catcher: Catcher, error: StateError) -> _Outcome:
    shown: JSON = {"Error": error.error, "Cause": error.cause}
    more: dict[str, JSON] = {"errorOutput": shown}
    return _outcome(visit, more, catcher, otherwise=shown, next_=catcher.next)


def _choose(state: Choice, visit: _Visit) -> _Outcome:
    bindings = visit.bindings()
    for rule in state.rules:
        holds = rule.condition.evaluate(bindings)
        if not isinstance(holds, bool):
            raise StateError(
                QUERY, f"a Condition of state '{visit.name}' gave {to_text(holds)}, not a boolean"
            )
        if holds:
            return _outcome(visit, {}, rule, otherwise=visit.input, next_=rule.next)
    if state.next is None:
        raise StateError(
            RUNTIME, f"no choice of state '{visit.name}' matched and it has no Default"
        )
    return _finish(visit)


def _outcome(
    visit: _Visit,
    more: Mapping[str, JSON],
    rule: State | Rule | Catcher,
    *,
    otherwise: JSON,
    next_: str | None,
) -> _Outcome:
    bindings = visit.bindings(**more)
    value = otherwise if rule.output is None else rule.output.evaluate(bindings)
    if rule.output is not None or isinstance(visit.state, Parallel | Map):
        check_size(value, visit.name, "an output")
    # All see the variables as they were on entry; new values count from the next state on.
    assigned = {name: template.evaluate(bindings) for name, template in rule.assign.items()}
    for name, given in assigned.items():
        check_size(given, visit.name, f"a variable ${name}")
    return _Outcome(value, next_, assigned)


def _matches(names: Sequence[str], error: str) -> bool:
    """Whether ``ErrorEquals`` takes an error.

    ``States.Runtime`` cannot be handled at all; ``States.DataLimitExceeded`` only by its own name;
    ``States.TaskFailed`` takes all but time-outs; a missed heartbeat is also a time-out.
    """
    if error == RUNTIME:
        return False
    if error in names:
        return True
    if error == DATA_LIMIT:
        return False
    late = error in (TIMEOUT, HEARTBEAT)
    return (
        "States.ALL" in names or (TASK_FAILED in names and not late) or (TIMEOUT in names and late)
    )


def _first(catchers: Sequence[Catcher], error: StateError) -> Catcher | None:
    return next((c for c in catchers if _matches(c.errors, error.error)), None)


def _reported(error: BaseException) -> StateError:
    """The error that Lambda would report for an exception in a handler."""
    if isinstance(error, StateError):
        return StateError(error.error, error.cause)
    name = type(error).__name__ if isinstance(error, Exception) else "Runtime.ExitError"
    return StateError(name, _cause(name, str(error)))


def _cause(name: str, message: str) -> str:
    return json.dumps({"errorMessage": message, "errorType": name}, ensure_ascii=False)


def _items(state: Map, visit: _Visit) -> list[JSON]:
    value = visit.input if state.items is None else state.items.evaluate(visit.bindings())
    if not isinstance(value, list):
        raise StateError(QUERY, f"the items of state '{visit.name}' are not an array")
    return value


def _selected(state: Map, visit: _Visit, items: Iterable[JSON]) -> Iterator[JSON]:
    if state.selector is None:
        yield from items
        return
    for index, item in enumerate(items):
        bindings = replace(visit, context=_with_item(visit.context, index, item)).bindings()
        yield state.selector.evaluate(bindings)


def _batched(state: Map, visit: _Visit, items: Iterable[JSON]) -> Iterator[Batch]:
    batcher = state.batcher
    if batcher is None:
        return (Batch(index, item, 1) for index, item in enumerate(items))
    most_items = _limit(batcher.items, visit, "MaxItemsPerBatch", least=1)
    most_bytes = _limit(batcher.bytes, visit, "MaxInputBytesPerBatch", least=1)
    return batches(
        items,
        most_items=None if most_items is None else int(most_items),
        most_bytes=None if most_bytes is None else int(most_bytes),
        batch_input=(
            None if batcher.input is None else (batcher.input.evaluate(visit.bindings()),)
        ),
    )


def _with_item(context: dict[str, JSON], index: int, item: JSON) -> dict[str, JSON]:
    return {**context, "Map": {"Item": {"Index": index, "Value": item}}}


def _address(template: Template, visit: _Visit, where: str, second: str) -> tuple[str, str]:
    value = template.evaluate(visit.bindings())
    if not isinstance(value, dict):
        raise StateError(QUERY, f"{where}.Arguments of state '{visit.name}' are no object")
    return (
        _text(value.get("Bucket"), visit, f"{where}.Bucket"),
        _text(value.get(second), visit, f"{where}.{second}"),
    )


def _text(value: JSON, visit: _Visit, where: str) -> str:
    if not isinstance(value, str):
        raise StateError(QUERY, f"{where} of state '{visit.name}' is not a string")
    return value


def _limit(
    template: Template | None,
    visit: _Visit,
    where: str,
    *,
    least: float = 0,
    most: float = _FOREVER_S,
) -> float | None:
    if template is None:
        return None
    return _number(template.evaluate(visit.bindings()), visit, where, least, most)


def _optional(
    template: Template | None, visit: _Visit, where: str, default: float, *, least: float = 1
) -> float:
    found = _limit(template, visit, where, least=least)
    return default if found is None else found


def _number(
    value: JSON, visit: _Visit, where: str, least: float, most: float = _FOREVER_S
) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise StateError(
            QUERY, f"{where} of state '{visit.name}' is not a number from {least:g} to {most:g}"
        )
    return float(value)
