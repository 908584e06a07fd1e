"""Units are stored call by call, also of calls that fail, and summed for the run."""

from dataclasses import replace
from typing import Any

import pytest
from imageclust.errors import StoreUnavailable
from imageclust.models import JSON
from imageclust.steps.usage import cost_of_run, metered
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


def test_one_machine_stores_nothing(services: Services) -> None:
    with metered(services, "PlanRun", {"run_id": "r"}):
        pass
    assert services.table.query("usage#r").items == ()
    assert cost_of_run(services, "r")["usd"] == 0
