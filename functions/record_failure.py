"""RecordFailure: see imageclust.steps.record_failure."""

from imageclust.models import JSON
from imageclust.steps.record_failure import Failure, record_failure
from imageclust.wiring import services


def handler(event: JSON, _context: object) -> JSON:
    return record_failure(services(), Failure.from_json(event))
