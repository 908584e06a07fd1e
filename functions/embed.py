"""Embed: one batch of the embed manifest."""

from imageclust.models import JSON
from imageclust.steps.embed import EmbedBatch, embed_batch
from imageclust.steps.usage import metered
from imageclust.wiring import services


def handler(event: JSON, _context: object) -> JSON:
    with metered(services(), "Embed", event):
        return embed_batch(services(), EmbedBatch.from_json(event))
