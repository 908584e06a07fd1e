"""Settles waiting batch jobs; called by Bedrock's state-change event and by a timer."""

from imageclust.models import JSON
from imageclust.steps.batch_jobs import settle_batch_jobs
from imageclust.wiring import services


def handler(_event: JSON, _context: object) -> JSON:
    return settle_batch_jobs(services())
