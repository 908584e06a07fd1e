"""CollectDescriptions: join what the batch inference job answered."""

from imageclust.models import JSON
from imageclust.steps.describe_clusters import DescribeRequest, collect_descriptions
from imageclust.wiring import services


def handler(event: JSON, _context: object) -> JSON:
    return collect_descriptions(services(), DescribeRequest.from_json(event))
