"""The workflow file against its contract examples: every state gets and gives what they say."""

import copy
import json
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from imageclust import errors

from local.runner import StateError, TokenBroker, Workflow, load_definition
from local.workflows import functions_of_workflow, workflow_file

CONTRACTS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((workflow_file().parent / "contracts").glob("*.json"))
}
REQUEST = CONTRACTS["PlanRun"]["input"]


def definition() -> dict[str, Any]:
    names = set(re.findall(r"\$\{(\w+)\}", workflow_file().read_text()))
    substitutions = {name: "${" + name + "}" for name in names}
    substitutions |= {**functions_of_workflow(), "DataBucket": "data"}
    return load_definition(workflow_file(), substitutions)


def task_states(node: Any) -> Iterable[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        for name, state in node.get("States", {}).items():
            if state["Type"] == "Task":
                yield name, state
        for value in node.values():
            yield from task_states(value)
    elif isinstance(node, list):
        for value in node:
            yield from task_states(value)


class Contracted:
    """Answers every call with the contract's output after comparing what it was given."""

    def __init__(self, **overrides: Any) -> None:
        self.contracts = copy.deepcopy(CONTRACTS)
        self.contracts.update(overrides)
        self.called: list[str] = []
        self.written: dict[str, bytes] = {}
        self.tokens = TokenBroker()
        self._lock = threading.Lock()

    def invoke(self, function_name: str, payload: Any) -> Any:
        named = [n for n, c in self.contracts.items() if c.get("function") == function_name]
        # Several states call one function; an input tells which of them this is.
        fits = [n for n in named if payload == self.contracts[n]["input"]]
        state = (fits or named)[0]
        with self._lock:
            self.called.append(state)
        contract = self.contracts[state]
        if isinstance(contract, BaseException):
            raise contract
        if "raises" in contract:
            raise contract["raises"]
        assert without_times(payload) == without_times(contract["input"]), state
        if state == "DescribeInBatch":
            self.tokens.send_task_success(payload["token"], {"jobs": contract["output"]["jobs"]})
        return contract["output"]

    def submit_job(self, arguments: Any, *, cancel: threading.Event) -> Any:
        self.called.append("EmbedOnGpu")
        assert arguments == self.contracts["EmbedOnGpu"]["input"]
        return self.contracts["EmbedOnGpu"]["output"]

    def read_object(self, bucket: str, key: str) -> Iterable[bytes]:
        items = self.contracts["Embed"]["input"]["Items"]
        assert bucket == "data"
        assert key in {f"manifests/{REQUEST['run_id']}/{step}.jsonl" for step in ("embed", "label")}
        return [json.dumps(item).encode() + b"\n" for item in items]

    def write_object(self, bucket: str, key: str, data: bytes) -> None:
        self.written[key] = data


def without_times(payload: Any) -> Any:
    """Seconds and task tokens differ from run to run; their names must not."""
    if not isinstance(payload, dict):
        return payload
    kept = dict(payload)
    if "seconds" in kept:
        assert all(isinstance(value, int | float) for value in kept["seconds"].values())
        kept["seconds"] = sorted(kept["seconds"])
    if "token" in kept:
        assert kept["token"]
        kept["token"] = "…"
    return kept


def run(machine: Contracted) -> Any:
    workflow = Workflow(
        definition(), resources=machine, tokens=machine.tokens, sleep=lambda seconds: None
    )
    return workflow.run(REQUEST, name=REQUEST["run_id"])


def with_plan(**changes: Any) -> dict[str, Any]:
    """Contracts in which PlanRun planned otherwise; what follows is told the same plan."""
    plan = copy.deepcopy(CONTRACTS["PlanRun"]["output"])
    for name, value in changes.items():
        plan[name] = {**plan[name], **value}
    changed = {"PlanRun": {**CONTRACTS["PlanRun"], "output": plan}}
    for state in ("ClusterImages", "DescribeClusters", "PublishRun"):
        contract = copy.deepcopy(CONTRACTS[state])
        contract["input"]["plan"] = plan
        changed[state] = contract
    return changed


def test_every_task_state_has_a_contract_and_every_contract_a_state() -> None:
    states = dict(task_states(definition()))
    assert set(states) == set(CONTRACTS)


def test_contract_examples_stay_small() -> None:
    for name, contract in CONTRACTS.items():
        assert len(json.dumps(contract["input"])) < 8_000, name
        assert len(json.dumps(contract["output"])) < 8_000, name


def test_the_usual_path() -> None:
    machine = Contracted()
    execution = run(machine)
    assert execution.status == "SUCCEEDED", execution.cause
    assert execution.output == CONTRACTS["PublishRun"]["output"]
    assert sorted(machine.called[1:3]) == ["Embed", "Label"]
    assert [machine.called[0], *machine.called[3:]] == [
        "PlanRun", "ClusterImages", "DrawMap", "DescribeClusters", "PublishRun",
    ]  # fmt: skip
    manifests = [key for key in machine.written if key.endswith("manifest.json")]
    assert sorted(key.split("/")[2] for key in manifests) == ["Embed", "Label"]


def test_nothing_to_embed_or_label_goes_straight_to_clustering() -> None:
    machine = Contracted(**with_plan(embed={"placement": "none"}, label={"placement": "none"}))
    assert run(machine).status == "SUCCEEDED"
    assert machine.called == [
        "PlanRun", "ClusterImages", "DrawMap", "DescribeClusters", "PublishRun",
    ]  # fmt: skip


def test_many_images_are_embedded_on_the_gpu_queue() -> None:
    machine = Contracted(**with_plan(embed={"placement": "gpu", "jobs": 2}))
    assert run(machine).status == "SUCCEEDED"
    assert "EmbedOnGpu" in machine.called
    assert "Embed" not in machine.called


def test_one_gpu_job_is_not_an_array() -> None:
    contract = copy.deepcopy(CONTRACTS["EmbedOnGpu"])
    contract["input"]["ArrayProperties"] = {}
    contract["input"]["ContainerOverrides"]["Command"][-1] = "1"
    machine = Contracted(EmbedOnGpu=contract, **with_plan(embed={"placement": "gpu", "jobs": 1}))
    assert run(machine).status == "SUCCEEDED"


class Jobs(Contracted):
    """Runs whose plan chose batch inference; ``ending`` answers the token of EmbedInBatch."""

    def __init__(self, ending: str = "succeed") -> None:
        parts = CONTRACTS["EmbedInBatch"]["input"]["parts"]
        model = CONTRACTS["EmbedInBatch"]["input"]["model"]
        changed = with_plan(
            embed={"placement": "bedrock_batch", "jobs": 1, "parts": parts, "model": model}
        )
        embed = copy.deepcopy(CONTRACTS["Embed"])
        embed["input"]["BatchInput"] |= {"parts": parts, "model": model}
        super().__init__(Embed=embed, **changed)
        self.ending = ending

    def invoke(self, function_name: str, payload: Any) -> Any:
        answer = super().invoke(function_name, payload)
        if function_name == "embed_in_batch" and self.ending == "succeed":
            self.tokens.send_task_success(payload["token"], {"jobs": {"embed-1": "done"}})
        elif function_name == "embed_in_batch" and self.ending == "fail":
            self.tokens.send_task_failure(payload["token"], "BatchJobFailed", "Expired")
        elif function_name == "embed_in_batch":
            raise errors.InvalidInput("too few records")
        return answer


@pytest.mark.parametrize("ending", ["succeed", "fail", "raise"])
def test_batch_inference_prepares_waits_and_then_embeds_whatever_came_of_it(ending: str) -> None:
    machine = Jobs(ending)
    execution = run(machine)
    assert execution.status == "SUCCEEDED", execution.cause
    embedding = [n for n in machine.called if n in ("Prepare", "EmbedInBatch", "Embed")]
    assert embedding == ["Prepare", "EmbedInBatch", "Embed"]
    manifests = [key for key in machine.written if key.endswith("manifest.json")]
    assert sorted(key.split("/")[2] for key in manifests) == ["Embed", "Label", "Prepare"]


def test_a_batch_that_cannot_be_prepared_is_left_for_later() -> None:
    class Crashing(Jobs):
        def invoke(self, function_name: str, payload: Any) -> Any:
            if payload.get("BatchInput", {}).get("prepare"):
                self.called.append("Prepare")
                raise StateError("Runtime.ExitError", "signal: killed")
            return super().invoke(function_name, payload)

    machine = Crashing()
    assert run(machine).status == "SUCCEEDED"
    assert machine.called.count("Prepare") == 1
    assert machine.called.count("Embed") == 1
    (left,) = [
        json.loads(data)
        for key, data in machine.written.items()
        if "/Prepare/" in key and "SUCCEEDED" in key
    ]
    assert json.loads(left[0]["Output"])["error"] == "Runtime.ExitError"


def test_a_large_collection_is_planned_in_turns() -> None:
    class Turns(Contracted):
        def invoke(self, function_name: str, payload: Any) -> Any:
            answer = super().invoke(function_name, payload)
            if function_name == "plan_run" and self.called.count("PlanRun") < 3:
                return {"complete": False, "images": {"seen": 2_000}}
            return answer

    machine = Turns()
    assert run(machine).status == "SUCCEEDED"
    assert machine.called.count("PlanRun") == 3


def test_a_long_search_takes_turns() -> None:
    class Turns(Contracted):
        def invoke(self, function_name: str, payload: Any) -> Any:
            answer = super().invoke(function_name, payload)
            if function_name == "cluster" and self.called.count("ClusterImages") < 3:
                return {"complete": False, "tried": 40, "of": 212}
            return answer

    machine = Turns()
    assert run(machine).status == "SUCCEEDED"
    assert machine.called.count("ClusterImages") == 3


def batch_contracts() -> dict[str, Any]:
    clusters = {
        **CONTRACTS["ClusterImages"],
        "output": CONTRACTS["DescribeInBatch"]["input"]["clusters"],
    }
    publish = copy.deepcopy(CONTRACTS["PublishRun"])
    publish["input"]["clusters"] = clusters["output"]
    publish["input"]["seconds"]["DescribeInBatch"] = 1
    describe = copy.deepcopy(CONTRACTS["DescribeClusters"])
    describe["input"]["clusters"] = clusters["output"]
    drawn = copy.deepcopy(CONTRACTS["DrawMap"])
    drawn["input"]["clusters"] = clusters["output"]
    return {
        "ClusterImages": clusters,
        "DrawMap": drawn,
        "DescribeClusters": describe,
        "PublishRun": publish,
    }


def test_without_a_map_the_run_goes_on() -> None:
    publish = copy.deepcopy(CONTRACTS["PublishRun"])
    publish["input"]["map"] = {"method": "pca", "why": "Runtime.OutOfMemory"}
    del publish["input"]["seconds"]["DrawMap"]
    failing = {
        **CONTRACTS["DrawMap"],
        "raises": StateError("Runtime.OutOfMemory", "signal: killed"),
    }
    machine = Contracted(DrawMap=failing, PublishRun=publish)
    execution = run(machine)
    assert execution.status == "SUCCEEDED", execution.cause
    assert machine.called[-3:] == ["DrawMap", "DescribeClusters", "PublishRun"]


def test_publishing_takes_as_many_turns_as_it_needs() -> None:
    class InTurns(Contracted):
        turns: ClassVar[list[Any]] = []

        def invoke(self, function_name: str, payload: Any) -> Any:
            if function_name != "publish":
                return super().invoke(function_name, payload)
            assert ("PublishRun" in payload["seconds"]) is bool(self.turns)
            self.turns.append(payload["written"])
            if len(self.turns) == 3:
                return CONTRACTS["PublishRun"]["output"]
            return {"complete": False, "written": {"items": 10_000 * len(self.turns)}}

    machine = InTurns()
    execution = run(machine)
    assert execution.status == "SUCCEEDED", execution.cause
    assert machine.turns == [{}, {"items": 10_000}, {"items": 20_000}]
    assert execution.output == CONTRACTS["PublishRun"]["output"]


def test_many_clusters_are_described_in_batch() -> None:
    machine = Contracted(**batch_contracts())
    execution = run(machine)
    assert execution.status == "SUCCEEDED", execution.cause
    assert machine.called[-3:] == ["DescribeInBatch", "DescribeClusters", "PublishRun"]


def test_a_batch_job_that_fails_falls_back_to_on_demand() -> None:
    class Expired(Contracted):
        def invoke(self, function_name: str, payload: Any) -> Any:
            if function_name == "describe_in_batch":
                self.called.append("DescribeInBatch")
                self.tokens.send_task_failure(payload["token"], "BatchJobFailed", "Expired")
                return {}
            return super().invoke(function_name, payload)

    contracts = batch_contracts()
    contracts["PublishRun"]["input"]["seconds"] = CONTRACTS["PublishRun"]["input"]["seconds"]
    machine = Expired(**contracts)
    execution = run(machine)
    assert execution.status == "SUCCEEDED", execution.cause
    assert machine.called[-3:] == ["DescribeInBatch", "DescribeClusters", "PublishRun"]


def test_a_failure_is_recorded_with_its_state_and_reason() -> None:
    failing = {
        **CONTRACTS["ClusterImages"],
        "raises": errors.InfeasibleBounds("123 images, but 3 clusters of at least 50 need 150"),
    }
    machine = Contracted(ClusterImages=failing)
    execution = run(machine)
    assert execution.status == "FAILED"
    assert execution.error == "InfeasibleBounds"
    assert execution.cause.startswith("ClusterImages: ")
    assert machine.called[-1] == "RecordFailure"


ON_THE_USUAL_PATH = (
    "PlanRun", "Embed", "Label", "ClusterImages", "DescribeClusters", "PublishRun",
)  # fmt: skip


@pytest.mark.parametrize("state", ON_THE_USUAL_PATH)
def test_whatever_state_fails_the_run_ends_in_record_failure(state: str) -> None:
    class Failing(Contracted):
        def invoke(self, function_name: str, payload: Any) -> Any:
            if function_name == self.contracts[state]["function"]:
                raise errors.CorruptData("torn")
            if function_name == "record_failure":
                self.called.append("RecordFailure")
                assert payload["failure"]["state"]
                return {}
            return super().invoke(function_name, payload)

    machine = Failing()
    execution = run(machine)
    assert execution.status == "FAILED"
    recorded = machine.called.index("RecordFailure")
    # The other branch of the Parallel may have been in the middle of a call.
    assert set(machine.called[recorded + 1 :]) <= {"Embed", "Label"} - {state}


CRASHES = {
    "Runtime.ExitError": "Runtime exited with error: signal: segmentation fault",
    "Lambda.Unknown": "Task timed out after 240.00 seconds",
    "Sandbox.Timedout": "Task timed out after 240.00 seconds",
    "MemoryError": "",
}


class Crashing(Contracted):
    """The function dies on the second image, whatever company it has."""

    def __init__(self, error: str, function: str) -> None:
        super().__init__()
        self.error, self.function = error, function
        state = {"embed": "RejectEmbed", "label": "RejectLabel"}[function]
        self.contracts[state]["input"]["failed"] = {"error": error, "cause": CRASHES[error]}

    def invoke(self, function_name: str, payload: Any) -> Any:
        dying = function_name == self.function and "failed" not in payload
        if dying and "kitchen" in payload["Items"][-1]["uri"]:
            with self._lock:
                self.called.append(f"{len(payload['Items'])} died")
            raise StateError(self.error, CRASHES[self.error])
        return super().invoke(function_name, payload)


@pytest.mark.parametrize("function", ["embed", "label"])
@pytest.mark.parametrize("error", CRASHES)
def test_an_image_that_kills_its_function_is_rejected_alone(error: str, function: str) -> None:
    machine = Crashing(error, function)
    execution = run(machine)
    assert execution.status == "SUCCEEDED", execution.cause
    one, gone = (f"{word}{function.capitalize()}" for word in ("", "Reject"))
    assert machine.called.count("2 died") == 1
    assert machine.called.count("1 died") == 2, "tried again once, alone"
    assert machine.called.count(f"{one}One") == 1, "its neighbour comes through"
    assert machine.called.count(gone) == 1
    (results,) = [
        json.loads(data)
        for key, data in machine.written.items()
        if f"/{one}/" in key and "SUCCEEDED" in key
    ]
    assert json.loads(results[0]["Output"]) == {"images": 2}


def test_a_function_that_always_dies_fails_the_run_and_blames_no_image() -> None:
    class Dead(Contracted):
        def invoke(self, function_name: str, payload: Any) -> Any:
            if function_name == "embed":
                raise StateError("Runtime.ExitError", "signal: killed")
            if function_name == "record_failure":
                assert payload["failure"]["state"] == "EmbedAndLabel"
                self.called.append("RecordFailure")
                return {}
            return super().invoke(function_name, payload)

    machine = Dead()
    assert run(machine).status == "FAILED"
    assert machine.called[-1] == "RecordFailure"


@pytest.mark.parametrize("kind", [errors.Throttled, errors.StoreUnavailable])
def test_a_passing_fault_is_retried(kind: type[Exception]) -> None:
    class Busy(Contracted):
        def invoke(self, function_name: str, payload: Any) -> Any:
            if function_name == "embed" and self.called.count("Embed") < 2:
                self.called.append("Embed")
                raise kind("try later")
            return super().invoke(function_name, payload)

    machine = Busy()
    assert run(machine).status == "SUCCEEDED"
    assert machine.called.count("Embed") == 3


def test_retries_name_retryable_errors_and_service_errors_only() -> None:
    ours = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    retryable = {
        name for name, kind in ours.items()
        if issubclass(kind, errors.Retryable) and kind is not errors.Retryable
    }  # fmt: skip
    for state, task in task_states(definition()):
        named = {name for retrier in task.get("Retry", []) for name in retrier["ErrorEquals"]}
        assert named, state
        if "lambda" in task["Resource"]:
            assert retryable <= named, state
        assert not {n for n in named & set(ours) if not issubclass(ours[n], errors.Retryable)}, (
            state
        )
        assert all(r["JitterStrategy"] == "FULL" for r in task["Retry"]), state


def test_a_function_that_finds_no_place_is_tried_for_long() -> None:
    """100 children where an account runs ten functions at once: each waits its turn."""
    for state, task in task_states(definition()):
        if "lambda" in task["Resource"]:
            first = task["Retry"][0]
            assert first["ErrorEquals"] == ["Lambda.TooManyRequestsException"], state
            assert first["MaxAttempts"] * first["MaxDelaySeconds"] >= 3_600, state


def test_every_task_has_a_time_limit_and_every_top_level_task_a_catch() -> None:
    whole = definition()
    for state, task in task_states(whole):
        assert task.get("TimeoutSeconds", 0) > 0, state
    for state, task in whole["States"].items():
        if task["Type"] in ("Task", "Parallel") and state != "RecordFailure":
            assert task["Catch"][-1]["ErrorEquals"] == ["States.ALL"], state


def test_placeholders_are_handlers_or_known_resources() -> None:
    found = set(re.findall(r"\$\{(\w+)\}", workflow_file().read_text()))
    functions = functions_of_workflow()
    assert found - set(functions) == {"DataBucket", "GpuJobQueueArn", "GpuJobDefinitionArn"}
    modules = Path(__file__).parents[2] / "functions"
    assert all((modules / f"{module}.py").exists() for module in functions.values())
    assert functions["DescribeInBatchFunctionArn"] == "describe_in_batch"


def test_an_unknown_field_is_refused() -> None:
    broken = definition()
    broken["States"]["PlanRun"]["ResultPath"] = "$.x"
    with pytest.raises(Exception, match="ResultPath"):
        Workflow(broken, resources=Contracted())
    assert issubclass(StateError, Exception)
