"""The timer of a collection, or the regular sweep over all: see imageclust.steps.start_run."""

from datetime import UTC, datetime

from imageclust.models import JSON
from imageclust.steps.start_run import recover, start_after_changes
from imageclust.wiring import services


def handler(event: JSON, _context: object) -> JSON:
    """A timer names its collection; an event without one is the sweep."""
    now = datetime.now(UTC)
    if "collection" not in event:
        return {"under_way": list(recover(services(), now=now))}
    collection = str(event["collection"])
    run_id = start_after_changes(services(), collection=collection, now=now)
    return {"collection": collection, "run_id": run_id}
