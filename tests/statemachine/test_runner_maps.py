"""The distributed Map: reader, batcher, tolerated failures, result files, memory."""

import json
import threading
import tracemalloc
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.runner import items as items_module
from tests.conftest import PATIENCE


def batched(size, **more):
    return {"ItemBatcher": {"MaxItemsPerBatch": size, **more}}


def test_batches_reach_the_children_and_the_results_reach_the_files(runner):
    runner.put_items([{"i": i} for i in range(10)])
    execution = runner.run(
        {
            "A": {"Type": "Pass", "Assign": {"run": "r1"}, "Next": "M"},
            "M": runner.distributed(
                {"T": runner.call()}, **batched(4, BatchInput={"run": "{% $run %}"})
            ),
        }
    )
    results = runner.results(execution)
    assert results["FAILED"] == results["PENDING"] == []
    outputs = sorted((json.loads(r["Output"]) for r in results["SUCCEEDED"]), key=str)
    assert [len(o["Items"]) for o in outputs] == [4, 4, 2]
    assert [i["i"] for o in outputs for i in o["Items"]] == list(range(10))
    assert {o["BatchInput"]["run"] for o in outputs} == {"r1"}
    for record in results["SUCCEEDED"]:
        assert json.loads(record["Input"]) == json.loads(record["Output"])
        assert record["Status"] == "SUCCEEDED"
        assert record["ExecutionArn"].endswith(record["Name"])
        assert set(record) == {
            "ExecutionArn",
            "Input",
            "InputDetails",
            "Name",
            "Output",
            "OutputDetails",
            "RedriveCount",
            "RedriveStatus",
            "StartDate",
            "StateMachineArn",
            "Status",
            "StopDate",
        }


def test_the_state_result_is_the_map_run_and_the_manifest(runner):
    runner.put_items([1])
    output = runner.run({"Embed it": runner.distributed({"T": runner.call()})}).output
    arn, details = output["MapRunArn"], output["ResultWriterDetails"]
    run_id = arn.rsplit(":", 1)[1]
    assert set(output) == {"MapRunArn", "ResultWriterDetails"}
    assert arn == f"arn:aws:states:local:000000000000:mapRun:workflow/Embedit:{run_id}"
    assert details == {"Bucket": "data", "Key": f"out/{run_id}/manifest.json"}
    manifest = json.loads(runner.machine.objects[f"data/out/{run_id}/manifest.json"])
    assert manifest["DestinationBucket"] == "data"
    assert manifest["MapRunArn"] == arn
    assert manifest["ResultFiles"]["SUCCEEDED"][0]["Key"] == f"out/{run_id}/SUCCEEDED_0.json"


def test_a_repeated_run_of_the_same_name_writes_over_its_files(runner):
    runner.put_items([1, 2])
    states = {"M": runner.distributed({"T": runner.call()})}
    runner.run(states)
    before = set(runner.machine.objects)
    runner.run(states)
    assert set(runner.machine.objects) == before


def test_results_are_written_in_chunks(runner, monkeypatch):
    monkeypatch.setattr(items_module, "CHUNK_BYTES", 2_000)
    runner.put_items(list(range(50)))
    execution = runner.run({"M": runner.distributed({"T": runner.call()})})
    assert len(runner.results(execution)["SUCCEEDED"]) == 50
    assert sum("SUCCEEDED_" in key for key in runner.machine.objects) > 5


def test_without_a_writer_the_outputs_come_back_in_order(runner):
    runner.put_items([3, 1, 2])
    state = runner.distributed({"T": runner.call()})
    del state["ResultWriter"]
    assert runner.run({"M": state}).output == [3, 1, 2]


def test_without_a_writer_too_much_output_is_refused(runner):
    runner.machine.functions["big"] = lambda _: "x" * 100_000
    runner.put_items([1, 2, 3])
    state = runner.distributed({"T": runner.call("big")})
    del state["ResultWriter"]
    assert runner.run({"M": state}).error == "States.DataLimitExceeded"


def test_items_may_come_from_the_state(runner):
    state = runner.distributed(
        {"T": runner.call()},
        Items="{% [1..5] %}",
        ItemSelector={
            "v": "{% $states.context.Map.Item.Value * $k %}",
            "i": "{% $states.context.Map.Item.Index %}",
        },
    )
    del state["ItemReader"], state["ResultWriter"]
    start = {"Type": "Pass", "Assign": {"k": 10}, "Next": "M"}
    assert runner.run({"A": start, "M": state}).output == [
        {"v": 10 * (i + 1), "i": i} for i in range(5)
    ]


def test_blank_lines_and_no_items_at_all(runner):
    state = runner.distributed({"T": runner.call()})
    runner.machine.objects["data/items.jsonl"] = b'\n{"a":1}\n\n  \n2'
    execution = runner.run({"M": state})
    assert len(runner.results(execution)["SUCCEEDED"]) == 2
    runner.machine.objects["data/items.jsonl"] = b""
    execution = runner.run({"M": state})
    assert runner.results(execution) == {"FAILED": [], "PENDING": [], "SUCCEEDED": []}


@pytest.mark.parametrize("content", [None, b'{"a":1}\n{"a":', b"\xff\xfe\n"])
def test_items_that_cannot_be_read(runner, content):
    if content is not None:
        runner.machine.objects["data/items.jsonl"] = content
    state = runner.distributed(
        {"T": runner.call()}, Catch=[{"ErrorEquals": ["States.ALL"], "Next": "Z"}]
    )
    del state["End"]
    states = {"M": {**state, "Next": "Z"}, "Z": {"Type": "Pass", "End": True}}
    output = runner.run(states).output
    assert output["Error"] == "States.ItemReaderFailed"
    assert "s3://data/items.jsonl" in output["Cause"]


def test_results_that_cannot_be_written(runner):
    def full(_bucket, _key, _data):
        raise OSError("disk full")

    runner.machine.write_object = full
    runner.put_items([1])
    execution = runner.run({"M": runner.distributed({"T": runner.call()})})
    assert execution.error == "States.ResultWriterFailed"
    assert "disk full" in execution.cause


def odd_fails(payload):
    if payload % 2:
        raise ValueError("odd")
    return payload


@pytest.mark.parametrize(
    ("fields", "succeeds"),
    [
        ({}, False),
        ({"ToleratedFailureCount": 5}, True),
        ({"ToleratedFailureCount": 4}, False),
        ({"ToleratedFailurePercentage": 50}, True),
        ({"ToleratedFailurePercentage": 49}, False),
        ({"ToleratedFailurePercentage": 100, "ToleratedFailureCount": 4}, False),
        ({"ToleratedFailurePercentage": 49, "ToleratedFailureCount": 5}, False),
        ({"ToleratedFailureCount": "{% $states.input.n %}"}, True),
        ({"ToleratedFailurePercentage": 0}, False),
        ({"ToleratedFailurePercentage": 49.5}, False),
    ],
)
def test_tolerated_failures(runner, fields, succeeds):
    runner.machine.functions["odd"] = odd_fails
    runner.put_items(list(range(10)))
    states = {"M": runner.distributed({"T": runner.call("odd")}, **fields)}
    execution = runner.run(states, {"n": 5})
    if not succeeds:
        assert execution.error == "States.ExceedToleratedFailureThreshold"
        assert "ValueError" in execution.cause
        return
    results = runner.results(execution)
    assert sorted(json.loads(r["Output"]) for r in results["SUCCEEDED"]) == [0, 2, 4, 6, 8]
    assert sorted(json.loads(r["Input"]) for r in results["FAILED"]) == [1, 3, 5, 7, 9]
    for record in results["FAILED"]:
        assert (record["Status"], record["Error"]) == ("FAILED", "ValueError")
        assert json.loads(record["Cause"])["errorMessage"] == "odd"
        assert "Output" not in record
    done = [e for e in runner.events if e.kind == "progress"][-1]
    assert (done.done, done.failed, done.total) == (10, 5, 10)


def test_all_items_of_a_failed_batch_count_as_failed(runner):
    def one_bad(batch):
        if 0 in batch["Items"]:
            raise ValueError

    runner.machine.functions["f"] = one_bad
    runner.put_items(list(range(20)))
    for percentage, status in ((25, "SUCCEEDED"), (24, "FAILED")):
        state = runner.distributed(
            {"T": runner.call("f", Output=None)},
            ToleratedFailurePercentage=percentage,
            **batched(5),
        )
        assert runner.run({"M": state}).status == status


def test_a_map_that_fails_stops_its_children_and_keeps_what_succeeded(runner):
    never, slow_started = threading.Event(), threading.Event()

    def work(item):
        if item == "good":
            return "ok"
        if item == "slow":
            slow_started.set()
            never.wait(PATIENCE)
        slow_started.wait(PATIENCE)
        raise ValueError(item)

    runner.machine.functions["work"] = work
    runner.put_items(["good", "slow", "bad", *["never"] * 50])
    execution = runner.run({"M": runner.distributed({"T": runner.call("work")})}, concurrency=2)
    never.set()
    assert execution.error == "States.ExceedToleratedFailureThreshold"
    assert len(runner.machine.calls) <= 4
    (key,) = [key for key in runner.machine.objects if key.endswith("manifest.json")]
    results = runner.result_files(json.loads(runner.machine.objects[key]))
    assert [json.loads(r["Output"]) for r in results["SUCCEEDED"]] == ["ok"]
    assert [r["Error"] for r in results["FAILED"]] == ["ValueError"]


def test_children_retry_on_their_own(runner):
    failed = set()

    def once(item):
        if item not in failed:
            failed.add(item)
            raise TimeoutError
        return item

    runner.machine.functions["once"] = once
    runner.put_items([1, 2, 3])
    retry = [{"ErrorEquals": ["TimeoutError"], "IntervalSeconds": 1, "MaxAttempts": 1}]
    execution = runner.run({"M": runner.distributed({"T": runner.call("once", Retry=retry)})})
    assert len(runner.results(execution)["SUCCEEDED"]) == 3
    assert runner.sleeps == [1, 1, 1]


def test_children_are_executions_that_see_no_outer_variables(runner):
    runner.put_items([1])
    child = {
        "Type": "Pass",
        "Output": {
            "outer": "{% $exists($outer) %}",
            "name": "{% $states.context.Execution.Name %}",
            "input": "{% $states.context.Execution.Input %}",
            "item": "{% $exists($states.context.Map) %}",
        },
        "End": True,
    }
    state = runner.distributed({"T": child})
    del state["ResultWriter"]
    start = {"Type": "Pass", "Assign": {"outer": 1}, "Next": "M"}
    (seen,) = runner.run({"A": start, "M": state}).output
    assert seen.pop("name") != "x"
    assert seen == {"outer": False, "input": 1, "item": False}


def test_large_items_make_smaller_batches(runner):
    runner.machine.functions["count"] = lambda batch: len(batch["Items"])
    runner.put_items(["x" * 100_000] * 5)
    state = runner.distributed({"T": runner.call("count")}, **batched(64))
    del state["ResultWriter"]
    assert runner.run({"M": state}).output == [2, 2, 1]


def test_an_item_over_the_limit_fails_alone(runner):
    runner.put_items([1, "x" * 300_000])
    state = runner.distributed({"T": runner.call()}, ToleratedFailureCount=1)
    results = runner.results(runner.run({"M": state}))
    assert [json.loads(r["Output"]) for r in results["SUCCEEDED"]] == [1]
    assert [r["Error"] for r in results["FAILED"]] == ["States.DataLimitExceeded"]


@given(
    items=st.lists(st.text("xé", max_size=40), max_size=30),
    most_items=st.integers(1, 5),
    most_bytes=st.integers(60, 200),
)
def test_batches_lose_nothing_and_keep_their_limits(items, most_items, most_bytes):
    with mock.patch.object(items_module, "PAYLOAD_LIMIT", most_bytes):
        batches = items_module.batches(items, most_items=most_items, batch_input=({"r": 1},))
        found = list(batches)
    assert [item for batch in found for item in batch.input["Items"]] == items
    assert [batch.index for batch in found] == list(range(len(found)))
    for batch in found:
        assert 1 <= batch.items == len(batch.input["Items"]) <= most_items
        text = json.dumps(batch.input, ensure_ascii=False, separators=(",", ":"))
        assert batch.items == 1 or len(text.encode()) <= most_bytes


@pytest.mark.parametrize("size", ["{% 2.5 %}", "{% 0 %}", "{% 'two' %}"])
def test_numbers_from_expressions_are_checked(runner, size):
    runner.put_items([1])
    state = runner.distributed({"T": runner.call()}, **batched(size))
    execution = runner.run({"M": state})
    assert execution.error == "States.QueryEvaluationError"
    assert "MaxItemsPerBatch" in execution.cause


def test_the_exact_batch_limit(monkeypatch):
    monkeypatch.setattr(items_module, "PAYLOAD_LIMIT", len('{"Items":[]}') + 201)
    item = "x" * 98  # 100 bytes with its quotes
    found = items_module.batches([item] * 5, most_items=9, batch_input=None)
    assert [batch.items for batch in found] == [2, 2, 1]


def test_ten_thousand_items_take_no_more_memory_than_a_thousand(runner):
    class Store:
        """Reads items that it makes up and forgets what it is given."""

        def __init__(self, count):
            self.count = count
            self.written = 0

        def invoke(self, _name, payload):
            return {"n": len(payload["Items"])}

        def read_object(self, _bucket, _key):
            for number in range(self.count):
                yield json.dumps({"id": number, "path": "p" * 500}).encode() + b"\n"

        def write_object(self, _bucket, _key, data):
            self.written += len(data)

    def peak(count):
        store = Store(count)
        runner.machine = store
        workflow = runner.workflow(
            {"M": runner.distributed({"T": runner.call()}, **batched(16))}, concurrency=2
        )
        tracemalloc.start()
        try:
            assert workflow.run(None, name="x").status == "SUCCEEDED"
            return tracemalloc.get_traced_memory()[1], store.written
        finally:
            tracemalloc.stop()

    peak(10)  # compiles and imports
    small, _ = peak(1_000)
    chunk, items_module.CHUNK_BYTES = items_module.CHUNK_BYTES, 200_000
    try:
        small, _ = peak(1_000)
        large, written = peak(10_000)
    finally:
        items_module.CHUNK_BYTES = chunk
    assert written > 5_000_000
    assert large < small + 300_000
