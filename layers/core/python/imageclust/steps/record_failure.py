"""RecordFailure: every Catch ends here; the run says which state failed, why and what to do."""

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from imageclust import errors
from imageclust.models import JSON, RunState
from imageclust.steps.start_run import finish_run
from imageclust.steps.usage import cost_of_run, store_usage
from imageclust.wiring import Services

_OUT_OF_MEMORY = ("Runtime.OutOfMemory", "Runtime.ExitError", "MemoryError")
"""What Step Functions is told of a function that takes more memory than it has."""


@dataclass(frozen=True)
class Failure:
    """Input of RecordFailure: what a Catch knows."""

    run_id: str
    collection: str
    state: str
    error: str
    cause: str
    seconds: dict[str, float]

    @classmethod
    def from_json(cls, data: JSON) -> "Failure":
        failure = data["failure"]
        return cls(
            run_id=data["run_id"],
            collection=data["collection"],
            state=failure["state"],
            error=failure.get("error") or "Unknown",
            cause=_message(failure.get("cause") or ""),
            seconds=data.get("seconds") or {},
        )


def record_failure(services: Services, failure: Failure) -> JSON:
    """Store the failure with advice. ``INVALID``: the input is at fault; ``FAILED``: we are."""
    state: RunState = "INVALID" if failure.error in _kinds_of(errors.InvalidInput) else "FAILED"
    told = {
        "state": failure.state,
        "error": failure.error,
        "cause": failure.cause,
        "advice": _advice(failure, state),
    }
    store_usage(services, "RecordFailure", {"run_id": failure.run_id}, started=time.time())
    final = finish_run(
        services,
        failure.collection,
        failure.run_id,
        state=state,
        changes={
            "failure": told,
            "seconds": failure.seconds,
            "cost": cost_of_run(services, failure.run_id),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
    if final != state:  # it was cancelled, or had published before the failure
        return {"run_id": failure.run_id, "state": final}
    services.events.publish(
        "Run Failed", {"run_id": failure.run_id, "collection": failure.collection, **told}
    )
    return {"run_id": failure.run_id, "state": state}


def _kinds_of(root: type[errors.ImageclustError]) -> set[str]:
    kinds = [root]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return {kind.__name__ for kind in kinds}


def _message(cause: str) -> str:
    """Lambda wraps an exception's message in JSON; people want the message."""
    try:
        told = json.loads(cause)
    except ValueError:
        return cause[:2000]
    return str(told.get("errorMessage", cause))[:2000] if isinstance(told, dict) else cause[:2000]


def _advice(failure: Failure, state: str) -> str:
    if state == "INVALID":
        return "change the configuration or the files, then start another run"
    if failure.error in ("States.Timeout", "Sandbox.Timedout"):
        return "start the run again: what was finished is kept and it goes on from there"
    if failure.error == "States.ExceedToleratedFailureThreshold":
        return "too many batches failed; see the results/ folder of the run, then start it again"
    if failure.error in _OUT_OF_MEMORY:
        return (
            "the function ran out of memory: cluster a part of the images ('sample'), or raise its "
            "memory (IMAGECLUST_CLUSTER_MEMORY_MB); what was finished is kept"
        )
    if failure.error == "Lambda.TooManyRequestsException":
        return (
            "the account may run too few functions at once: raise its Lambda concurrency or lower "
            "IMAGECLUST_MAP_CONCURRENCY, then start the run again"
        )
    if failure.error in ("Throttled", "StoreUnavailable"):
        return "a service was busy or unavailable; start the run again in some minutes"
    if failure.error in _kinds_of(errors.Permanent):
        return "when that is mended, start the run again: what was finished is kept"
    return "start the run again; if it fails at the same state, read its log"
