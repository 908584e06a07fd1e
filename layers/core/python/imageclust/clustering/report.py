"""The ten best settings of a search as files, in the layout of the source system."""

import io
import json
from typing import Any

import numpy as np

from imageclust.clustering.geometry import cluster_sizes
from imageclust.clustering.records import ClusteringResult, SearchEntry


def top_files(result: ClusteringResult) -> dict[str, bytes]:
    """File name to content: a folder a rank, and one summary of all.

    ``rank_01_kmeans/cluster_labels.npy`` holds (n,) int32 labels, -1 = outlier;
    ``rank_01_kmeans/clustering_info.json`` its setting and scores; ``clustering_summary.json`` all
    ranks, failed settings, and the curves by which k was chosen. Equal results give equal bytes.
    """
    files: dict[str, bytes] = {}
    summary: list[dict[str, Any]] = []
    scored = [entry for entry in result.search if not entry.error and entry.labels is not None]
    for rank, entry in enumerate(scored, start=1):
        folder = f"rank_{rank:02d}_{entry.method}"
        files[f"{folder}/cluster_labels.npy"] = _npy(entry)
        info = entry.to_json() | {"rank": rank, "sizes": _sizes(entry)}
        files[f"{folder}/clustering_info.json"] = _json(info)
        summary.append(entry.to_json() | {"rank": rank, "folder": folder})
    files["clustering_summary.json"] = _json(
        {
            "method": result.method,
            "settings": result.settings,
            "tried": result.tried,
            "skipped": result.skipped,
            "ranking": summary,
            "failed": [entry.to_json() for entry in result.search if entry.error],
            "curves": result.curves,
        }
    )
    return files


def _sizes(entry: SearchEntry) -> list[int]:
    if entry.labels is None:
        return []
    sizes: list[int] = cluster_sizes(entry.labels, entry.clusters).tolist()
    return sizes


def _npy(entry: SearchEntry) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(entry.labels, dtype="<i4"), allow_pickle=False)
    return buffer.getvalue()


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"
