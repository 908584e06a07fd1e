"""What people download of a run: tables, records, vectors and a gallery that needs no server."""

import csv
import io
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from imageclust.labels import Label
from imageclust.models import JSON, Outcome, to_json_lines

ASSIGNMENT_COLUMNS = (
    "path", "image_id", "status", "cluster_id", "rank", "duplicate_of", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class Export:
    """Everything a run found. ``vectors`` ``(n, d)`` float32 has the rows of ``image_ids``."""

    record: JSON
    outcomes: tuple[Outcome, ...]
    clusters: tuple[JSON, ...]
    result: JSON
    image_ids: tuple[str, ...]
    vectors: NDArray[np.float32]
    facts: dict[str, JSON]
    labels: dict[str, tuple[Label, ...]]
    places: dict[str, JSON]


def export_files(export: Export) -> dict[str, tuple[bytes, str]]:
    """File name → (content, content type). Thumbnails are linked as ``thumbnails/ID.webp``."""
    vectors = io.BytesIO()
    np.save(vectors, export.vectors, allow_pickle=False)
    return {
        "assignments.csv": (_assignments(export.outcomes), "text/csv; charset=utf-8"),
        "clusters.json": (_pretty(_clusters(export)), "application/json"),
        "run.json": (_pretty(export.record), "application/json"),
        "images.jsonl": (to_json_lines(_images(export)), "application/jsonl"),
        "embeddings.npy": (vectors.getvalue(), "application/octet-stream"),
        "index.html": (render_gallery(export), "text/html; charset=utf-8"),
    }


def _assignments(outcomes: tuple[Outcome, ...]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(ASSIGNMENT_COLUMNS)
    for outcome in outcomes:
        row = outcome.to_json()
        writer.writerow("" if row[name] is None else row[name] for name in ASSIGNMENT_COLUMNS)
    return text.getvalue().encode(errors="surrogateescape")


def _clusters(export: Export) -> list[JSON]:
    return [
        {
            "id": cluster["cluster_id"],
            **{
                name: cluster[name]
                for name in ("title", "phrase", "description", "size", "labels", "exemplars")
            },
            "cohesion": cluster["cohesion"],
            "silhouette": cluster["silhouette"],
        }
        for cluster in export.clusters
    ]


def _images(export: Export) -> list[JSON]:
    paths: dict[str, list[str]] = {}
    for outcome in export.outcomes:
        if outcome.image_id:
            paths.setdefault(outcome.image_id, []).append(outcome.path)
    rows = []
    for image_id in export.image_ids:
        place = export.places[image_id]
        rows.append(
            {
                "image_id": image_id,
                "paths": sorted(paths[image_id]),
                **{k: v for k, v in place.items() if k != "image_id"},
                **{k: v for k, v in export.facts[image_id].items() if k not in ("image_id", "row")},
                "labels": [label.to_json() for label in export.labels.get(image_id, ())],
            }
        )
    return rows


def _pretty(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("imageclust", "gallery"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_gallery(export: Export) -> bytes:
    """One HTML page with every cluster; file names and labels are escaped, no script runs."""
    by_cluster: dict[str, list[Outcome]] = {}
    others: dict[str, list[Outcome]] = {"outlier": [], "duplicate": [], "rejected": []}
    for outcome in export.outcomes:
        if outcome.status == "clustered":
            by_cluster.setdefault(outcome.cluster_id, []).append(outcome)
        else:
            others[outcome.status].append(outcome)
    for members in by_cluster.values():
        members.sort(key=lambda outcome: outcome.rank or 0)
    page = _templates().get_template("index.html.j2")
    text = page.render(
        record=export.record, clusters=export.clusters, members=by_cluster, others=others
    )
    return text.encode(errors="replace")
