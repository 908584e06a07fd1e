"""DescribeClusters and DescribeInBatch: briefs to names, stored by digest."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from imageclust import keys
from imageclust.descriptions import ClusterNames, DeterministicDescriber, merge_names
from imageclust.errors import ImageclustError
from imageclust.models import (
    JSON,
    ClusterBrief,
    ClusterName,
    RunConfig,
    digest_of,
    parse_json_lines,
    to_json_lines,
)
from imageclust.ports import Describer
from imageclust.steps.batch_jobs import job_name, start_jobs
from imageclust.steps.captions import NO_TIME, caption_images, caption_jobs, captions_left
from imageclust.steps.gather import read_rows
from imageclust.wiring import Services

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DescribeRequest:
    """Input of both states: what PlanRun and ClusterImages returned."""

    run_id: str
    collection: str
    config: RunConfig
    clusters: JSON
    plan: JSON
    token: str = ""

    def folder(self, services: Services) -> str:
        """Where the run's batch jobs read and write."""
        return keys.join_uri(services.settings.data_bucket, keys.bedrock_key(self.run_id, ""))

    def sees(self, describer: str) -> bool:
        return describer in self.plan["sees"]

    @classmethod
    def from_json(cls, data: JSON) -> "DescribeRequest":
        return cls(
            run_id=data["run_id"],
            collection=data["collection"],
            config=RunConfig.from_json(data["config"]),
            clusters=data["clusters"],
            plan=data["plan"],
            token=data.get("token", ""),
        )


def parts_in_batch(services: Services, request: DescribeRequest) -> list[str]:
    """What batch jobs do for the run, of ``names`` and ``captions``; what is stored needs none.

    A job is made when batch is asked for, or when there are enough records for one.
    """
    config = request.config
    least = services.settings.bedrock_batch_minimum  # 0: there is no such service here
    if config.describe == "on_demand":
        return []

    def enough(records: int) -> bool:
        return records > 0 and (config.describe == "batch" or 0 < least <= records)

    batches = [services.open_batch_describer(name, False) for name in config.describers]
    parts = []
    if enough(request.clusters["clusters"]) and any(batches):
        names = _Names.of(services, request)
        if services.store.size(_uri(services, names.key)) is None:
            parts.append("names")
    captioner = request.plan["captioner"]
    able = captioner and services.open_batch_captioner(captioner) is not None
    if able and enough(captions_left(services, request)):
        parts.append("captions")
    return parts


def describe_clusters(
    services: Services,
    request: DescribeRequest,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> JSON:
    """Name every cluster, then caption the images that the run wants captions of.

    What the run's batch jobs wrote is not asked for again on demand, also if they failed or
    expired: a part of their answers may be there.
    """
    deadline = clock() + services.settings.describe_seconds

    def out_of_time() -> bool:
        return clock() > deadline

    known: dict[str, Mapping[str, ClusterName]] = {}
    if "names" in request.clusters["batch"]:
        for name in request.config.describers:
            batch = services.open_batch_describer(name, request.sees(name))
            if batch is not None:
                job = job_name("describe", request.run_id, name)
                known[name] = batch.collect(job=job, folder=request.folder(services))
    names = _store_names(services, request, known, out_of_time=out_of_time)
    captions = caption_images(services, request, out_of_time=out_of_time)
    return {**names, "captions": captions}


def describe_in_batch(services: Services, request: DescribeRequest) -> JSON:
    """Start a batch job a model for all clusters, and those of the captions, as they are due."""
    starts: dict[str, Callable[[], None]] = {}
    if "names" in request.clusters["batch"]:
        briefs, folder = read_briefs(services, request.clusters), request.folder(services)
        for name in request.config.describers:
            batch = services.open_batch_describer(name, request.sees(name))
            if batch is not None:
                job = job_name("describe", request.run_id, name)
                starts[job] = partial(batch.submit, job=job, subjects=briefs, folder=folder)
    if "captions" in request.clusters["batch"]:
        starts |= caption_jobs(services, request)
    state = "DescribeInBatch"
    started = start_jobs(services, state, run_id=request.run_id, token=request.token, starts=starts)
    return {"jobs": started}


def read_briefs(services: Services, clusters: JSON) -> list[ClusterBrief]:
    return [ClusterBrief.from_json(row) for row in read_rows(services, clusters, "briefs.jsonl")]


def read_names(services: Services, names: JSON) -> dict[str, ClusterNames]:
    uri = keys.join_uri(names["bucket"], names["key"])
    rows = parse_json_lines(services.store.read(uri))
    return {row["cluster_id"]: ClusterNames.from_json(row) for row in rows}


@dataclass(frozen=True)
class _Names:
    """What is asked of whom, and where the answers are kept."""

    briefs: list[ClusterBrief]
    describers: dict[str, Describer]
    digest: str

    @classmethod
    def of(cls, services: Services, request: DescribeRequest) -> "_Names":
        briefs = read_briefs(services, request.clusters)
        describers = {
            name: services.open_describer(name, request.sees(name))
            for name in request.config.describers
        }
        told = [brief.to_json() for brief in briefs]
        models = [describer.key for describer in describers.values()]
        digest = digest_of([models, request.config.descriptions_by, told])
        return cls(briefs, describers, digest[:32])

    @property
    def key(self) -> str:
        return keys.descriptions_key(self.digest)


def _store_names(
    services: Services,
    request: DescribeRequest,
    known: Mapping[str, Mapping[str, ClusterName]],
    *,
    out_of_time: Callable[[], bool],
) -> JSON:
    """Ask every describer for the clusters that it has no name for, and store all answers.

    A describer that fails as a whole does not fail the run: the answers of the others remain, and
    the deterministic describer names what nobody did. Names that lack answers for such a reason
    are stored for this run alone, so that the next one asks again.
    """
    names = _Names.of(services, request)
    briefs, describers, key = names.briefs, names.describers, names.key
    notes: list[str] = []
    if services.store.size(_uri(services, key)) is None:
        answers = {name: dict(known.get(name, {})) for name in describers}
        for name, describer in describers.items():
            missing = [brief for brief in briefs if brief.cluster_id not in answers[name]]
            try:
                found = describer.describe(missing, out_of_time=out_of_time) if missing else []
            except ImageclustError as error:
                logger.warning("Run %s: %s", request.run_id, error)
                notes.append(_without(name, len(missing), len(briefs), str(error)))
                continue
            if out_of_time() and None in found:
                left = sum(given is None for given in found)
                notes.append(_without(name, left, len(briefs), NO_TIME))
            answers[name] |= {
                brief.cluster_id: given
                for brief, given in zip(missing, found, strict=True)
                if given is not None
            }
        named = merge_names(
            briefs,
            {**answers, "": _plain_names(briefs, answers)},
            descriptions_by=request.config.descriptions_by,
        )
        if notes:
            key = keys.descriptions_key(digest_of([names.digest, request.run_id])[:32])
        rows = [each.to_json() for each in named]
        services.store.write(
            _uri(services, key), to_json_lines(rows), content_type="application/jsonl"
        )
    return {
        "bucket": services.settings.data_bucket,
        "key": key,
        "model": ", ".join(describer.key for describer in describers.values()),
        "described": len(briefs),
        "notes": notes,
    }


def _plain_names(
    briefs: Sequence[ClusterBrief], answers: Mapping[str, Mapping[str, ClusterName]]
) -> dict[str, ClusterName]:
    """Names without a model for the clusters that no describer named."""
    named = {cluster_id for found in answers.values() for cluster_id in found}
    if len(named) == len(briefs):
        return {}
    # All of them at once: what tells a cluster apart depends on the others.
    plain = DeterministicDescriber().describe(briefs)
    return {
        brief.cluster_id: name
        for brief, name in zip(briefs, plain, strict=True)
        if brief.cluster_id not in named
    }


def _without(name: str, missing: int, clusters: int, why: str) -> str:
    which = "the clusters" if missing == clusters else f"{missing} of {clusters} clusters"
    return f"the describer {name} did not name {which}: {why}"


def _uri(services: Services, key: str) -> str:
    return keys.join_uri(services.settings.data_bucket, key)
