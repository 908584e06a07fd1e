"""A run made up in memory, as PublishRun hands it to the exports."""

import hashlib
from typing import Any

import numpy as np
from imageclust.exports import Export
from imageclust.models import JSON, Outcome


def image_id(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def made_up(
    sizes: tuple[int, ...] = (5, 4, 3),
    *,
    outliers: int = 2,
    duplicates: int = 2,
    rejected: int = 2,
    folder: str = "holiday",
    changes: dict[str, Any] | None = None,
) -> Export:
    """Clusters of ``sizes`` on the plane, plus what else a folder holds; ``changes`` go into the
    clustering's result."""
    rng = np.random.default_rng(5)
    labels = [c for c, size in enumerate(sizes) for _ in range(size)] + [-1] * outliers
    ids = tuple(image_id(number) for number in range(len(labels)))
    places: dict[str, JSON] = {}
    outcomes = []
    seen = dict.fromkeys(range(-1, len(sizes)), 0)
    for number, label in enumerate(labels):
        cluster = f"c{label + 1:04d}" if label >= 0 else ""
        status = "clustered" if label >= 0 else "outlier"
        angle = 2 * np.pi * label / max(1, len(sizes))
        where = 10 * np.array([np.cos(angle), np.sin(angle)]) + rng.normal(size=2)
        places[ids[number]] = {
            "image_id": ids[number], "status": status, "cluster_id": cluster,
            "rank": seen[label], "margin": 0.1, "map": [float(where[0]), float(where[1])],
        }  # fmt: skip
        outcomes.append(
            Outcome(
                path=f"{folder}/{number:05d}.jpg",
                image_id=ids[number],
                status=status,  # type: ignore[arg-type]
                cluster_id=cluster,
                rank=seen[label],
            )
        )
        seen[label] += 1
    first = outcomes[0]
    for number in range(duplicates):
        outcomes.append(
            Outcome(
                path=f"copy {number} of it.jpg",
                image_id=first.image_id,
                status="duplicate",
                cluster_id=first.cluster_id,
                rank=first.rank,
                duplicate_of=first.path,
            )
        )
    for number in range(rejected):
        outcomes.append(
            Outcome(
                path=f"bad {number}.txt",
                image_id="",
                status="rejected",
                reason="This is a text file, which is not read here.",
            )
        )
    clusters: tuple[JSON, ...] = tuple(
        {
            "cluster_id": f"c{c + 1:04d}",
            "title": f"Title {c + 1}",
            "phrase": f"phrase of {c + 1}",
            "description": f"description of {c + 1}",
            "described_by": "deterministic",
            "size": size,
            "labels": ["Tree", "Snow"],
            "exemplars": [ids[row] for row in np.flatnonzero(np.array(labels) == c)[:2][::-1]],
            "cohesion": 0.9,
            "silhouette": 0.5,
        }
        for c, size in enumerate(sizes)
    )
    metrics = {"silhouette": 0.5, "balance": 0.9, "noise_share": 0.1, "composite": 0.8}
    settings = {"clusters": len(sizes)}
    result: JSON = {
        "method": "kmeans", "settings": settings, "metrics": metrics, "labels": labels,
        "misplaced": [], "map_method": "pca",
        "merges": chain(sizes) if len(sizes) > 1 else None,
        "curves": {
            "k": [2.0, 3.0, 5.0], "silhouette": [0.2, 0.5, 0.4], "inertia": [9.0, 5.0, 4.0],
            "silhouette_k": [3.0], "elbow_k": [3.0],
        },
        "search": [
            {"method": "kmeans", "settings": settings, "clusters": len(sizes), "metrics": metrics},
            {"method": "ward", "settings": {"clusters": 2}, "clusters": 2, "metrics": metrics},
            {"method": "dbscan", "settings": {"eps": 0.1}, "clusters": 0, "metrics": {},
             "error": "everything is noise"},
        ],
        "tried": 3, "skipped": 0,
    }  # fmt: skip
    counts = {
        "seen": len(outcomes), "clustered": sum(sizes), "outliers": outliers,
        "duplicates": duplicates, "rejected": rejected,
    }  # fmt: skip
    record: JSON = {
        "run_id": "holiday-20260101T000000-00000000",
        "collection": "holiday",
        "state": "SUCCEEDED",
        "config": {"method": "auto", "clusters": None},
        "counts": counts,
        "clusters": len(sizes),
        "models": {"embedder": "builtin", "labeler": "", "describer": "d", "placement": "here"},
        "metrics": metrics,
        "method": "kmeans",
        "settings": settings,
        "seconds": {"PlanRun": 0.1, "Embed": 2.0},
        "versions": {"imageclust": "0.1.0", "python": "3.11"},
        "finished": "2026-01-01T00:00:00+00:00",
    }
    vectors = rng.normal(size=(len(ids), 8)).astype(np.float32)
    return Export(
        record=record,
        outcomes=tuple(outcomes),
        clusters=clusters,
        result=result | (changes or {}),
        image_ids=ids,
        vectors=vectors,
        facts={i: {"width": 4, "height": 3} for i in ids},
        labels={},
        places=places,
    )


def chain(sizes: tuple[int, ...]) -> list[JSON]:
    """Merges that add one cluster after the other."""
    merges: list[JSON] = []
    last, total = 0, sizes[0]
    for number in range(1, len(sizes)):
        total += sizes[number]
        merges.append({"left": last, "right": number, "height": float(number), "size": total})
        last = len(sizes) + number - 1
    return merges
