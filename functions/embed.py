"""Embed: one batch of the embed manifest; before a batch inference job, its records."""

from imageclust.models import JSON
from imageclust.steps.embed import EmbedBatch, embed_batch
from imageclust.steps.embed_in_batch import collect_batch, prepare_batch
from imageclust.steps.usage import metered
from imageclust.wiring import services


def handler(event: JSON, _context: object) -> JSON:
    batch = EmbedBatch.from_json(event)
    with metered(services(), "Embed", event) as done:
        if batch.prepare:
            return prepare_batch(services(), batch)
        done["images"] = len(batch.images)
        return collect_batch(services(), batch) if batch.parts else embed_batch(services(), batch)
