"""DescribeClusters, DescribeInBatch and CollectDescriptions: briefs to names, stored by digest."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from imageclust import keys
from imageclust.errors import NotFound
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

_CREATION_SECONDS = 900  # between saving the token and the service knowing the job


@dataclass(frozen=True)
class DescribeRequest:
    """Input of the three states; ``clusters`` is what ClusterImages returned."""

    run_id: str
    collection: str
    config: RunConfig
    clusters: JSON
    token: str = ""

    @classmethod
    def from_json(cls, data: JSON) -> "DescribeRequest":
        return cls(
            run_id=data["run_id"],
            collection=data["collection"],
            config=RunConfig.from_json(data["config"]),
            clusters=data["clusters"],
            token=data.get("token", ""),
        )


def describe_clusters(services: Services, request: DescribeRequest) -> JSON:
    """Name every cluster on demand; names that are stored already are not asked for again."""
    briefs = read_briefs(services, request.clusters)
    return _store_names(services, request, briefs, {})


def describe_in_batch(services: Services, request: DescribeRequest) -> JSON:
    """Start one batch job for all clusters. The token is saved first: its answer may be quick."""
    briefs = read_briefs(services, request.clusters)
    job = job_name(request.run_id)
    services.table.put(
        {
            "pk": keys.TOKENS_PK,
            "sk": job,
            "token": request.token,
            "run_id": request.run_id,
            "describer": request.config.describer,
            "saved": time.time(),
        }
    )
    batch = services.open_batch_describer(request.config.describer)
    batch.submit(job=job, briefs=briefs, folder=_folder(services, request.run_id))
    return {"job": job, "records": len(briefs)}


def settle_batch_jobs(services: Services) -> JSON:
    """Return the token of every batch job that has ended; called by its event and by the poll.

    Events come late, twice or never, so both callers do the same: look at every job that waits.
    """
    settled = 0
    for item in services.table.query(keys.TOKENS_PK).items:
        job = item["sk"]
        status = services.open_batch_describer(item["describer"]).status(job=job)
        fresh = time.time() - item["saved"] < _CREATION_SECONDS
        if status == "running" or (status == "unknown" and fresh):
            continue
        try:
            if status == "done":
                services.workflows.succeed(item["token"], {"job": job})
            else:
                services.workflows.fail(
                    item["token"], "BatchJobFailed", f"the batch inference job ended as {status}"
                )
        except NotFound:
            pass  # the state timed out or another caller was quicker
        services.table.delete(keys.TOKENS_PK, job)
        settled += 1
    return {"settled": settled}


def collect_descriptions(services: Services, request: DescribeRequest) -> JSON:
    """Join the batch job's answers; clusters it failed on are named on demand."""
    briefs = read_briefs(services, request.clusters)
    batch = services.open_batch_describer(request.config.describer)
    names = batch.collect(job=job_name(request.run_id), folder=_folder(services, request.run_id))
    return _store_names(services, request, briefs, names)


def read_briefs(services: Services, clusters: JSON) -> list[ClusterBrief]:
    uri = keys.join_uri(clusters["bucket"], clusters["prefix"] + "briefs.jsonl")
    return [ClusterBrief.from_json(row) for row in parse_json_lines(services.store.read(uri))]


def read_names(services: Services, names: JSON) -> dict[str, ClusterName]:
    uri = keys.join_uri(names["bucket"], names["key"])
    rows = parse_json_lines(services.store.read(uri))
    return {row["cluster_id"]: ClusterName.from_json(row["name"]) for row in rows}


def job_name(run_id: str) -> str:
    """Name of a run's batch job: 1 to 63 of ``[a-zA-Z0-9-]``, as Bedrock asks."""
    return f"describe-{digest_of(run_id)[:24]}"


def _folder(services: Services, run_id: str) -> str:
    return keys.join_uri(services.settings.data_bucket, keys.bedrock_key(run_id, ""))


def _store_names(
    services: Services,
    request: DescribeRequest,
    briefs: Sequence[ClusterBrief],
    known: dict[str, ClusterName],
) -> JSON:
    describer = services.open_describer(request.config.describer)
    digest = digest_of([describer.key, [brief.to_json() for brief in briefs], sorted(known)])[:32]
    uri = keys.join_uri(services.settings.data_bucket, keys.descriptions_key(digest))
    if services.store.size(uri) is None:
        missing = [brief for brief in briefs if brief.cluster_id not in known]
        asked = describer.describe(missing) if missing else []
        names = known | {b.cluster_id: n for b, n in zip(missing, asked, strict=True)}
        rows = [{"cluster_id": b.cluster_id, "name": names[b.cluster_id].to_json()} for b in briefs]
        services.store.write(uri, to_json_lines(rows), content_type="application/jsonl")
    return {
        "bucket": services.settings.data_bucket,
        "key": keys.descriptions_key(digest),
        "model": describer.key,
        "described": len(briefs),
    }
