"""ClusterImages: see imageclust.steps.cluster_images."""

from imageclust.models import JSON
from imageclust.steps.cluster_images import ClusterRequest, cluster_images
from imageclust.steps.usage import metered
from imageclust.wiring import services


def handler(event: JSON, _context: object) -> JSON:
    with metered(services(), "ClusterImages", event) as done:
        answer = cluster_images(services(), ClusterRequest.from_json(event))
        done["complete"] = answer["complete"]
        return answer
