"""What the local workflow runner costs, against the same calls without it.

The peer is a plain ``ThreadPoolExecutor`` over the same no-op handler and the same batches, with
the JSON round trip that any process boundary has. Other local engines cannot run this file: moto
5.2.5 knows neither ``ItemBatcher`` nor JSONL nor JSONata.

Run: ``python benchmarks/runner.py [--items 1000 10000] [--repeat 3]``
"""

import argparse
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from local.runner import Workflow

THREADS = 2
ITEM = {"key": "a" * 64, "path": "photos/family/2024/picture-000001.jpg", "size": 123456}


class NoOp:
    """A store that makes its items up and a function that does nothing."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.calls = 0

    def invoke(self, _name: str, payload: Any) -> Any:
        return {"n": len(payload["Items"])}

    def submit_job(self, arguments: Any, *, cancel: Any) -> Any:
        return arguments

    def read_object(self, _bucket: str, _key: str) -> Iterator[bytes]:
        for number in range(self.count):
            yield json.dumps({**ITEM, "id": number}).encode() + b"\n"

    def write_object(self, _bucket: str, _key: str, _data: bytes) -> None:
        self.calls += 1


def definition(batch: int) -> dict[str, Any]:
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Arguments": {"FunctionName": "noop", "Payload": "{% $states.input %}"},
        "TimeoutSeconds": 240,
        "Retry": [{"ErrorEquals": ["Throttled"], "JitterStrategy": "FULL"}],
        "Output": "{% $states.result.Payload %}",
        "End": True,
    }
    return {
        "QueryLanguage": "JSONata",
        "StartAt": "Map",
        "States": {
            "Map": {
                "Type": "Map",
                "ItemReader": {
                    "Resource": "arn:aws:states:::s3:getObject",
                    "ReaderConfig": {"InputType": "JSONL"},
                    "Arguments": {"Bucket": "data", "Key": "manifest.jsonl"},
                },
                "ItemBatcher": {
                    "MaxItemsPerBatch": batch,
                    "BatchInput": {"run": "{% $states.input.run %}"},
                },
                "ItemProcessor": {
                    "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                    "StartAt": "Task",
                    "States": {"Task": task},
                },
                "ResultWriter": {
                    "Resource": "arn:aws:states:::s3:putObject",
                    "Arguments": {"Bucket": "data", "Prefix": "results"},
                },
                "End": True,
            }
        },
    }


def with_runner(count: int, batch: int) -> None:
    workflow = Workflow(definition(batch), resources=NoOp(count), concurrency=THREADS)
    execution = workflow.run({"run": "r"}, name="benchmark")
    if execution.status != "SUCCEEDED":
        raise RuntimeError(f"{execution.error}: {execution.cause}")


def without_runner(count: int, batch: int) -> None:
    store = NoOp(count)
    items = (json.loads(line) for line in store.read_object("", ""))

    def call(group: list[Any]) -> str:
        payload = json.loads(json.dumps({"BatchInput": {"run": "r"}, "Items": group}))
        return json.dumps(store.invoke("noop", payload))

    with ThreadPoolExecutor(THREADS) as pool:
        groups = iter(lambda: list(islice(items, batch)), [])
        results = list(pool.map(call, groups))
    store.write_object("", "", json.dumps(results).encode())


def seconds(work: Callable[[int, int], None], count: int, batch: int, repeat: int) -> float:
    found = []
    for _ in range(repeat):
        started = time.perf_counter()
        work(count, batch)
        found.append(time.perf_counter() - started)
    return min(found)


def peak_mib(count: int, batch: int) -> float:
    tracemalloc.start()
    with_runner(count, batch)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 1])
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    print("items   batch  children   runner s   pool s   ratio   ms a child   peak MiB")
    for count in options.items:
        for batch in options.batch:
            ours = seconds(with_runner, count, batch, options.repeat)
            peer = seconds(without_runner, count, batch, options.repeat)
            children = -(-count // batch)
            print(
                f"{count:<7} {batch:<6} {children:<9} {ours:9.3f} {peer:8.3f} {ours / peer:7.1f} "
                f"{1000 * (ours - peer) / children:12.2f} {peak_mib(count, batch):10.1f}"
            )


if __name__ == "__main__":
    main()
