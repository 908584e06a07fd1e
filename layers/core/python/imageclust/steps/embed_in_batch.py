"""Embedding by batch inference: records once, one wait, answers joined on the image's id.

``prepare_batch`` decodes the images of one batch of the manifest and writes one file of records;
``embed_in_batch`` starts a job over each folder of such files; ``collect_batch`` makes of the
answers to one file the shard that Embed would have made, and asks on demand for what the job did
not answer. A batch that was never prepared, and every batch of a run whose jobs failed, is
embedded as without jobs.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from imageclust import keys
from imageclust.errors import InvalidInput, RejectedImage
from imageclust.models import JSON, parse_json_lines, to_json_lines
from imageclust.ports import BatchEmbedder, StoredObject
from imageclust.steps.batch_jobs import job_name, start_jobs
from imageclust.steps.embed import EmbedBatch, embed_batch, rejection, store_shard, store_thumbnail
from imageclust.steps.pictures import process_images, without_vectors
from imageclust.wiring import Services


@dataclass(frozen=True)
class EmbedInBatchRequest:
    """Input of EmbedInBatch; ``model`` and ``parts`` are the plan's."""

    run_id: str
    model: str
    parts: tuple[str, ...]
    token: str

    @classmethod
    def from_json(cls, data: JSON) -> "EmbedInBatchRequest":
        return cls(data["run_id"], data["model"], tuple(data["parts"]), data["token"])


def prepare_batch(services: Services, batch: EmbedBatch) -> JSON:
    """Write the records and facts of one batch; returns counts.

    The facts are written last: where they are, everything is, and nothing is done twice.
    """
    embedder = _embedder(services, batch.model)
    images = without_vectors(services, batch.images, embedder.key)
    facts_uri = _facts_uri(services, batch)
    if not images or services.store.size(facts_uri) is not None:
        return {"records": 0, "rejected": 0, "reused": len(batch.images)}
    records: list[bytes] = []
    rows: list[JSON] = []
    for image, item in zip(
        images, process_images(services, images, min_side=embedder.min_side), strict=True
    ):
        row = store_thumbnail(services, image, item)
        if not isinstance(item, RejectedImage):
            try:
                records.append(embedder.record(image.image_id, item.pixels))
            except InvalidInput as error:
                refused = RejectedImage("unsupported", str(error))
                row = {"image_id": image.image_id} | rejection(refused)
        rows.append(row)
    if records:
        uri = _records_uri(services, batch, len(records))
        services.store.write(uri, b"".join(records), content_type="application/jsonl")
    services.store.write(facts_uri, to_json_lines(rows), content_type="application/jsonl")
    return {
        "records": len(records),
        "rejected": len(rows) - len(records),
        "reused": len(batch.images) - len(images),
    }


def embed_in_batch(services: Services, request: EmbedInBatchRequest) -> JSON:
    """Start a job for each part that has enough records; what is left out is asked on demand.

    Raises:
        InvalidInput: no part has records enough for a job.
        ImageclustError: as ``start_jobs``.
    """
    embedder = _embedder(services, request.model)
    least = services.settings.bedrock_batch_minimum
    bucket = services.settings.data_bucket
    starts: dict[str, Callable[[], None]] = {}
    records = 0
    for part in range(len(request.parts)):
        folder = keys.records_key(request.run_id, part, "")
        found = sum(_records_in(file) for file in services.store.list(bucket, folder))
        if least <= found <= embedder.records_a_job:
            job = job_name("embed", request.run_id, part)
            source, output = keys.join_uri(bucket, folder), _output_uri(services, request, part)
            starts[job] = partial(embedder.submit, job=job, source=source, output=output)
            records += found
    if not starts:
        raise InvalidInput(f"no part of the run has the {least} records of a batch inference job")
    state = "EmbedInBatch"
    started = start_jobs(services, state, run_id=request.run_id, token=request.token, starts=starts)
    return {"jobs": started, "records": records}


def collect_batch(services: Services, batch: EmbedBatch) -> JSON:
    """The shard of one batch, from the answers of its job and on demand for the rest."""
    embedder = _embedder(services, batch.model)
    images = without_vectors(services, batch.images, embedder.key)
    facts_uri = _facts_uri(services, batch)
    if not images or batch.failed or services.store.size(facts_uri) is None:
        return embed_batch(services, batch)
    known = {row["image_id"]: row for row in parse_json_lines(services.store.read(facts_uri))}
    if any(image.image_id not in known for image in images):  # prepared when less was missing
        return embed_batch(services, batch)
    count = sum("rejected" not in row for row in known.values())
    found: dict[str, NDArray[np.float32]] = {}
    if count:
        source = _records_uri(services, batch, count)
        name = source.rpartition("/")[2]
        part = _part(batch)
        prefix = keys.bedrock_key(batch.run_id, f"embed/{part:02d}/")
        outputs = [
            services.store.read(item.uri)
            for item in services.store.list(services.settings.data_bucket, prefix)
            if item.uri.endswith(f"/{name}.out")
        ]
        found = embedder.join(services.store.read(source), outputs)
    rows = [known[image.image_id] for image in images]
    shown = [found[row["image_id"]] for row in rows if "rejected" not in row]
    vectors = np.array(shown, dtype=np.float16).reshape(len(shown), embedder.dimension)
    reused = len(batch.images) - len(images)
    return store_shard(services, embedder.key, rows, vectors, run=batch.run_id, reused=reused)


def _embedder(services: Services, model: str) -> BatchEmbedder:
    name = model.partition("/")[0]
    embedder = services.open_batch_embedder(name)
    if embedder is None:
        raise InvalidInput(f"the embedder {name} knows no batch inference")
    return embedder


def _part(batch: EmbedBatch) -> int:
    """Which part of the manifest the batch lies in; parts begin where batches do."""
    return max(0, bisect_right(batch.parts, batch.images[0].image_id) - 1)


def _name(batch: EmbedBatch) -> str:
    return keys.shard_id(image.image_id for image in batch.images)


def _facts_uri(services: Services, batch: EmbedBatch) -> str:
    key = keys.record_facts_key(batch.run_id, _name(batch))
    return keys.join_uri(services.settings.data_bucket, key)


def _records_uri(services: Services, batch: EmbedBatch, count: int) -> str:
    """The file's name tells how many records it has: jobs need enough of them."""
    key = keys.records_key(batch.run_id, _part(batch), f"{_name(batch)}-{count}.jsonl")
    return keys.join_uri(services.settings.data_bucket, key)


def _records_in(file: StoredObject) -> int:
    return int(file.uri.rpartition("-")[2].removesuffix(".jsonl"))


def _output_uri(services: Services, request: EmbedInBatchRequest, part: int) -> str:
    key = keys.bedrock_key(request.run_id, f"embed/{part:02d}/")
    return keys.join_uri(services.settings.data_bucket, key)
