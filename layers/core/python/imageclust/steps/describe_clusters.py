"""DescribeClusters and DescribeInBatch: briefs to names, stored by digest."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from imageclust import keys
from imageclust.descriptions import ClusterNames, DeterministicDescriber, merge_names
from imageclust.errors import Conflict, ImageclustError, NotFound
from imageclust.models import (
    JSON,
    ClusterBrief,
    ClusterName,
    RunConfig,
    digest_of,
    parse_json_lines,
    to_json_lines,
)
from imageclust.ports import BatchDescriber, BatchEmbedder, Describer
from imageclust.steps.captions import NO_TIME, caption_images, caption_jobs, captions_left
from imageclust.steps.gather import read_rows
from imageclust.steps.start_run import run_record
from imageclust.wiring import Services

logger = logging.getLogger(__name__)

_CREATION_SECONDS = 900  # between saving the token and the service knowing the job
_WAIT_SECONDS = 90_000  # the time-out of the states that wait for batch jobs


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
                job = job_name(request.run_id, name)
                known[name] = batch.collect(job=job, folder=request.folder(services))
    names = _store_names(services, request, known, out_of_time=out_of_time)
    captions = caption_images(services, request, out_of_time=out_of_time)
    return {**names, "captions": captions}


def describe_in_batch(services: Services, request: DescribeRequest) -> JSON:
    """Start a batch job a model for all clusters, and those of the captions, as they are due.

    The token is saved first: an answer may be quick. A job that cannot be created is left out as
    long as another one can; what it was to do is done on demand then.
    """
    starts: dict[str, Callable[[], None]] = {}
    describers: dict[str, str] = {}
    if "names" in request.clusters["batch"]:
        briefs, folder = read_briefs(services, request.clusters), request.folder(services)
        for name in request.config.describers:
            batch, job = (
                services.open_batch_describer(name, request.sees(name)),
                job_name(request.run_id, name),
            )
            if batch is not None:
                describers[job] = name
                starts[job] = partial(batch.submit, job=job, subjects=briefs, folder=folder)
    if "captions" in request.clusters["batch"]:
        captions = caption_jobs(services, request)
        describers |= {job: str(request.plan["captioner"]) for job in captions}
        starts |= captions
    item: JSON = {
        "pk": keys.TOKENS_PK,
        "sk": job_name(request.run_id),
        "token": request.token,
        "run_id": request.run_id,
        "jobs": describers,
        "saved": time.time(),
    }
    services.table.put(item)
    refused: dict[str, ImageclustError] = {}
    for job, start in starts.items():
        try:
            start()
        except ImageclustError as error:
            logger.warning("Run %s: %s", request.run_id, error)
            refused[job] = error
    started = {job: name for job, name in describers.items() if job not in refused}
    if not started:
        services.table.delete(keys.TOKENS_PK, item["sk"])
        raise next(iter(refused.values()), Conflict("there is nothing left for a batch job"))
    if refused:
        services.table.put({**item, "jobs": started})
    return {"jobs": list(started)}


def settle_batch_jobs(services: Services) -> JSON:
    """Return the token of every run whose batch jobs have all ended; by their event and the poll.

    Events come late, twice or never, so both callers do the same: look at every job that waits.
    The jobs of a run that was cancelled are stopped.

    Raises:
        ImageclustError: some jobs could not be looked at; those of all other runs were.
    """
    settled = 0
    failed: list[ImageclustError] = []
    for item in services.table.query(keys.TOKENS_PK).items:
        try:
            settled += _settle(services, item)
        except ImageclustError as error:
            logger.warning("Run %s: %s", item["run_id"], error)
            failed.append(error)
            if time.time() - item["saved"] > _WAIT_SECONDS:  # nobody waits for it any more
                services.table.delete(keys.TOKENS_PK, item["sk"])
    if failed:
        raise failed[0]
    return {"settled": settled}


def _settle(services: Services, item: JSON) -> bool:
    """Return the token of one run, if its batch jobs have all ended."""
    batches = {job: _batch_of(services, item, job) for job in item["jobs"]}
    states = {job: _job_state(batch, item, job) for job, batch in batches.items()}
    if "running" in states.values():
        if _cancelled(services, item["run_id"]):
            for job, batch in batches.items():
                if batch is not None and states[job] == "running":
                    batch.stop(job=job)
        return False
    try:
        if "done" in states.values():
            services.workflows.succeed(item["token"], {"jobs": states})
        else:
            told = ", ".join(f"{job} as {state}" for job, state in states.items())
            services.workflows.fail(
                item["token"], "BatchJobFailed", f"the batch inference ended: {told}"
            )
    except NotFound:
        pass  # the state timed out, the run was cancelled or another caller was quicker
    services.table.delete(keys.TOKENS_PK, item["sk"])
    return True


def _batch_of(services: Services, item: JSON, job: str) -> BatchDescriber | BatchEmbedder | None:
    if "embedder" in item:
        return services.open_batch_embedder(item["embedder"])
    return services.open_batch_describer(item["jobs"][job], False)


def _job_state(batch: BatchDescriber | BatchEmbedder | None, item: JSON, job: str) -> str:
    state = "failed" if batch is None else batch.status(job=job)
    fresh = time.time() - item["saved"] < _CREATION_SECONDS
    return "running" if state == "unknown" and fresh else state


def _cancelled(services: Services, run_id: str) -> bool:
    run = run_record(services.table, run_id)
    return run is not None and run["state"] == "CANCELLED"


def read_briefs(services: Services, clusters: JSON) -> list[ClusterBrief]:
    return [ClusterBrief.from_json(row) for row in read_rows(services, clusters, "briefs.jsonl")]


def read_names(services: Services, names: JSON) -> dict[str, ClusterNames]:
    uri = keys.join_uri(names["bucket"], names["key"])
    rows = parse_json_lines(services.store.read(uri))
    return {row["cluster_id"]: ClusterNames.from_json(row) for row in rows}


def job_name(run_id: str, describer: str = "") -> str:
    """Name of a run's batch job with one describer: 1 to 63 of ``[a-zA-Z0-9-]`` for Bedrock."""
    return f"describe-{digest_of([run_id, describer])[:24]}"


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
