"""PlanRun: see imageclust.steps.plan_run."""

from imageclust.models import JSON, RunRequest
from imageclust.steps.plan_run import plan_run
from imageclust.steps.usage import metered
from imageclust.wiring import services


def handler(event: JSON, _context: object) -> JSON:
    with metered(services(), "PlanRun", event) as done:
        answer = plan_run(services(), RunRequest.from_json(event))
        done.update(complete=answer["complete"], counted=answer["images"])
        return answer
