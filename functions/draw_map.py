"""DrawMap: see imageclust.steps.draw_map."""

from imageclust.models import JSON
from imageclust.steps.draw_map import MapRequest, draw_map
from imageclust.steps.usage import metered
from imageclust.wiring import services


def handler(event: JSON, _context: object) -> JSON:
    with metered(services(), "DrawMap", event):
        return draw_map(services(), MapRequest.from_json(event))
