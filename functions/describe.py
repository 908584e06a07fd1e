"""DescribeClusters: names and captions, from batch inference jobs and on demand."""

from imageclust.models import JSON
from imageclust.steps.describe_clusters import DescribeRequest, describe_clusters
from imageclust.steps.usage import metered
from imageclust.wiring import services


def handler(event: JSON, _context: object) -> JSON:
    with metered(services(), "DescribeClusters", event):
        return describe_clusters(services(), DescribeRequest.from_json(event))
