"""EmbedInBatch: start the batch inference jobs of a run's embeddings."""

from imageclust.models import JSON
from imageclust.steps.embed_in_batch import EmbedInBatchRequest, embed_in_batch
from imageclust.steps.usage import metered
from imageclust.wiring import services


def handler(event: JSON, _context: object) -> JSON:
    with metered(services(), "EmbedInBatch", event):
        return embed_in_batch(services(), EmbedInBatchRequest.from_json(event))
