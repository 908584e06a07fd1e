"""Captions of a run's images: from a model that sees, kept by content, or from their labels.

In batch when there are enough for a job of the service, else on demand for as long as a function
has. An image that got no caption stays without one: the run says how many, and the next run asks
for those alone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from imageclust import keys
from imageclust.descriptions import ImageBrief
from imageclust.descriptions.words import counted
from imageclust.errors import ImageclustError
from imageclust.models import JSON, parse_json_lines, to_json_lines
from imageclust.steps.batch_jobs import job_name
from imageclust.steps.gather import read_answers, read_rows
from imageclust.wiring import Services

if TYPE_CHECKING:
    from imageclust.steps.describe_clusters import DescribeRequest

logger = logging.getLogger(__name__)

NO_TIME = "the time of one function was up"

_CHUNK = 64  # images asked about between two looks at the clock
_A_JOB = 5_000  # records of a batch job: a function holds them all, 25 KB each


def count_captions(services: Services, captioner: str, image_ids: Sequence[str]) -> int:
    """How many of the images have a stored caption by this captioner."""
    return len(_stored(services, services.open_captioner(captioner).key, image_ids))


def captions_left(services: Services, request: DescribeRequest) -> int:
    """Images that the run wants a caption of and none is stored of."""
    return len(_without(services, request, _wanted(services, request)))


def caption_jobs(services: Services, request: DescribeRequest) -> dict[str, Callable[[], None]]:
    """What starts each batch job of captions, by the job's name; none where there is no batch."""
    batch = services.open_batch_captioner(request.plan["captioner"])
    if batch is None:
        return {}
    left = _briefs(services, request, _without(services, request, _wanted(services, request)))
    # Even parts: none of them is below the service's minimum.
    size = math.ceil(len(left) / max(1, math.ceil(len(left) / _A_JOB)))
    parts = [left[start : start + size] for start in range(0, len(left), max(1, size))]
    folder = request.folder(services)
    jobs = {job_name("caption", request.run_id, n): part for n, part in enumerate(parts)}
    return {
        job: partial(batch.submit, job=job, subjects=part, folder=folder)
        for job, part in jobs.items()
    }


def caption_images(
    services: Services, request: DescribeRequest, *, out_of_time: Callable[[], bool]
) -> JSON | None:
    """Caption the run's images and store what they say for PublishRun.

    What batch jobs wrote counts first, also of those that failed or expired. Returns the address
    and how many of the images have a caption, with a note where some have none for a reason that
    another run may mend; None when no captions are asked for.
    """
    name = request.plan["captioner"]
    if not name:
        return None
    captioner = services.open_captioner(name)
    wanted = _wanted(services, request)
    if "captions" in request.clusters["batch"]:
        _collect(services, request, captioner.key, len(wanted))
    known = _stored(services, captioner.key, wanted)
    left = _briefs(services, request, [i for i in wanted if i not in known])
    asked, why = 0, ""
    while asked < len(left) and not why:
        if out_of_time():
            why = NO_TIME
            break
        chunk = left[asked : asked + _CHUNK]
        asked += len(chunk)
        try:
            said = captioner.caption(chunk, out_of_time=out_of_time)
        except ImageclustError as error:
            logger.warning("Run %s: %s", request.run_id, error)
            why = str(error)
            continue
        told = {
            brief.image_id: {"caption": text, "model": captioner.model}
            for brief, text in zip(chunk, said, strict=True)
            if text is not None
        }
        _keep(services, captioner.key, told)
        known |= told
        if None in said and out_of_time():
            why = NO_TIME
    rows = [{"image_id": image_id, **known[image_id]} for image_id in wanted if image_id in known]
    bucket, key = services.settings.data_bucket, keys.captions_key(request.run_id)
    services.store.write(
        keys.join_uri(bucket, key), to_json_lines(rows), content_type="application/jsonl"
    )
    missing = f"{len(wanted) - len(rows):,} of {counted(len(wanted), 'image')}"
    note = f"no caption for {missing}: {why}"
    return {
        "bucket": bucket,
        "key": key,
        "model": captioner.model,
        "wanted": len(wanted),
        "given": len(rows),
        "notes": [note] if why else [],
    }


def read_captions(services: Services, captions: JSON | None) -> dict[str, JSON]:
    """What DescribeClusters stored, by image id: ``caption`` and the ``model`` that said it."""
    if captions is None:
        return {}
    uri = keys.join_uri(captions["bucket"], captions["key"])
    return {row.pop("image_id"): row for row in parse_json_lines(services.store.read(uri))}


def _wanted(services: Services, request: DescribeRequest) -> list[str]:
    """Ids of the images to caption, sorted.

    The one place where images are left out: rejected files, and what moderation flagged, which is
    shown to no model and described on no page.
    """
    if request.config.captions == "off":
        return []
    places = read_rows(services, request.clusters, "assignments.jsonl")
    wanted = {row["image_id"] for row in places if row["status"] != "rejected"}
    if request.config.captions == "exemplars":
        clusters = read_rows(services, request.clusters, "clusters.jsonl")
        wanted &= {image_id for cluster in clusters for image_id in cluster["exemplars"]}
    if request.config.moderation == "on":
        wanted -= read_answers(services, sorted(wanted), request.plan["labeler"]).flagged.keys()
    return sorted(wanted)


def _briefs(
    services: Services, request: DescribeRequest, image_ids: Sequence[str]
) -> list[ImageBrief]:
    """What a captioner is told: labels of the image itself, not those spread to it."""
    labels = read_answers(services, image_ids, request.plan["labeler"]).labels
    bucket = services.settings.data_bucket
    return [
        ImageBrief(
            image_id=image_id,
            thumbnail=keys.join_uri(bucket, keys.thumbnail_key(image_id)),
            labels=labels.get(image_id, ()),
        )
        for image_id in image_ids
    ]


def _without(services: Services, request: DescribeRequest, image_ids: Sequence[str]) -> list[str]:
    if not image_ids:
        return []
    known = _stored(services, services.open_captioner(request.plan["captioner"]).key, image_ids)
    return [image_id for image_id in image_ids if image_id not in known]


def _stored(services: Services, captioner: str, image_ids: Iterable[str]) -> dict[str, JSON]:
    """Stored captions by image id; a captioner without a key stores none."""
    if not captioner:
        return {}
    found = services.table.get_many(
        (keys.caption_pk(captioner, image_id), keys.POINTER_SK) for image_id in image_ids
    )
    return {
        pk.rpartition("#")[2]: {"caption": item["caption"], "model": item["model"]}
        for (pk, _), item in found.items()
    }


def _keep(services: Services, captioner: str, told: Mapping[str, JSON]) -> None:
    if captioner:
        services.table.put_many(
            {"pk": keys.caption_pk(captioner, image_id), "sk": keys.POINTER_SK, **said}
            for image_id, said in told.items()
        )


def _collect(services: Services, request: DescribeRequest, captioner: str, images: int) -> None:
    """Keep what the run's batch jobs wrote; of jobs that were never started there is nothing."""
    batch = services.open_batch_captioner(request.plan["captioner"])
    if batch is None:
        return
    for number in range(math.ceil(images / _A_JOB)):
        job = job_name("caption", request.run_id, number)
        said = batch.collect(job=job, folder=request.folder(services))
        _keep(
            services,
            captioner,
            {i: {"caption": text, "model": batch.model} for i, text in said.items()},
        )
