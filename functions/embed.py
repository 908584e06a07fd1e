"""Embed: one batch of the embed manifest."""

from imageclust.models import JSON
from imageclust.steps.embed import EmbedBatch, embed_batch
from imageclust.wiring import services


def handler(event: JSON, _context: object) -> JSON:
    return embed_batch(services(), EmbedBatch.from_json(event))
