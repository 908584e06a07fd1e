"""PublishRun: see imageclust.steps.publish_run."""

from imageclust.models import JSON
from imageclust.steps.publish_run import PublishRequest, publish_run
from imageclust.wiring import services


def handler(event: JSON, _context: object) -> JSON:
    return publish_run(services(), PublishRequest.from_json(event))
