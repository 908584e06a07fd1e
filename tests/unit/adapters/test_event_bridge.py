import json
from datetime import UTC, datetime, timedelta

import pytest
from botocore.stub import Stubber
from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.event_bridge import EventBridgeEvents, EventBridgeScheduler
from imageclust.errors import InvalidInput, NotFound, StoreUnavailable, Throttled

NOW = datetime(2026, 11, 22, 5, 0, tzinfo=UTC)
TARGET = "arn:aws:lambda:us-east-1:123456789012:function:start"
ROLE = "arn:aws:iam::123456789012:role/scheduler"


@pytest.fixture
def scheduler(clients: Clients) -> EventBridgeScheduler:
    clients.scheduler.create_schedule_group(Name="imageclust")
    return EventBridgeScheduler(
        clients, group="imageclust", target_arn=TARGET, role_arn=ROLE, clock=lambda: NOW
    )


def test_a_timer(scheduler: EventBridgeScheduler, clients: Clients) -> None:
    at = NOW + timedelta(seconds=60, microseconds=1)
    scheduler.schedule("quiet-house", at, {"collection": "house"})
    found = clients.scheduler.get_schedule(Name="quiet-house", GroupName="imageclust")
    assert found["ScheduleExpression"] == "at(2026-11-22T05:01:01)"
    assert found["ScheduleExpressionTimezone"] == "UTC"
    assert found["ActionAfterCompletion"] == "DELETE"
    assert found["FlexibleTimeWindow"] == {"Mode": "OFF"}
    assert json.loads(found["Target"]["Input"]) == {"collection": "house"}
    assert (found["Target"]["Arn"], found["Target"]["RoleArn"]) == (TARGET, ROLE)


def test_a_pending_timer_moves(scheduler: EventBridgeScheduler, clients: Clients) -> None:
    scheduler.schedule("quiet-house", NOW + timedelta(seconds=60), {"n": 1})
    scheduler.schedule("quiet-house", NOW + timedelta(seconds=90), {"n": 2})
    found = clients.scheduler.get_schedule(Name="quiet-house", GroupName="imageclust")
    assert found["ScheduleExpression"] == "at(2026-11-22T05:01:30)"
    assert json.loads(found["Target"]["Input"]) == {"n": 2}
    assert len(clients.scheduler.list_schedules(GroupName="imageclust")["Schedules"]) == 1


def test_a_time_that_has_passed_becomes_soon(
    scheduler: EventBridgeScheduler, clients: Clients
) -> None:
    scheduler.schedule("a", NOW - timedelta(days=1), {})
    found = clients.scheduler.get_schedule(Name="a", GroupName="imageclust")
    assert found["ScheduleExpression"] == "at(2026-11-22T05:00:05)"


def test_a_timer_that_fires_between_two_calls(scheduler: EventBridgeScheduler) -> None:
    client = scheduler._clients.scheduler
    arn = "arn:aws:scheduler:us-east-1:123456789012:schedule/imageclust/a"
    with Stubber(client) as stub:
        stub.add_client_error("create_schedule", "ConflictException")
        stub.add_client_error("update_schedule", "ResourceNotFoundException")
        stub.add_response("create_schedule", {"ScheduleArn": arn})
        scheduler.schedule("a", NOW, {})
        stub.assert_no_pending_responses()
    with Stubber(client) as stub:
        for _ in range(3):
            stub.add_client_error("create_schedule", "ConflictException")
            stub.add_client_error("update_schedule", "ResourceNotFoundException")
        with pytest.raises(StoreUnavailable):
            scheduler.schedule("a", NOW, {})


def test_bad_timers(scheduler: EventBridgeScheduler) -> None:
    with pytest.raises(InvalidInput, match="time zone"):
        scheduler.schedule("a", datetime(2026, 11, 22), {})
    with pytest.raises(InvalidInput):
        scheduler.schedule("", NOW, {})


def test_events_reach_who_listens(clients: Clients) -> None:
    queue = clients._session.client("sqs")
    url = queue.create_queue(QueueName="heard")["QueueUrl"]
    clients.events.create_event_bus(Name="bus")
    clients.events.put_rule(Name="r", EventBusName="bus", EventPattern='{"source": ["imageclust"]}')
    arn = "arn:aws:sqs:us-east-1:123456789012:heard"
    clients.events.put_targets(Rule="r", EventBusName="bus", Targets=[{"Id": "1", "Arn": arn}])
    EventBridgeEvents(clients, "bus").publish("Run Published", {"run_id": "r1", "é": "写真"})
    (message,) = queue.receive_message(QueueUrl=url)["Messages"]
    event = json.loads(message["Body"])
    assert event["detail-type"] == "Run Published"
    assert event["detail"] == {"run_id": "r1", "é": "写真"}


@pytest.mark.parametrize(
    ("code", "kind"), [("ThrottlingException", Throttled), ("InternalFailure", StoreUnavailable)]
)
def test_events_that_are_not_taken(clients: Clients, code: str, kind: type[Exception]) -> None:
    with Stubber(clients.events) as stub:
        entry = {"ErrorCode": code, "ErrorMessage": "told"}
        stub.add_response("put_events", {"FailedEntryCount": 1, "Entries": [entry]})
        with pytest.raises(kind, match=code):
            EventBridgeEvents(clients, "bus").publish("x", {})
        stub.add_client_error("put_events", "ResourceNotFoundException")
        with pytest.raises(NotFound):
            EventBridgeEvents(clients, "bus").publish("x", {})
