"""Tasks: calls of functions and jobs, with their time-outs and tokens."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace

from .definition import BATCH_SYNC, LAMBDA_TOKEN, Task
from .errors import RUNTIME, TASK_FAILED, TIMEOUT, StateError
from .handling import lambda_cause, reported
from .resources import Resources
from .scopes import Job, Slots, Workers
from .tokens import TokenBroker
from .values import JSON, check_size
from .visits import FOREVER_S, Visit, number_or, text_of


class Tasks:
    """Runs the Task states of one execution.

    Args:
        resources: what does the work.
        slots: the machine's limit.
        tokens: where answers to ``.waitForTaskToken`` arrive.
        workers: the threads that calls run on.
    """

    def __init__(
        self, *, resources: Resources, slots: Slots, tokens: TokenBroker, workers: Workers
    ) -> None:
        self._resources = resources
        self._slots = slots
        self._tokens = tokens
        self._workers = workers

    def run(self, state: Task, visit: Visit) -> JSON:
        """The result of a task; raises ``StateError``, or ``Stopped`` when its scope stops."""
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
                "Runtime.MarshalError", lambda_cause("Runtime.MarshalError", f"not JSON: {error}")
            ) from None
        return copied

    def _arguments(self, state: Task, visit: Visit) -> dict[str, JSON]:
        assert state.arguments is not None  # noqa: S101 - the parser saw to it
        value = state.arguments.evaluate(visit.bindings())
        copied = json.loads(check_size(value, visit.name, "arguments"))
        if not isinstance(copied, dict):
            raise StateError(RUNTIME, f"Arguments of state '{visit.name}' are not an object")
        return copied

    def _call_of(self, state: Task, visit: Visit) -> tuple[str, JSON]:
        arguments = self._arguments(state, visit)
        if unknown := sorted(set(arguments) - {"FunctionName", "Payload"}):
            raise StateError(RUNTIME, f"Arguments.{unknown[0]} of '{visit.name}' is unsupported")
        function = text_of(arguments.get("FunctionName"), visit, "Arguments.FunctionName")
        return function, arguments.get("Payload", {})

    def _in_slot(self, state: Task, visit: Visit, call: Callable[[], JSON]) -> JSON:
        timeout_s = number_or(state.timeout_s, visit, "TimeoutSeconds", FOREVER_S)
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
            raise reported(error) from error

    def _batch(self, state: Task, visit: Visit) -> JSON:
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

    def _wait_for_token(self, state: Task, visit: Visit) -> JSON:
        task = self._tokens.open()
        scope = visit.frame.scope
        context: dict[str, JSON] = {**visit.context, "Task": {"Token": task.token}}
        visit = replace(visit, context=context)
        release: Callable[[], None] | None = None
        try:
            timeout_s = number_or(state.timeout_s, visit, "TimeoutSeconds", FOREVER_S)
            function, payload = self._call_of(state, visit)
            release = self._slots.take(scope)
            scope.check()

            def call() -> None:
                try:
                    self._resources.invoke(function, payload)
                except BaseException as error:  # noqa: BLE001 - handed to the waiting thread
                    self._tokens.fail(task, error)

            self._workers.start(call, after=release)
            scope.wait(task.event, timeout_s)
            if not task.answered:
                raise StateError(
                    TIMEOUT, f"state '{visit.name}' had no answer in {timeout_s:g} seconds"
                )
        finally:
            self._tokens.close(task)
            if release is not None:
                release()
        if task.failure is not None:
            raise reported(task.failure) from task.failure
        return task.output
