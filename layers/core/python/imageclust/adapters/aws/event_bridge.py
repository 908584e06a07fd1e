"""Timers of EventBridge Scheduler and events on an EventBridge bus."""

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.failures import translated
from imageclust.errors import Conflict, InvalidInput, NotFound, StoreUnavailable, Throttled
from imageclust.models import JSON

if TYPE_CHECKING:
    from mypy_boto3_scheduler.type_defs import CreateScheduleInputTypeDef

SOURCE = "imageclust"
_SOON = timedelta(seconds=5)


class EventBridgeScheduler:
    """One-off schedules that delete themselves after they fired.

    Args:
        clients: the AWS clients.
        group: schedule group.
        target_arn: what is called with the payload.
        role_arn: role that the scheduler takes to call it.
        clock: the time, UTC.
    """

    def __init__(
        self,
        clients: Clients,
        *,
        group: str,
        target_arn: str,
        role_arn: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._clients = clients
        self._group = group
        self._target_arn = target_arn
        self._role_arn = role_arn
        self._clock = clock

    def schedule(self, name: str, at: datetime, payload: JSON) -> None:
        """Fire once at ``at`` (UTC) with ``payload``; a pending timer of that name moves there."""
        request = self._request(name, at, payload)
        for _ in range(3):
            if self._created(request) or self._moved(request):
                return
        raise StoreUnavailable(f"Timer {name} could neither be made nor moved.")

    def _created(self, request: "CreateScheduleInputTypeDef") -> bool:
        try:
            with translated(f"Timer {request['Name']}"):
                self._clients.scheduler.create_schedule(**request)
        except Conflict:
            return False
        return True

    def _moved(self, request: "CreateScheduleInputTypeDef") -> bool:
        try:
            with translated(f"Timer {request['Name']}"):
                self._clients.scheduler.update_schedule(**request)
        except NotFound:
            return False  # it fired between the two calls
        return True

    def _request(self, name: str, at: datetime, payload: JSON) -> "CreateScheduleInputTypeDef":
        if at.tzinfo is None:
            raise InvalidInput("A timer needs a time with its time zone.")
        # A time that has passed would never fire; whole seconds, rounded up.
        moment = max(at.astimezone(UTC), self._clock() + _SOON)
        moment = datetime.fromtimestamp(math.ceil(moment.timestamp()), UTC)
        return {
            "Name": name,
            "GroupName": self._group,
            "ScheduleExpression": f"at({moment:%Y-%m-%dT%H:%M:%S})",
            "ScheduleExpressionTimezone": "UTC",
            "FlexibleTimeWindow": {"Mode": "OFF"},
            "ActionAfterCompletion": "DELETE",
            "Target": {
                "Arn": self._target_arn,
                "RoleArn": self._role_arn,
                "Input": json.dumps(payload),
                "RetryPolicy": {"MaximumEventAgeInSeconds": 3600, "MaximumRetryAttempts": 20},
            },
        }


class EventBridgeEvents:
    """Puts events of source ``imageclust`` on a bus.

    Args:
        clients: the AWS clients.
        bus: name or ARN of the bus.
    """

    def __init__(self, clients: Clients, bus: str) -> None:
        self._clients = clients
        self._bus = bus

    def publish(self, kind: str, detail: JSON) -> None:
        """Send one event; ``kind`` is its detail type. Raises Throttled or StoreUnavailable."""
        with translated(f"Event {kind}"):
            answer = self._clients.events.put_events(
                Entries=[
                    {
                        "Source": SOURCE,
                        "DetailType": kind,
                        "Detail": json.dumps(detail),
                        "EventBusName": self._bus,
                    }
                ]
            )
        if answer["FailedEntryCount"]:
            code = answer["Entries"][0].get("ErrorCode", "")
            failure = Throttled if code == "ThrottlingException" else StoreUnavailable
            raise failure(f"Event {kind} was not taken ({code}).")
