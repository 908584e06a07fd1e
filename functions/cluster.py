"""ClusterImages: see imageclust.steps.cluster_images."""

from imageclust.models import JSON
from imageclust.steps.cluster_images import ClusterRequest, cluster_images
from imageclust.wiring import services


def handler(event: JSON, _context: object) -> JSON:
    return cluster_images(services(), ClusterRequest.from_json(event))
