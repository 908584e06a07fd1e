"""The files of a run: tables that survive any name, the search's report, the same bytes."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from imageclust.exports import ASSIGNMENT_COLUMNS, export_files
from imageclust.gallery import Export
from imageclust.models import Outcome

from tests.unit.exports.build import made_up

AWKWARD = [
    'quote"comma,.jpg', "line\nfeed.jpg", "carriage\rreturn.jpg", "both\r\n.jpg", " space .jpg",
    "=cmd|calc.jpg", "'single'.jpg", "写真.jpg", '"', "a" * 4000,
]  # fmt: skip


def written(export: Export) -> dict[str, tuple[bytes, str]]:
    return {name: (data, kind) for name, data, kind in export_files(export)}


@pytest.mark.parametrize("name", AWKWARD)
def test_any_name_comes_back_from_the_table(name: str) -> None:
    export = made_up()
    outcomes = (replace(export.outcomes[0], path=name), *export.outcomes[1:])
    data, _ = written(replace(export, outcomes=outcomes))["assignments.csv"]
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    assert tuple(rows[0]) == ASSIGNMENT_COLUMNS
    assert [row[0] for row in rows[1:]] == [outcome.path for outcome in outcomes]


def test_names_that_are_not_unicode_keep_their_bytes() -> None:
    odd = Outcome(path=b"caf\xe9.jpg".decode(errors="surrogateescape"), image_id="",
                  status="rejected", reason="no")  # fmt: skip
    export = made_up()
    files = written(replace(export, outcomes=(*export.outcomes, odd)))
    assert b"\ncaf\xe9.jpg,,rejected,,,,no\n" in files["assignments.csv"][0]
    assert b"caf?.jpg" in files["index.html"][0]


def test_the_same_export_gives_the_same_bytes() -> None:
    assert written(made_up()) == written(made_up())


def test_images_have_the_order_of_the_vectors() -> None:
    export = made_up()
    files = written(export)
    images = [json.loads(line) for line in files["images.jsonl"][0].splitlines()]
    assert [image["image_id"] for image in images] == list(export.image_ids)
    assert images[0]["paths"] == ["copy 0 of it.jpg", "copy 1 of it.jpg", "holiday/00000.jpg"]


def test_what_was_not_measured_is_null() -> None:
    export = made_up()
    record = export.record | {"metrics": {"silhouette": float("nan"), "balance": float("inf")}}
    data, _ = written(replace(export, record=record))["run.json"]
    assert json.loads(data)["metrics"] == {"silhouette": None, "balance": None}
    assert b"NaN" not in data


# --- the report of the search


def test_each_of_the_best_settings_has_a_folder() -> None:
    files = written(made_up())
    assert sorted(name for name in files if name.startswith("search/")) == [
        "search/rank_01_kmeans/cluster_labels.npy",
        "search/rank_01_kmeans/clustering_info.json",
        "search/rank_01_kmeans/clustering_summary.json",
        "search/rank_02_ward/clustering_info.json",
        "search/rank_02_ward/clustering_summary.json",
        "search/summary.json",
    ]
    info = json.loads(files["search/rank_02_ward/clustering_info.json"][0])
    assert info["rank"] == 2
    assert info["method"] == "ward"
    assert info["settings"] == {"clusters": 2}
    assert not info["chosen"]
    summary = json.loads(files["search/summary.json"][0])
    assert [entry["folder"] for entry in summary["best"]] == ["rank_01_kmeans", "rank_02_ward"]
    assert [entry["error"] for entry in summary["failed"]] == ["everything is noise"]


def test_labels_of_the_winner_are_the_results_own() -> None:
    export = made_up()
    files = written(export)
    labels = np.load(io.BytesIO(files["search/rank_01_kmeans/cluster_labels.npy"][0]))
    assert labels.dtype == np.int32
    assert labels.tolist() == export.result["labels"]
    summary = json.loads(files["search/rank_01_kmeans/clustering_summary.json"][0])
    assert summary["sizes"] == {"0": 5, "1": 4, "2": 3}
    assert summary["clustered"] + summary["outliers"] == summary["images"] == 14


def test_labels_that_the_search_kept_are_written_for_every_rank() -> None:
    export = made_up()
    kept = np.array([export.result["labels"], [0] * 7 + [1] * 7], dtype=np.int32)
    files = written(replace(export, search_labels=kept))
    second = np.load(io.BytesIO(files["search/rank_02_ward/cluster_labels.npy"][0]))
    assert np.array_equal(second, kept[1])
    summary = json.loads(files["search/rank_02_ward/clustering_summary.json"][0])
    assert summary["sizes"] == {"0": 7, "1": 7}
    assert summary["outliers"] == 0


def test_at_most_ten_folders() -> None:
    entry = {"method": "gmm", "clusters": 2, "metrics": {}}
    many = [entry | {"settings": {"clusters": k}} for k in range(2, 30)]
    files = written(made_up(changes={"search": many}))
    assert len([name for name in files if name.endswith("info.json")]) == 10
    assert "search/rank_10_gmm/clustering_info.json" in files


def test_without_a_search_there_is_no_report() -> None:
    assert not [n for n in written(made_up(changes={"search": []})) if "search" in n]
