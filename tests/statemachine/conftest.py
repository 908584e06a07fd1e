"""A machine for the workflow runner's tests: functions are Python callables, objects are bytes."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from local.runner import Event, Execution, Workflow

Handler = Callable[[Any], Any]


class Machine:
    """Resources of a test; ``functions`` by name, ``objects`` by ``bucket/key``."""

    def __init__(self) -> None:
        self.functions: dict[str, Handler] = {"echo": lambda payload: payload}
        self.objects: dict[str, bytes] = {}
        self.calls: list[tuple[str, Any]] = []
        self.job: Callable[[Any, threading.Event], Any] = lambda arguments, cancel: arguments

    def invoke(self, function_name: str, payload: Any) -> Any:
        self.calls.append((function_name, payload))
        return self.functions[function_name](payload)

    def submit_job(self, arguments: Any, *, cancel: threading.Event) -> Any:
        return self.job(arguments, cancel)

    def read_object(self, bucket: str, key: str) -> Iterator[bytes]:
        yield from self.objects[f"{bucket}/{key}"].splitlines(keepends=True)

    def write_object(self, bucket: str, key: str, data: bytes) -> None:
        self.objects[f"{bucket}/{key}"] = data


class Runner:
    """Runs small workflows without waiting and keeps what happened."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.sleeps: list[float] = []
        self.events: list[Event] = []

    def workflow(
        self, states: dict[str, Any], *, start: str | None = None, **options: Any
    ) -> Workflow:
        top = {"QueryLanguage": "JSONata", "StartAt": start or next(iter(states))}
        if timeout := options.pop("timeout", None):
            top["TimeoutSeconds"] = timeout
        options.setdefault("sleep", self.sleeps.append)
        options.setdefault("concurrency", 4)
        return Workflow({**top, "States": states}, resources=self.machine, **options)

    def run(self, states: dict[str, Any], value: Any = None, **options: Any) -> Execution:
        return self.workflow(states, **options).run(value, name="x", listener=self.events.append)

    def kinds(self, state: str) -> list[str]:
        return [event.kind for event in self.events if event.state == state]

    @staticmethod
    def call(function: str = "echo", payload: Any = "{% $states.input %}", **fields: Any) -> Any:
        """A Task state that calls a function; it ends unless ``Next`` is given."""
        state = {
            "Type": "Task",
            "Resource": "arn:aws:states:::lambda:invoke",
            "Arguments": {"FunctionName": function, "Payload": payload},
            "Output": "{% $states.result.Payload %}",
            **fields,
        }
        return state if "Next" in state else {**state, "End": True}

    @staticmethod
    def distributed(states: dict[str, Any], **fields: Any) -> Any:
        """A distributed Map over ``s3://data/items.jsonl``; results go to ``s3://data/out/``."""
        return {
            "Type": "Map",
            "ItemReader": {
                "Resource": "arn:aws:states:::s3:getObject",
                "ReaderConfig": {"InputType": "JSONL"},
                "Arguments": {"Bucket": "data", "Key": "items.jsonl"},
            },
            "ItemProcessor": {
                "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                "StartAt": next(iter(states)),
                "States": states,
            },
            "ResultWriter": {
                "Resource": "arn:aws:states:::s3:putObject",
                "Arguments": {"Bucket": "data", "Prefix": "out"},
            },
            "End": True,
            **fields,
        }

    def put_items(self, items: list[Any]) -> None:
        text = "".join(json.dumps(item) + "\n" for item in items)
        self.machine.objects["data/items.jsonl"] = text.encode()

    def results(self, execution: Execution) -> dict[str, list[Any]]:
        """The records that a ResultWriter left, by status, through its manifest."""
        assert isinstance(execution.output, dict)
        details: Any = execution.output["ResultWriterDetails"]
        manifest = json.loads(self.machine.objects[f"{details['Bucket']}/{details['Key']}"])
        return self.result_files(manifest)

    def result_files(self, manifest: Any) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for status, files in manifest["ResultFiles"].items():
            found[status] = []
            for file in files:
                data = self.machine.objects[f"{manifest['DestinationBucket']}/{file['Key']}"]
                assert len(data) == file["Size"]
                found[status] += json.loads(data)
        return found


@pytest.fixture
def runner() -> Runner:
    return Runner()
