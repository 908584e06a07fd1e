"""The last move of a run, for PublishRun and RecordFailure: final state, switch, let go."""

from datetime import UTC, datetime

from imageclust import keys
from imageclust.errors import Conflict
from imageclust.models import JSON
from imageclust.steps.start_run import finish_run
from imageclust.wiring import Services


def end_run(services: Services, collection: str, run_id: str, changes: JSON) -> None:
    """Write the run's final ``state`` and the other changes, once; safe to repeat.

    A run that succeeded becomes the collection's current one. Raises Conflict when the run was
    cancelled meanwhile: readers keep the run before.
    """
    pk, sk = keys.collection_pk(collection), keys.run_sk(run_id)
    try:
        services.table.update(pk, sk, changes, expect={"state": "RUNNING"})
    except Conflict:
        state = (services.table.get(pk, sk) or {}).get("state")
        if state != changes["state"]:
            raise Conflict(f"the run {run_id} is over already: {state}") from None
    if changes["state"] == "SUCCEEDED":
        services.table.update(keys.COLLECTIONS_PK, collection, {"current_run": run_id})
    finish_run(services, collection=collection, run_id=run_id, now=datetime.now(UTC))
