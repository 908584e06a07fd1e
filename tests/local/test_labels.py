"""What labels do in a run: beside the vectors, from every image or spread from a few."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from local.cli import main
from tests.conftest import jpeg, picture
from tests.standins.tiny_onnx import make_colour_model

PER_COLOUR = 30
COLOURS = ("red", "green", "blue")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures of three colours, the shapes the same in all, and a model that names the colour."""
    make_colour_model(tmp_path / "models")
    monkeypatch.setenv("IMAGECLUST_MODELS", str(tmp_path / "models"))
    root = tmp_path / "photos"
    root.mkdir()
    for channel, colour in enumerate(COLOURS):
        for seed in range(PER_COLOUR):
            grey = picture(1000 * channel + seed, family=seed % 4).mean(axis=2, keepdims=True)
            tint = np.full(3, 0.25)
            tint[channel] = 1
            drawn = np.clip(60 + grey * 0.7, 0, 255) * tint
            (root / f"{colour} {seed}.jpg").write_bytes(jpeg(drawn.astype(np.uint8)))
    return root


def run(folder: Path, photos: Path, *options: str) -> Any:
    """The run's record; the results lie in ``folder/out``."""
    arguments = ["run", str(photos), "--home", str(folder / "home"), "--out", str(folder / "out")]
    plain = ["--embedder", "builtin", "--method", "kmeans", "--clusters", "3"]
    assert main([*arguments, *plain, *options]) == 0
    return json.loads((folder / "out" / "run.json").read_text())


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "out" / "assignments.csv").read_text().splitlines()))


def images(folder: Path) -> list[Any]:
    return [json.loads(x) for x in (folder / "out" / "images.jsonl").read_text().splitlines()]


def colour_told(image: Any) -> str:
    """The surest colour among the labels; they come surest first, their parent before them."""
    names = (label["Name"].lower().split()[0] for label in image["labels"])
    return next((name for name in names if name in COLOURS), "")


def mixed(folder: Path) -> int:
    """Clusters that hold more than one colour."""
    found: dict[str, set[str]] = {}
    for row in rows(folder):
        found.setdefault(row["cluster_id"], set()).add(row["path"].split()[0])
    return sum(len(colours) > 1 for colours in found.values())


def test_weight_decides_whether_labels_count(tmp_path: Path, photos: Path) -> None:
    run(tmp_path, photos, "--labels", "off")
    by_looks, vectors = rows(tmp_path), np.load(tmp_path / "out" / "embeddings.npy")
    run(tmp_path, photos, "--label-weight", "0")
    assert rows(tmp_path) == by_looks, "weight 0 is as if there were no labels"
    record = run(tmp_path, photos, "--label-weight", "1")
    assert mixed(tmp_path) == 0, "labels alone tell the colours apart"
    assert record["labels"] == {"mode": "full", "labelled": 3 * PER_COLOUR, "spread": 0}
    assert np.array_equal(np.load(tmp_path / "out" / "embeddings.npy"), vectors)


def test_exemplars_label_a_few_and_spread_the_rest(tmp_path: Path, photos: Path) -> None:
    record = run(tmp_path, photos, "--labels", "exemplars")
    told = record["labels"]
    assert record["images"]["to_label"] == 0
    assert told["mode"] == "exemplars"
    assert 6 <= told["labelled"] <= PER_COLOUR
    assert told["labelled"] + told["spread"] == 3 * PER_COLOUR
    assert told["agreement"]["images"] > 5
    assert told["agreement"]["precision"] > 0.5

    stored = list((tmp_path / "home" / "data" / "labels").rglob("*.jsonl"))
    assert sum(len(path.read_text().splitlines()) for path in stored) == told["labelled"]
    assert all(path.parent.name.endswith("-thumbnail") for path in stored)
    found = images(tmp_path)
    assert sum(image.get("labels_spread", False) for image in found) == told["spread"]
    spread = [image for image in found if image.get("labels_spread")]
    right = sum(colour_told(image) == image["paths"][0].split()[0] for image in spread)
    assert right > 0.7 * len(spread)
    clusters = json.loads((tmp_path / "out" / "clusters.json").read_text())
    assert all(cluster["labels"] for cluster in clusters)


def test_exemplars_again_ask_for_nothing_and_find_the_same(tmp_path: Path, photos: Path) -> None:
    run(tmp_path, photos, "--labels", "exemplars")
    before, first = rows(tmp_path), images(tmp_path)
    stored = sorted((tmp_path / "home" / "data" / "labels").rglob("*.jsonl"))
    run(tmp_path, photos, "--labels", "exemplars", "--seed", "0")
    assert rows(tmp_path) == before
    assert images(tmp_path) == first
    assert sorted((tmp_path / "home" / "data" / "labels").rglob("*.jsonl")) == stored


def test_exemplars_do_not_depend_on_what_was_labelled_before(tmp_path: Path, photos: Path) -> None:
    run(tmp_path, photos, "--labels", "exemplars")
    before = images(tmp_path)
    run(tmp_path, photos, "--labels", "full")
    run(tmp_path, photos, "--labels", "exemplars")
    assert images(tmp_path) == before


def test_exemplars_without_a_labeler_have_no_labels(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(6):
        (photos / f"{seed}.jpg").write_bytes(jpeg(picture(seed, family=seed)))
    record = run(tmp_path, photos, "--labels", "exemplars")
    assert record["models"]["labeler"] == ""
    assert record["labels"] == {"mode": "exemplars", "labelled": 0, "spread": 0}


@pytest.mark.parametrize("weight", ["-0.1", "1.5"])
def test_a_weight_out_of_range(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str], weight: str
) -> None:
    code = main(["run", str(photos), "--home", str(tmp_path / "home"), f"--label-weight={weight}"])
    assert code == 2
    assert "label_weight must lie between 0 and 1" in capsys.readouterr().err
