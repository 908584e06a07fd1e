"""The workflow file on this machine: the runner over the same handlers that Lambda runs."""

import fcntl
import importlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from imageclust import keys
from imageclust.errors import NotFound, Permanent
from imageclust.models import JSON
from imageclust.ports import ObjectStore

import statemachine
from local.runner import (
    Event,
    Execution,
    TaskDoesNotExist,
    TaskTimedOut,
    TokenBroker,
    Workflow,
    load_definition,
)

_SHUTDOWN_SECONDS = 10
_ENDED_KEPT = 100


class LocalWorkflows:
    """Executions as threads of this process. Implements ``imageclust.ports.Workflows``.

    Args:
        store: the object store that Distributed Maps read from and write to.
        home: the state folder, for batch jobs, which run as processes of their own.
        data_bucket: the bucket that the workflow file calls ``${DataBucket}``.
        listener: told every event of every execution, with the run's id.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        home: Path,
        data_bucket: str = "data",
        listener: Callable[[str, Event], None] | None = None,
    ) -> None:
        substitutions = {
            **functions_of_workflow(),
            "DataBucket": data_bucket,
            "GpuJobQueueArn": "local",
            "GpuJobDefinitionArn": "local",
        }
        self._definition = load_definition(workflow_file(), substitutions)
        self._tokens = TokenBroker()
        self._resources = _Machine(store, home)
        self._listener = listener
        self._locks = home / "locks"
        self._running: dict[str, tuple[Workflow, threading.Thread]] = {}
        self._ended: dict[str, Execution] = {}
        self._lock = threading.Lock()

    def start(self, run_id: str, request: JSON) -> None:
        """Start a run in a thread; a run that is alive already, is left alone."""
        with self._lock:
            if run_id in self._running:
                return
            with self._looking():
                held = self._hold(run_id)
            if held is None:
                return
            workflow = Workflow(self._definition, resources=self._resources, tokens=self._tokens)
            thread = threading.Thread(
                target=self._run, args=(workflow, run_id, request, held), name=run_id, daemon=True
            )
            self._running[run_id] = (workflow, thread)
            thread.start()

    def wait(self, run_id: str) -> Execution:
        """Block until the run ends, and take its execution; interruptible from the keyboard."""
        with self._lock:
            found = self._running.get(run_id)
        if found:
            while found[1].is_alive():
                found[1].join(0.2)
        with self._lock:
            if run_id not in self._ended:
                raise NotFound(f"no run '{run_id}' has run here")
            return self._ended.pop(run_id)

    def stop(self, run_id: str, reason: str) -> None:  # noqa: ARG002 - Step Functions keeps it
        with self._lock:
            found = self._running.get(run_id)
        if found:
            found[0].stop()

    def running(self, run_id: str) -> bool:
        with self._lock:
            return run_id in self._running or self._held_elsewhere(run_id)

    def end_of(self, run_id: str) -> str:
        """The status of a run that ended in this process, with its error and cause."""
        with self._lock:
            ended = self._ended.get(run_id)
        told = [ended.status, ended.error, ended.cause] if ended else []
        return ": ".join(part for part in told if part)

    def running_elsewhere(self, run_id: str) -> bool:
        """Whether another process of this state folder executes the run."""
        with self._lock:
            return run_id not in self._running and self._held_elsewhere(run_id)

    def succeed(self, token: str, output: JSON) -> None:
        try:
            self._tokens.send_task_success(token, output)
        except (TaskDoesNotExist, TaskTimedOut) as error:
            raise NotFound(str(error)) from error

    def fail(self, token: str, error: str, cause: str) -> None:
        try:
            self._tokens.send_task_failure(token, error, cause)
        except (TaskDoesNotExist, TaskTimedOut) as gone:
            raise NotFound(str(gone)) from gone

    def _run(self, workflow: Workflow, run_id: str, request: JSON, held: IO[str]) -> None:
        listener = self._listener
        told = None if listener is None else (lambda event: listener(run_id, event))
        try:
            execution = workflow.run(request, name=run_id, listener=told)
        except Exception as error:  # noqa: BLE001 - the edge of the thread: whoever waits is told
            execution = Execution("FAILED", error=type(error).__name__, cause=str(error))
        with self._lock:
            self._ended[run_id] = execution
            while len(self._ended) > _ENDED_KEPT:  # a server waits for none of them
                del self._ended[next(iter(self._ended))]
            del self._running[run_id]
            with self._looking(), held:
                (self._locks / run_id).unlink(missing_ok=True)

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """One process at a time: to look at a run's lock is to take it for a moment, which must
        not pass for a run, and nobody may hold the lock of a file that is gone."""
        self._locks.mkdir(parents=True, exist_ok=True)
        with (self._locks / "looking").open("w") as one:
            fcntl.flock(one, fcntl.LOCK_EX)
            yield

    def _hold(self, run_id: str) -> IO[str] | None:
        """Take the run's lock file, None when another process has it; a death lets go of it."""
        held = (self._locks / run_id).open("w")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.close()
            return None
        return held

    def _held_elsewhere(self, run_id: str) -> bool:
        with self._looking():
            if not (self._locks / run_id).exists():
                return False
            held = self._hold(run_id)
            if held is None:
                return True
            held.close()
            return False


class _Machine:
    """What this machine provides to a workflow: functions in process, jobs as processes."""

    def __init__(self, store: ObjectStore, home: Path) -> None:
        self._store = store
        self._home = home

    def invoke(self, function_name: str, payload: Any) -> Any:
        module = importlib.import_module(f"functions.{function_name}")
        return module.handler(payload, None)

    def submit_job(self, arguments: Any, *, cancel: threading.Event) -> Any:
        size = arguments.get("ArrayProperties", {}).get("Size", 1)
        for index in range(size):
            self._run_job(arguments["ContainerOverrides"]["Command"], index, cancel)
        return {"JobName": arguments["JobName"], "Status": "SUCCEEDED"}

    def read_object(self, bucket: str, key: str) -> Iterator[bytes]:
        with self._store.path(keys.join_uri(bucket, key)).open("rb") as lines:
            yield from lines

    def write_object(self, bucket: str, key: str, data: bytes) -> None:
        self._store.write(keys.join_uri(bucket, key), data, content_type="application/json")

    def _run_job(self, command: Iterable[str], index: int, cancel: threading.Event) -> None:
        environment = {
            **os.environ,
            "IMAGECLUST_HOME": str(self._home),
            "AWS_BATCH_JOB_ARRAY_INDEX": str(index),
        }
        process = subprocess.Popen(  # noqa: S603 - our own module, arguments from the workflow
            [sys.executable, "-m", "local.batch", *command],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while True:
            try:
                _, complaint = process.communicate(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                if cancel.is_set():
                    process.send_signal(signal.SIGTERM)
                    try:
                        process.wait(_SHUTDOWN_SECONDS)
                    except subprocess.TimeoutExpired:
                        process.kill()
        if process.returncode:
            last = complaint.strip().splitlines()[-1:] or ["no message"]
            raise Permanent(f"the embedding job ended with code {process.returncode}: {last[0]}")


def workflow_file() -> Path:
    """The workflow file: the one that the stack deploys."""
    return Path(statemachine.__path__[0]) / "cluster_images.asl.json"


def functions_of_workflow() -> dict[str, str]:
    """The module of ``functions`` for each placeholder: ``PlanRunFunctionArn`` → ``plan_run``."""
    named = re.findall(r"\$\{((\w+)FunctionArn)\}", workflow_file().read_text("utf-8"))
    return {whole: re.sub(r"(?<=.)([A-Z])", r"_\1", name).lower() for whole, name in named}
