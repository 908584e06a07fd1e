"""ClusterImages: the vectors of a run to clusters, with a brief of each for the describers.

The result is stored under a digest of everything it depends on: the same images, configuration
and models give the stored result again, also in another run. A search too long for one call comes
back with ``complete: false`` and the workflow calls again; what was tried stays tried.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from imageclust import keys
from imageclust.clustering import ClusteringResult
from imageclust.descriptions import make_briefs
from imageclust.errors import InvalidInput
from imageclust.labels import Label, visual_attributes
from imageclust.labels.fusion import DEFAULT_WEIGHT, fuse, label_block
from imageclust.late import np
from imageclust.models import JSON, RunConfig, digest_of, to_json_lines
from imageclust.steps.copies import NO_COPIES, Copies, find_copies
from imageclust.steps.describe_clusters import DescribeRequest, parts_in_batch
from imageclust.steps.embed import npy_bytes
from imageclust.steps.exemplar_labels import (
    Spread,
    choose_exemplars,
    label_chosen,
    spread_over,
)
from imageclust.steps.gather import Gathered, gather, kept_paths, read_answers, read_files
from imageclust.steps.plan_run import clustering_config
from imageclust.steps.search_progress import SearchProgress
from imageclust.steps.start_run import title_of
from imageclust.wiring import Services

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ENGINE = 9  # raise when a change of the engine or of the documents changes what is stored


@dataclass(frozen=True)
class ClusterRequest:
    """Input of ClusterImages."""

    run_id: str
    collection: str
    config: RunConfig
    plan: JSON

    @classmethod
    def from_json(cls, data: JSON) -> ClusterRequest:
        return cls(
            run_id=data["run_id"],
            collection=data["collection"],
            config=RunConfig.from_json(data["config"]),
            plan=data["plan"],
        )


def cluster_images(
    services: Services, request: ClusterRequest, *, clock: Callable[[], float] = time.monotonic
) -> JSON:
    """Cluster the run's images; returns the address, counts and how to describe.

    Confirmed copies of one picture have one vote: the best of them is clustered, the others follow
    it. Labels count beside the vectors with the run's weight. In ``exemplars`` mode some hundred
    images are labelled here, because only now it is known which.

    Raises:
        InvalidInput: not one file is an image, or bounds that the images left cannot meet.
    """
    deadline = clock() + services.settings.cluster_seconds
    config, plan = request.config, request.plan
    files = read_files(services, plan["files"])
    wanted = (file.image_id for file in files if file.image_id)
    gathered = gather(services, wanted, plan["embedder"], run=request.run_id)
    if not gathered.image_ids:
        reasons = sorted({*gathered.rejected.values(), *(f.reason for f in files if f.reason)})
        raise InvalidInput(
            f"no file in '{title_of(services.table, request.collection)}' is a picture that can be "
            f"read (seen: {len(files):,}, for one: {reasons[0]})"
        )
    copies, keep = NO_COPIES, list[str]()
    if config.duplicates == "confirmed":
        kept = kept_paths(files, config.keepers)
        keep = sorted({file.image_id for file in files if file.image_id and file.path in kept})
        sizes = {file.image_id: file.size for file in files if file.image_id}
        copies = find_copies(services, gathered, plan["embedder"], sizes=sizes, keep=keep)
    # Confirmed copies have no vote of their own.
    voters = gathered.without(copies.keepers) if copies.keepers else gathered
    chosen, asked, labeler = None, gathered.image_ids, plan["labeler"]
    if config.labels == "exemplars" and labeler:
        chosen = choose_exemplars(services, voters, plan["embedder"], seed=config.seed)
        asked = chosen.image_ids
        labeler = label_chosen(services, chosen, model=plan["label"]["model"])
    answers = read_answers(services, asked, labeler)
    labels = answers.labels
    weight = _label_weight(config)
    clustering = clustering_config(config)
    digest = digest_of(
        {
            "engine": _ENGINE,
            "config": repr(clustering),
            "duplicates": config.duplicates,
            "keep": keep,
            "embedder": plan["embedder"],
            "labels": config.labels,
            "labeler": labeler,
            "labelled": sorted(labels),
            "flagged": sorted(answers.flagged),
            "label_weight": weight if labels else 0,
            "images": gathered.image_ids,
            "rejected": sorted(gathered.rejected.items()),
        }
    )[:32]
    bucket = services.settings.data_bucket

    def address(name: str) -> str:
        return keys.join_uri(bucket, keys.clusters_key(digest, name))

    if services.store.size(address("summary.json")) is None:
        # With SciPy; a stored result spares it.
        from imageclust.clustering import Paused, cluster_vectors

        spread = None if chosen is None else spread_over(gathered, chosen, labels)
        found = _Found(
            gathered,
            voters,
            copies,
            labels if spread is None else spread.labels,
            spread,
            frozenset(answers.flagged),
        )
        progress = SearchProgress(services.store, bucket, digest)
        try:
            result = cluster_vectors(
                _fused(found, weight=weight, seed=config.seed),
                config=clustering,
                checkpoint=progress,
                pause=lambda: clock() > deadline,
            )
        except Paused as paused:
            progress.flush()
            return {"complete": False, "tried": paused.done, "of": paused.total}
        documents = _documents(services, found, result)
        services.store.write(address("embeddings.npy"), npy_bytes(gathered.vectors))
        tried = _search_labels(found, result)
        services.store.write(address(keys.SEARCH_LABELS), npy_bytes(tried))
        for name, data in documents.items():
            services.store.write(address(name), data)
        progress.forget()
    summary = json.loads(services.store.read(address("summary.json")))
    found_at = {
        "complete": True,
        "bucket": bucket,
        "prefix": keys.clusters_key(digest, ""),
        "digest": digest,
        **summary["counts"],
    }
    parts = parts_in_batch(
        services,
        DescribeRequest(request.run_id, request.collection, config, clusters=found_at, plan=plan),
    )
    return {**found_at, "batch": parts}


def _label_weight(config: RunConfig) -> float:
    """The configured say of the labels, or the default.

    By default spread labels name the clusters and have no say in them: they come from the vectors,
    so they tell nothing new. (Measured with MobileNetV2 and weight .05: NMI falls by .007 on
    houses_rooms and by .006 on caltech45, where the images' own labels add .001 and .004.)
    """
    if config.label_weight is not None:
        return config.label_weight
    return 0.0 if config.labels == "exemplars" else DEFAULT_WEIGHT


@dataclass(frozen=True)
class _Found:
    """All images, those of them that vote, and what is known of them before they are clustered.

    ``flagged`` images are clustered like all others, but stand for no cluster and name none.
    """

    gathered: Gathered
    voters: Gathered
    copies: Copies
    labels: dict[str, tuple[Label, ...]]
    spread: Spread | None
    flagged: frozenset[str]


def _fused(found: _Found, *, weight: float, seed: int) -> NDArray[np.float32]:
    """The voters' vectors without their mean, with their labels beside them when there are any."""
    from imageclust.clustering.geometry import centred_rows

    vectors = centred_rows(found.voters.vectors)
    if not found.labels or weight == 0:
        return vectors
    block = label_block([found.labels.get(image_id, ()) for image_id in found.voters.image_ids])
    return fuse(vectors, block, weight=weight, seed=seed)


def _documents(services: Services, found: _Found, result: ClusteringResult) -> dict[str, bytes]:
    """The files of a clustering by name; ``summary.json`` comes last and makes them count."""
    gathered, copies, ids = found.gathered, found.copies, found.voters.image_ids
    cluster_ids = [cluster_id(record.id) for record in result.clusters]
    clusters: list[JSON] = [
        {
            "cluster_id": cluster_ids[record.id],
            "size": record.size,
            "exemplars": _shown(found, result, record.id, record.exemplars),
            "cohesion": round(record.cohesion, 6),
            "silhouette": round(record.silhouette, 6),
        }
        for record in result.clusters
    ]
    briefs = make_briefs(
        cluster_ids,
        [
            [ids[row] for row in np.flatnonzero(result.labels == record.id)]
            for record in result.clusters
        ],
        labels={i: told for i, told in found.labels.items() if i not in found.flagged},
        attributes={
            image_id: visual_attributes(
                fact["fingerprint"]["colours"], fact["fingerprint"]["words"]
            )
            for image_id, fact in gathered.facts.items()
            if image_id not in found.flagged
        },
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
            "images": len(gathered.image_ids),
            "clusters": len(clusters),
            "outliers": int(np.sum(result.labels < 0)),
            "rejected": len(gathered.rejected),
        },
        "duplicates": {
            "copies": len(copies.keepers),
            "similar": len(copies.similar),
            "compared": copies.compared,
            "cosine_floor": round(copies.cosine_floor, 4),
        },
        "labels": {"labelled": len(found.labels), "spread": 0}
        if found.spread is None
        else found.spread.to_json(),
        "result": _over_all(result, gathered.image_ids, ids, copies),
    }
    return {
        "labels.jsonl": _spread_rows(found.spread),
        "assignments.jsonl": to_json_lines(_places(gathered, ids, result, copies)),
        "clusters.jsonl": to_json_lines(clusters),
        "briefs.jsonl": to_json_lines([brief.to_json() for brief in briefs]),
        "similar.jsonl": to_json_lines(
            [{"a": a, "b": b, "score": s} for a, b, s in copies.similar]
        ),
        "summary.json": json.dumps(summary).encode(),
    }


def _shown(
    found: _Found, result: ClusteringResult, cluster: int, exemplars: Sequence[int]
) -> list[str]:
    """The exemplars that may be shown; where one may not, the next of its cluster by rank."""
    ids = found.voters.image_ids
    shown = [ids[row] for row in exemplars if ids[row] not in found.flagged]
    missing = len(exemplars) - len(shown)
    if missing:
        rows = np.flatnonzero(result.labels == cluster)
        others = (ids[row] for row in rows[np.argsort(result.ranks[rows], kind="stable")])
        spare = (i for i in others if i not in found.flagged and i not in shown)
        shown += list(islice(spare, missing))
    return shown


def _search_labels(found: _Found, result: ClusteringResult) -> NDArray[np.int32]:
    """``(m, n)`` int32: labels that the search's best settings give each image, best first."""
    keepers = found.copies.keepers
    place = {image_id: row for row, image_id in enumerate(found.voters.image_ids)}
    rows = [place[keepers.get(image_id, image_id)] for image_id in found.gathered.image_ids]
    kept = [entry.labels[rows] for entry in result.search if entry.labels is not None]
    return np.stack(kept) if kept else np.empty((0, len(rows)), dtype=np.int32)


def _spread_rows(spread: Spread | None) -> bytes:
    """What PublishRun needs of labels that are stored nowhere else."""
    if spread is None:
        return b""
    return to_json_lines(
        [
            {
                "image_id": image_id,
                "labels": [label.to_json() for label in labels],
                "spread": image_id not in spread.own,
            }
            for image_id, labels in spread.labels.items()
        ]
    )


def _places(
    gathered: Gathered, voters: Sequence[str], result: ClusteringResult, copies: Copies
) -> list[JSON]:
    """What became of each image: voters where the clustering put them, a copy at its keeper's."""
    places: dict[str, JSON] = {}
    for row, image_id in enumerate(voters):
        label = int(result.labels[row])
        places[image_id] = {
            "image_id": image_id,
            "status": "outlier" if label < 0 else "clustered",
            "cluster_id": "" if label < 0 else cluster_id(label),
            "rank": int(result.ranks[row]),
            "margin": round(float(result.margins[row]), 6),
            "map": [round(float(x), 5) for x in result.map2d[row]],
        }
    for image_id, keeper in copies.keepers.items():
        follows = {"image_id": image_id, "status": "duplicate", "duplicate_of": keeper}
        places[image_id] = {**places[keeper], **follows}
    rejected: list[JSON] = [
        {"image_id": image_id, "status": "rejected", "reason": reason}
        for image_id, reason in sorted(gathered.rejected.items())
    ]
    return [places[image_id] for image_id in gathered.image_ids] + rejected


def _over_all(
    result: ClusteringResult, ids: Sequence[str], voters: Sequence[str], copies: Copies
) -> JSON:
    """The clustering of the voters as JSON with a row for every image, as the vectors have.

    A copy's row repeats its keeper's.
    """
    found = result.to_json()
    if len(voters) == len(ids):
        return found
    place = {image_id: row for row, image_id in enumerate(voters)}
    source = [place[copies.keepers.get(image_id, image_id)] for image_id in ids]
    own = {image_id: row for row, image_id in enumerate(ids)}
    target = [own[image_id] for image_id in voters]
    for name in ("labels", "ranks", "margins", "silhouettes", "map2d", "strengths"):
        if found[name] is not None:
            found[name] = [found[name][row] for row in source]
    found["misplaced"] = [target[row] for row in found["misplaced"]]
    for record in found["clusters"]:
        record["medoid"] = target[record["medoid"]]
        record["exemplars"] = [target[row] for row in record["exemplars"]]
    return found


def cluster_id(number: int) -> str:
    """``c0001`` is the largest cluster."""
    return f"c{number + 1:04d}"
