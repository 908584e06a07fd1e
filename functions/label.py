"""Label: one batch of the label manifest."""

from imageclust.models import JSON
from imageclust.steps.label import LabelBatch, label_batch
from imageclust.steps.usage import metered
from imageclust.wiring import services


def handler(event: JSON, _context: object) -> JSON:
    batch = LabelBatch.from_json(event)
    with metered(services(), "Label", event) as done:
        done["images"] = len(batch.images)
        return label_batch(services(), batch)
