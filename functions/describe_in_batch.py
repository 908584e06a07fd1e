"""DescribeInBatch: start the batch inference job; the token comes back when it ends."""

from imageclust.models import JSON
from imageclust.steps.describe_clusters import DescribeRequest, describe_in_batch
from imageclust.wiring import services


def handler(event: JSON, _context: object) -> JSON:
    return describe_in_batch(services(), DescribeRequest.from_json(event))
