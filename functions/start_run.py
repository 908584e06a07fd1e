"""The timer of a collection went off: see imageclust.steps.start_run."""

from datetime import UTC, datetime

from imageclust.models import JSON
from imageclust.steps.start_run import start_after_changes
from imageclust.wiring import services


def handler(event: JSON, _context: object) -> JSON:
    collection = str(event["collection"])
    now = datetime.now(UTC)
    run_id = start_after_changes(services(), collection=collection, now=now)
    return {"collection": collection, "run_id": run_id}
