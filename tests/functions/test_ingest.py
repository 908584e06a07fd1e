"""Events of the uploads bucket through the queue, as EventBridge and SQS shape them."""

import dataclasses
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from imageclust import keys, wiring
from imageclust.errors import StoreUnavailable
from imageclust.models import JSON
from imageclust.wiring import LOCAL_SETTINGS, Services, local_services

from functions import ingest, start_run
from local.gateway import LocalContext
from local.watcher import sqs_record
from tests.functions.test_start_run import Executions

CONTEXT = LocalContext(aws_request_id="r", function_name="ingest")


@pytest.fixture
def executions() -> Executions:
    return Executions()


@pytest.fixture
def services(tmp_path: Path, executions: Executions) -> Iterator[Services]:
    # A slow machine, too, sends all its events within the quiet period.
    settings = dataclasses.replace(LOCAL_SETTINGS, quiet_seconds=3000)
    made = local_services(tmp_path, workflows=lambda _: executions, settings=settings)
    wiring.use(made)
    yield made
    made.close()


def event(key: str, *, kind: str = "Object Created", bucket: str = "uploads") -> JSON:
    """As documented for S3 events in EventBridge: the key is not URL-encoded."""
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": kind,
        "source": "aws.s3",
        "account": "111122223333",
        "time": "2021-11-12T00:00:00Z",
        "region": "ca-central-1",
        "resources": [f"arn:aws:s3:::{bucket}"],
        "detail": {
            "version": "0",
            "bucket": {"name": bucket},
            "object": {
                "key": key,
                "size": 5,
                "etag": "b1946ac92492d2347c6235b4d2611184",
                "version-id": "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e",
                "sequencer": "617f08299329d189",
            },
            "request-id": "N4N7GDK58NMKJ12R",
            "requester": "123456789012",
            "source-ip-address": "1.2.3.4",
            "reason": "PutObject",
        },
    }


def send(*bodies: Any) -> list[str]:
    """Positions of the records that go back to the queue."""
    records = [sqs_record(body) for body in bodies]
    names = [record["messageId"] for record in records]
    failed = ingest.handler({"Records": records}, CONTEXT)["batchItemFailures"]
    return [str(names.index(item["itemIdentifier"])) for item in failed]


def fire(services: Services, after: timedelta) -> None:
    timers: Any = services.scheduler
    timers.fire_due(datetime.now(UTC) + after, lambda payload: start_run.handler(payload, None))


def collections(services: Services) -> list[str]:
    return [item["sk"] for item in services.table.query(keys.COLLECTIONS_PK).items]


def test_many_events_make_one_run(services: Services, executions: Executions) -> None:
    for batch in range(20):
        assert send(*(event(f"holiday/{batch}-{n}.jpg") for n in range(10))) == []
    assert collections(services) == ["holiday"]
    fire(services, timedelta())
    assert executions.starts == []
    fire(services, timedelta(seconds=services.settings.quiet_seconds + 1))
    fire(services, timedelta(hours=1))
    assert len(executions.starts) == 1


def test_keys_are_taken_as_they_are(services: Services) -> None:
    assert send(event("a/50%25+1 %C3.jpg"), event("b/x.jpg", kind="Object Deleted")) == []
    assert collections(services) == ["a", "b"]
    assert send(event("a%2Fb/x.jpg"), event("c+d/x.jpg")) == []
    assert collections(services) == ["a", "b"]  # decoded they would be collections


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (event("photo.jpg"), "lies in no collection"),
        (event("holiday/"), "lies in no collection"),
        (event("/x.jpg"), "cannot name a collection"),
        (event("My Photos/x.jpg"), "cannot name a collection"),
        (event("a/x.jpg", bucket="another"), "another bucket"),
        (event("a/x.jpg", kind="Object Tags Added"), "not an event"),
        ({"source": "aws.s3", "detail-type": "Object Created", "detail": {}}, "without bucket"),
        (["what"], "not an event"),
    ],
)
def test_events_of_no_collection_are_ignored_and_reported(
    services: Services, tmp_path: Path, body: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert send(body) == []
    assert collections(services) == []
    assert reason in caplog.text
    told = json.loads((tmp_path / "events.jsonl").read_text())
    assert (told["kind"], reason in told["detail"]["reason"]) == ("Upload Ignored", True)


def test_a_body_that_is_not_json_is_reported(services: Services, tmp_path: Path) -> None:
    record = {**sqs_record({}), "body": "<xml>"}
    assert ingest.handler({"Records": [record]}, CONTEXT) == {"batchItemFailures": []}
    assert "Upload Ignored" in (tmp_path / "events.jsonl").read_text()


class _FailsFor:
    """A scheduler that is down for some collections."""

    def __init__(self, scheduler: Any, name: str) -> None:
        self._scheduler, self._name = scheduler, name

    def schedule(self, name: str, at: datetime, payload: JSON) -> None:
        if name == self._name:
            raise StoreUnavailable("down")
        self._scheduler.schedule(name, at, payload)


def test_records_that_fail_go_back_to_the_queue(services: Services, executions: Executions) -> None:
    down = dataclasses.replace(services, scheduler=_FailsFor(services.scheduler, "b"))
    wiring.use(down)
    bodies = [event("a/1.jpg"), event("b/1.jpg"), event("a/2.jpg"), event("b/2.jpg")]
    assert send(*bodies) == ["1", "3"]
    assert send(bodies[1]) == ["0"]
    wiring.use(services)
    assert send(bodies[1], bodies[3]) == []
    fire(services, timedelta(hours=1))
    assert sorted(run_id[0] for run_id in executions.starts) == ["a", "b"]


def test_a_deleted_file_is_a_change_too(services: Services, executions: Executions) -> None:
    send(event("a/1.jpg"))
    fire(services, timedelta(hours=1))
    executions.alive.clear()
    item = services.table.get(keys.COLLECTIONS_PK, "a") or {}
    assert item["running_run"] == executions.starts[0]
    send(event("a/1.jpg", kind="Object Deleted"))
    assert (services.table.get(keys.COLLECTIONS_PK, "a") or {})["dirty"]
