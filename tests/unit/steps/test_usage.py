"""Units are stored call by call, also of calls that fail, and summed for the run."""

import time
from dataclasses import replace
from typing import Any

import pytest
from imageclust.errors import StoreUnavailable
from imageclust.models import JSON
from imageclust.steps.usage import cost_of_run, metered, progress_of
from imageclust.wiring import Services


@pytest.fixture
def paid(services: Services) -> tuple[Services, dict[str, float]]:
    bought: dict[str, float] = {}

    def take() -> dict[str, float]:
        taken = dict(bought)
        bought.clear()
        return taken

    settings = replace(services.settings, paid=True, aws_lambda_function_memory_size=2048)
    return replace(services, settings=settings, take_usage=take), bought


def test_calls_add_up(paid: tuple[Services, dict[str, float]]) -> None:
    services, bought = paid
    batch: JSON = {"BatchInput": {"run_id": "r"}, "Items": [1]}
    for _ in range(2):  # the same batch again is another call, a millisecond later or more
        with metered(services, "Label", batch):
            bought["rekognition_image"] = 8
    with metered(services, "PlanRun", {"run_id": "r"}):
        bought["s3_put"] = 3
    with metered(services, "PlanRun", {"run_id": "other"}):
        bought["s3_put"] = 100
    found = cost_of_run(services, "r")
    assert found["stages"]["storage"]["units"] == {"s3_put": 3}
    assert found["stages"]["workflow"]["units"]["lambda_request"] == 3
    assert found["stages"]["workflow"]["units"]["transition"] == 20 + 3 * 2
    assert found["stages"]["labels"]["units"]["rekognition_image"] == 16


def test_a_failed_call_was_paid_but_a_batch_job_is_counted_once(
    paid: tuple[Services, dict[str, float]],
) -> None:
    services, bought = paid

    def fails() -> None:
        with metered(services, "DescribeClusters", {"run_id": "r"}):
            bought.update({"batch_tokens_in/nova-micro": 5, "s3_get": 2})
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fails()
    stages = cost_of_run(services, "r")["stages"]
    assert "naming" not in stages
    assert stages["storage"]["units"] == {"s3_get": 2}


def test_a_table_that_is_away_does_not_fail_the_step(
    paid: tuple[Services, dict[str, float]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    services, bought = paid

    def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("the table is away")

    monkeypatch.setattr(services.table, "put", away)
    with metered(services, "PlanRun", {"run_id": "r"}):
        bought["s3_put"] = 3
    assert "PlanRun are not stored" in caplog.text


def test_one_machine_costs_nothing(services: Services) -> None:
    with metered(services, "PlanRun", {"run_id": "r"}):
        pass
    assert cost_of_run(services, "r")["usd"] == 0


def test_a_gpu_job_is_paid_by_the_second(paid: tuple[Services, dict[str, float]]) -> None:
    services, _ = paid
    settings = replace(services.settings, aws_lambda_function_memory_size=0, device="cuda")
    services = replace(services, settings=settings)
    with metered(services, "EmbedOnGpu", {"run_id": "r"}):
        time.sleep(0.01)
    units = cost_of_run(services, "r")["stages"]["embedding"]["units"]
    assert units["gpu_second"] == pytest.approx(0.01, abs=1)
    assert units["gpu_second"] >= 0.01


def test_progress_counts_each_batch_once_and_no_call_that_failed(services: Services) -> None:
    def call(state: str, event: JSON, done: JSON, *, fails: bool = False) -> None:
        with metered(services, state, event) as told:
            told.update(done)
            if fails:
                raise ValueError("broken")

    assert progress_of(services, "r") == {"done": []}
    call("PlanRun", {"run_id": "r"}, {"complete": False, "counted": {"seen": 3}})
    assert progress_of(services, "r") == {"done": []}
    call("PlanRun", {"run_id": "r"}, {"complete": True, "counted": {"seen": 9, "to_embed": 8}})
    for items in ([1, 2], [3, 4], [3, 4]):
        call("Embed", {"BatchInput": {"run_id": "r"}, "Items": items}, {"images": 2})
        time.sleep(0.002)  # the call that is made again has another start
    call("Label", {"BatchInput": {"run_id": "r"}, "Items": [1]}, {"images": 1})
    with pytest.raises(ValueError, match="broken"):
        call("Embed", {"BatchInput": {"run_id": "r"}, "Items": [5]}, {"images": 1}, fails=True)
    call("ClusterImages", {"run_id": "r"}, {"complete": False})
    told = {"seen": 9, "to_embed": 8, "embedded": 4, "labelled": 1}
    assert progress_of(services, "r") == {"done": ["PlanRun"], **told}
    call("DrawMap", {"run_id": "r"}, {})
    call("ClusterImages", {"run_id": "r"}, {"complete": True})
    assert progress_of(services, "r")["done"] == ["PlanRun", "ClusterImages", "DrawMap"]
