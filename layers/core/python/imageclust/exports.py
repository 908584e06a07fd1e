"""What people download of a run: tables, records, vectors and a gallery that needs no server.

====================================  ===========================================================
``assignments.csv``                   one row for every file seen
``clusters.json``                     the clusters with their names
``captions.csv``                      captions of images, in a run that asks for them
``similar.csv``                       look-alikes, in a run that confirms copies (PublishRun's)
``run.json``                          configuration, counts, seconds, models, metrics, versions
``images.jsonl``, ``embeddings.npy``  the distinct images and their vectors, in one order; the
                                      vectors are copied as ClusterImages wrote them
``search/summary.json``               the search: settings tried, the best ten, what failed
``search/rank_NN_METHOD/``            one of the best ten: ``clustering_info.json``,
                                      ``clustering_summary.json`` and, where its labels were kept,
                                      ``cluster_labels.npy`` (the rows of ``images.jsonl``)
``index.html``                        the gallery; thumbnails lie in ``thumbnails/ID.webp``
====================================  ===========================================================

The same export gives the same bytes.
"""

import io
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imageclust.gallery import Export, render_gallery
from imageclust.models import JSON, Outcome, pretty_json, to_json_lines

__all__ = ["ASSIGNMENT_COLUMNS", "Export", "export_files"]

ASSIGNMENT_COLUMNS = (
    "path", "image_id", "status", "cluster_id", "rank", "duplicate_of", "reason",
)  # fmt: skip

CSV = "text/csv; charset=utf-8"
_TOP = 10
_CSV_SPECIAL = re.compile(r'[",\r\n]')


def export_files(export: Export) -> Iterator[tuple[str, bytes, str]]:
    """Name, content and content type of each file but ``embeddings.npy``, made one at a time.

    Thumbnails are linked as ``thumbnails/ID.webp``.
    """
    yield "assignments.csv", _assignments(export.outcomes), CSV
    if export.captions:
        yield "captions.csv", _captions(export), CSV
    yield "clusters.json", pretty_json(_clusters(export)), "application/json"
    yield "run.json", pretty_json(export.record), "application/json"
    yield "images.jsonl", to_json_lines(_images(export)), "application/jsonl"
    for name, (data, content_type) in _search_files(export).items():
        yield name, data, content_type
    yield "index.html", render_gallery(export), "text/html; charset=utf-8"


def _assignments(outcomes: tuple[Outcome, ...]) -> bytes:
    lines = [",".join(ASSIGNMENT_COLUMNS)]
    for outcome in outcomes:
        row = outcome.to_json()
        lines.append(",".join(_csv_field(row[name]) for name in ASSIGNMENT_COLUMNS))
    return ("\n".join(lines) + "\n").encode(errors="surrogateescape")


def _captions(export: Export) -> bytes:
    """One row an image that has a caption, under the first of its paths, in order of the images."""
    first = {
        o.image_id: o.path for o in sorted(export.outcomes, key=lambda o: o.path, reverse=True)
    }
    lines = ["image_id,path,caption,model"]
    for image_id in export.image_ids:
        if image_id in export.captions:
            said = export.captions[image_id]
            row = (image_id, first[image_id], said["caption"], said["model"])
            lines.append(",".join(map(_csv_field, row)))
    return ("\n".join(lines) + "\n").encode(errors="surrogateescape")


def _csv_field(value: object) -> str:
    """A field as RFC 4180 has it. The csv module of Python 3.11 leaves a lone CR unquoted."""
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if _CSV_SPECIAL.search(text) else text


def _clusters(export: Export) -> list[JSON]:
    return [
        {
            "id": cluster["cluster_id"],
            **{
                name: cluster[name]
                for name in (
                    "title",
                    "phrase",
                    "description",
                    "described_by",
                    "size",
                    "labels",
                    "exemplars",
                )
            },
            **({"answers": cluster["answers"]} if "answers" in cluster else {}),
            "cohesion": cluster["cohesion"],
            "silhouette": cluster["silhouette"],
        }
        for cluster in export.clusters
    ]


def _images(export: Export) -> Iterator[JSON]:
    paths: dict[str, list[str]] = {}
    for outcome in export.outcomes:
        if outcome.image_id:
            paths.setdefault(outcome.image_id, []).append(outcome.path)
    for image_id in export.image_ids:
        place = export.places[image_id]
        yield {
            "image_id": image_id,
            "paths": sorted(paths[image_id]),
            **{k: v for k, v in place.items() if k != "image_id"},
            **{k: v for k, v in export.facts[image_id].items() if k not in ("image_id", "row")},
            "labels": [label.to_json() for label in export.labels.get(image_id, ())],
            **({"caption": said["caption"]} if (said := export.captions.get(image_id)) else {}),
        }


def _search_files(export: Export) -> dict[str, tuple[bytes, str]]:
    """The report of the search, a folder for each of its best settings."""
    result = export.result
    entries = result.get("search") or []
    if not entries:
        return {}
    found = [entry for entry in entries if not entry.get("error")][:_TOP]
    files: dict[str, tuple[bytes, str]] = {}
    ranked = []
    for place, entry in enumerate(found):
        folder = f"rank_{place + 1:02d}_{re.sub(r'[^a-z0-9]+', '_', entry['method'].lower())}"
        won = (entry["method"], entry["settings"]) == (result["method"], result["settings"])
        labels = _labels_of(export, place, won=won)
        info = {
            "rank": place + 1,
            "method": entry["method"],
            "settings": entry["settings"],
            "clusters": entry["clusters"],
            "metrics": entry["metrics"],
            "chosen": won,
        }
        ranked.append({"folder": folder, **info})
        files[f"search/{folder}/clustering_info.json"] = (pretty_json(info), "application/json")
        files[f"search/{folder}/clustering_summary.json"] = (
            pretty_json(_setting_summary(entry, len(export.image_ids), labels)),
            "application/json",
        )
        if labels is not None:
            files[f"search/{folder}/cluster_labels.npy"] = (
                _npy(labels),
                "application/octet-stream",
            )
    summary = {
        "images": len(export.image_ids),
        "tried": result.get("tried", len(entries)),
        "skipped": result.get("skipped", 0),
        "best": ranked,
        "failed": [entry for entry in entries if entry.get("error")],
        "curves": result.get("curves") or {},
    }
    files["search/summary.json"] = (pretty_json(summary), "application/json")
    return files


def _labels_of(export: Export, place: int, *, won: bool) -> NDArray[np.int32] | None:
    """Labels of the setting at ``place``; those of the setting that won are the result's own."""
    if export.search_labels is not None and place < len(export.search_labels):
        return np.ascontiguousarray(export.search_labels[place], dtype=np.int32)
    return np.asarray(export.result["labels"], dtype=np.int32) if won else None


def _setting_summary(entry: JSON, images: int, labels: NDArray[np.int32] | None) -> JSON:
    metrics = entry["metrics"]
    outliers = round(metrics.get("noise_share", 0.0) * images)
    summary: JSON = {
        "images": images,
        "clusters": entry["clusters"],
        "clustered": images - outliers,
        "outliers": outliers,
        "composite": metrics.get("composite"),
        "silhouette": metrics.get("silhouette"),
        "balance": metrics.get("balance"),
        "noise_share": metrics.get("noise_share"),
    }
    if labels is not None:
        numbers, sizes = np.unique(labels[labels >= 0], return_counts=True)
        summary["clustered"] = int(sizes.sum())
        summary["outliers"] = len(labels) - int(sizes.sum())
        summary["sizes"] = {
            str(number): int(size) for number, size in zip(numbers, sizes, strict=True)
        }
    return summary


def _npy(array: NDArray[Any]) -> bytes:
    data = io.BytesIO()
    np.save(data, array, allow_pickle=False)
    return data.getvalue()
