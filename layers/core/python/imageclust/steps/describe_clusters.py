"""DescribeClusters, DescribeInBatch and CollectDescriptions: briefs to names, stored by digest."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imageclust import keys
from imageclust.descriptions import ClusterNames, DeterministicDescriber, merge_names
from imageclust.errors import ImageclustError, InvalidInput, NotFound, Permanent, Retryable
from imageclust.models import (
    JSON,
    ClusterBrief,
    ClusterName,
    RunConfig,
    digest_of,
    parse_json_lines,
    to_json_lines,
)
from imageclust.wiring import Services

logger = logging.getLogger(__name__)

_CREATION_SECONDS = 900  # between saving the token and the service knowing the job


@dataclass(frozen=True)
class DescribeRequest:
    """Input of the three states: what PlanRun and ClusterImages returned."""

    run_id: str
    collection: str
    config: RunConfig
    clusters: JSON
    plan: JSON
    token: str = ""

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


def describe_clusters(services: Services, request: DescribeRequest) -> JSON:
    """Name every cluster; what the run's batch jobs wrote is not asked for again on demand.

    That holds for jobs that failed or expired too: a part of their answers may be there.
    """
    known: dict[str, Mapping[str, ClusterName]] = {}
    if request.clusters["describe"] == "batch":
        folder = _folder(services, request.run_id)
        for name in request.config.describers:
            batch = services.open_batch_describer(name, request.sees(name))
            if batch is not None:
                known[name] = batch.collect(job=job_name(request.run_id, name), folder=folder)
    return _store_names(services, request, known)


def describe_in_batch(services: Services, request: DescribeRequest) -> JSON:
    """Start one batch job a model, each for all clusters.

    The token is saved first: an answer may be quick. A job that cannot be created is left out as
    long as another one can; its clusters are named on demand then.
    """
    briefs = read_briefs(services, request.clusters)
    folder = _folder(services, request.run_id)
    jobs = {job_name(request.run_id, name): name for name in request.config.describers}
    batches = {
        job: services.open_batch_describer(name, request.sees(name)) for job, name in jobs.items()
    }
    item: JSON = {
        "pk": keys.TOKENS_PK,
        "sk": job_name(request.run_id),
        "token": request.token,
        "run_id": request.run_id,
        "jobs": {job: jobs[job] for job, batch in batches.items() if batch is not None},
        "saved": time.time(),
    }
    services.table.put(item)
    refused: dict[str, ImageclustError] = {}
    for job, batch in batches.items():
        try:
            if batch is not None:
                batch.submit(job=job, subjects=briefs, folder=folder)
        except ImageclustError as error:
            logger.warning("Run %s: %s", request.run_id, error)
            refused[job] = error
    started = {job: name for job, name in item["jobs"].items() if job not in refused}
    if not started:
        raise next(iter(refused.values()), InvalidInput("no describer of this run works in batch"))
    if refused:
        services.table.put({**item, "jobs": started})
    return {"jobs": list(started), "records": len(briefs)}


def settle_batch_jobs(services: Services) -> JSON:
    """Return the token of every run whose batch jobs have all ended; by their event and the poll.

    Events come late, twice or never, so both callers do the same: look at every job that waits.
    """
    settled = 0
    for item in services.table.query(keys.TOKENS_PK).items:
        states = {job: _job_state(services, item, job) for job in item["jobs"]}
        if "running" in states.values():
            continue
        try:
            if "done" in states.values():
                services.workflows.succeed(item["token"], {"jobs": states})
            else:
                told = ", ".join(f"{job} as {state}" for job, state in states.items())
                services.workflows.fail(
                    item["token"], "BatchJobFailed", f"the batch inference ended: {told}"
                )
        except NotFound:
            pass  # the state timed out or another caller was quicker
        services.table.delete(keys.TOKENS_PK, item["sk"])
        settled += 1
    return {"settled": settled}


def _job_state(services: Services, item: JSON, job: str) -> str:
    batch = (
        services.open_batch_embedder(item["embedder"])
        if "embedder" in item
        else services.open_batch_describer(item["jobs"][job], False)
    )
    state = "failed" if batch is None else batch.status(job=job)
    fresh = time.time() - item["saved"] < _CREATION_SECONDS
    return "running" if state == "unknown" and fresh else state


def read_briefs(services: Services, clusters: JSON) -> list[ClusterBrief]:
    uri = keys.join_uri(clusters["bucket"], clusters["prefix"] + "briefs.jsonl")
    return [ClusterBrief.from_json(row) for row in parse_json_lines(services.store.read(uri))]


def read_names(services: Services, names: JSON) -> dict[str, ClusterNames]:
    uri = keys.join_uri(names["bucket"], names["key"])
    rows = parse_json_lines(services.store.read(uri))
    return {row["cluster_id"]: ClusterNames.from_json(row) for row in rows}


def job_name(run_id: str, describer: str = "") -> str:
    """Name of a run's batch job with one describer: 1 to 63 of ``[a-zA-Z0-9-]`` for Bedrock."""
    return f"describe-{digest_of([run_id, describer])[:24]}"


def _folder(services: Services, run_id: str) -> str:
    return keys.join_uri(services.settings.data_bucket, keys.bedrock_key(run_id, ""))


def _store_names(
    services: Services, request: DescribeRequest, known: Mapping[str, Mapping[str, ClusterName]]
) -> JSON:
    """Ask every describer for the clusters that it has no name for, and store all answers.

    A describer that fails as a whole does not fail the run: the answers of the others remain, and
    the deterministic describer names what nobody did. Names that lack answers for such a reason
    are stored for this run alone, so that the next one asks again.
    """
    briefs = read_briefs(services, request.clusters)
    describers = {
        name: services.open_describer(name, request.sees(name))
        for name in request.config.describers
    }
    models = [describer.key for describer in describers.values()]
    digest = digest_of(
        [models, request.config.descriptions_by, [brief.to_json() for brief in briefs]]
    )
    notes: list[str] = []
    key = keys.descriptions_key(digest[:32])
    if services.store.size(_uri(services, key)) is None:
        answers = {name: dict(known.get(name, {})) for name in describers}
        for name, describer in describers.items():
            missing = [brief for brief in briefs if brief.cluster_id not in answers[name]]
            try:
                found = describer.describe(missing) if missing else []
            except (Retryable, Permanent, NotFound) as error:
                logger.warning("Run %s: %s", request.run_id, error)
                notes.append(_without(name, len(missing), len(briefs), error))
                continue
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
            key = keys.descriptions_key(digest_of([digest, request.run_id])[:32])
        rows = [names.to_json() for names in named]
        services.store.write(
            _uri(services, key), to_json_lines(rows), content_type="application/jsonl"
        )
    return {
        "bucket": services.settings.data_bucket,
        "key": key,
        "model": ", ".join(models),
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


def _without(name: str, missing: int, clusters: int, error: ImageclustError) -> str:
    which = "the clusters" if missing == clusters else f"{missing} of {clusters} clusters"
    return f"the describer {name} did not name {which}: {error}"


def _uri(services: Services, key: str) -> str:
    return keys.join_uri(services.settings.data_bucket, key)
