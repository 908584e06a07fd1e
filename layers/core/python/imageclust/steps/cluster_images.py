"""ClusterImages: the vectors of a run to clusters, with a brief of each for the describers.

The result is stored under a digest of everything it depends on: the same images, configuration
and models give the stored result again, also in another run.
"""

import json
from dataclasses import dataclass

import numpy as np

from imageclust import keys
from imageclust.clustering import ClusteringResult, cluster_vectors
from imageclust.descriptions import make_briefs
from imageclust.errors import InvalidInput
from imageclust.labels import Label, visual_attributes
from imageclust.models import JSON, RunConfig, digest_of, to_json_lines
from imageclust.steps.embed import npy_bytes
from imageclust.steps.gather import Gathered, gather, read_files, read_labels
from imageclust.steps.plan_run import clustering_config
from imageclust.wiring import Services

_ENGINE = 1  # raise when a change of the engine or of the documents changes what is stored


@dataclass(frozen=True)
class ClusterRequest:
    """Input of ClusterImages."""

    run_id: str
    collection: str
    config: RunConfig
    plan: JSON

    @classmethod
    def from_json(cls, data: JSON) -> "ClusterRequest":
        return cls(
            run_id=data["run_id"],
            collection=data["collection"],
            config=RunConfig.from_json(data["config"]),
            plan=data["plan"],
        )


def cluster_images(services: Services, request: ClusterRequest) -> JSON:
    """Cluster the run's images; returns the address, counts and how to describe.

    Raises:
        InvalidInput: not one file is an image, or bounds that the images left cannot meet.
    """
    config, plan = request.config, request.plan
    files = read_files(services, plan["files"])
    gathered = gather(services, (f.image_id for f in files if f.image_id), plan["embedder"])
    if not gathered.image_ids:
        reasons = sorted({*gathered.rejected.values(), *(f.reason for f in files if f.reason)})
        raise InvalidInput(
            f"none of the {len(files)} files of '{request.collection}' is an image that can be "
            f"read (for one: {reasons[0]})"
        )
    labels = read_labels(services, gathered.image_ids, plan["labeler"])
    clustering = clustering_config(config)
    digest = digest_of(
        {
            "engine": _ENGINE,
            "config": repr(clustering),
            "embedder": plan["embedder"],
            "labeler": plan["labeler"],
            "labelled": sorted(labels),
            "images": gathered.image_ids,
            "rejected": sorted(gathered.rejected.items()),
        }
    )[:32]
    bucket = services.settings.data_bucket

    def address(name: str) -> str:
        return keys.join_uri(bucket, keys.clusters_key(digest, name))

    if services.store.size(address("summary.json")) is None:
        result = cluster_vectors(gathered.vectors, config=clustering)
        documents = _documents(services, gathered, labels, result)
        services.store.write(address("embeddings.npy"), npy_bytes(gathered.vectors))
        for name, data in documents.items():
            services.store.write(address(name), data)
    summary = json.loads(services.store.read(address("summary.json")))
    return {
        "bucket": bucket,
        "prefix": keys.clusters_key(digest, ""),
        "digest": digest,
        **summary["counts"],
        "describe": _how_to_describe(services, config, summary["counts"]["clusters"]),
    }


def _how_to_describe(services: Services, config: RunConfig, clusters: int) -> str:
    """``batch`` when asked for, or when there are enough clusters for a job of the service."""
    if config.describe != "auto":
        return config.describe
    least = services.settings.bedrock_batch_minimum  # 0: there is no such service here
    batch = 0 < least <= clusters and config.describer != "deterministic"
    return "batch" if batch else "on_demand"


def _documents(
    services: Services,
    gathered: Gathered,
    labels: dict[str, tuple[Label, ...]],
    result: ClusteringResult,
) -> dict[str, bytes]:
    """The files of a clustering by name; ``summary.json`` comes last and makes them count."""
    ids = gathered.image_ids
    cluster_ids = [cluster_id(record.id) for record in result.clusters]
    assignments: list[JSON] = []
    for row, image_id in enumerate(ids):
        label = int(result.labels[row])
        assignments.append(
            {
                "image_id": image_id,
                "status": "outlier" if label < 0 else "clustered",
                "cluster_id": "" if label < 0 else cluster_ids[label],
                "rank": int(result.ranks[row]),
                "margin": round(float(result.margins[row]), 6),
                "map": [round(float(x), 5) for x in result.map2d[row]],
            }
        )
    for image_id, reason in sorted(gathered.rejected.items()):
        assignments.append({"image_id": image_id, "status": "rejected", "reason": reason})
    attributes = {
        image_id: visual_attributes(fact["fingerprint"]["colours"], fact["fingerprint"]["words"])
        for image_id, fact in gathered.facts.items()
    }
    members = [
        [ids[row] for row in np.flatnonzero(result.labels == record.id)]
        for record in result.clusters
    ]
    clusters: list[JSON] = [
        {
            "cluster_id": cluster_ids[record.id],
            "size": record.size,
            "exemplars": [ids[row] for row in record.exemplars],
            "cohesion": round(record.cohesion, 6),
            "silhouette": round(record.silhouette, 6),
        }
        for record in result.clusters
    ]
    briefs = make_briefs(
        cluster_ids,
        members,
        labels=labels,
        attributes=attributes,
        exemplars=[
            [
                keys.join_uri(services.settings.data_bucket, keys.thumbnail_key(image_id))
                for image_id in cluster["exemplars"]
            ]
            for cluster in clusters
        ],
    )
    summary = {
        "counts": {
            "images": len(ids),
            "clusters": len(clusters),
            "outliers": int(np.sum(result.labels < 0)),
            "rejected": len(gathered.rejected),
        },
        "result": result.to_json(),
    }
    return {
        "assignments.jsonl": to_json_lines(assignments),
        "clusters.jsonl": to_json_lines(clusters),
        "briefs.jsonl": to_json_lines([brief.to_json() for brief in briefs]),
        "summary.json": json.dumps(summary).encode(),
    }


def cluster_id(number: int) -> str:
    """``c0001`` is the largest cluster."""
    return f"c{number + 1:04d}"
