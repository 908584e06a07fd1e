"""DescribeInBatch: start the batch inference job; the token comes back when it ends."""

from imageclust.models import JSON
from imageclust.steps.describe_clusters import DescribeRequest, describe_in_batch
from imageclust.steps.usage import metered
from imageclust.wiring import services


def handler(event: JSON, _context: object) -> JSON:
    with metered(services(), "DescribeInBatch", event):
        return describe_in_batch(services(), DescribeRequest.from_json(event))
