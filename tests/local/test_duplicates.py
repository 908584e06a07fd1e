"""Copies of one picture have one vote; look-alikes are told and stay apart."""

import csv
import itertools
import json
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from local.cli import main
from local.demo import FAMILIES, make_demo
from tests.conftest import jpeg, picture

EACH = 6


def run(folder: Path, photos: Path, *options: str) -> tuple[dict[str, dict[str, str]], Any]:
    """Rows of ``assignments.csv`` by path, and the run's record."""
    out = folder / "out"
    arguments = ["run", str(photos), "--home", str(folder / "home"), "--out", str(out)]
    assert main([*arguments, "--method", "kmeans", *options]) == 0
    rows = list(csv.DictReader((out / "assignments.csv").read_text().splitlines()))
    return {row["path"]: row for row in rows}, json.loads((out / "run.json").read_text())


def drawn(family: int, seed: int) -> NDArray[np.uint8]:
    """A demo picture with detail of its own: cities and leaves."""
    draw = FAMILIES[("city", "autumn")[family]]
    return draw(np.random.default_rng([family, seed]), 384, 288)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Two families of pictures; of the first one a small copy, twice, and a coarse one."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for family, seed in itertools.product(range(2), range(EACH)):
        (photos / f"{family}-{seed}.jpg").write_bytes(jpeg(drawn(family, seed)))
    first = drawn(0, 0)
    small = cv2.resize(first, (192, 144), interpolation=cv2.INTER_AREA)
    (photos / "a small one.jpg").write_bytes(jpeg(small))
    (photos / "b small one again.jpg").write_bytes(jpeg(small))
    coarse = cv2.imencode(".jpg", first[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    (photos / "c coarse.jpg").write_bytes(coarse.tobytes())
    return photos


COPIES = ("a small one.jpg", "b small one again.jpg", "c coarse.jpg")


def test_confirmed_copies_collapse_to_the_best_one(tmp_path: Path, album: Path) -> None:
    rows, record = run(tmp_path, album, "--clusters", "2")
    assert record["config"]["duplicates"] == "confirmed"
    assert record["counts"] == {
        "seen": 2 * EACH + 3, "clustered": 2 * EACH, "outliers": 0, "duplicates": 3, "rejected": 0,
    }  # fmt: skip
    keeper = rows["0-0.jpg"]
    assert keeper["status"] == "clustered"
    for path in COPIES:
        assert rows[path]["status"] == "duplicate"
        assert rows[path]["duplicate_of"] == "0-0.jpg"
        assert rows[path]["cluster_id"] == keeper["cluster_id"]
        assert rows[path]["rank"] == keeper["rank"]
    assert record["duplicates"]["policy"] == "confirmed"
    assert record["duplicates"]["copies"] == 2, "images, not files"

    clusters = json.loads((tmp_path / "out" / "clusters.json").read_text())
    assert [cluster["size"] for cluster in clusters] == [EACH, EACH]
    copies = {rows[path]["image_id"] for path in COPIES}
    assert not copies & {image_id for cluster in clusters for image_id in cluster["exemplars"]}


def test_nothing_of_a_copy_is_lost(tmp_path: Path, album: Path) -> None:
    rows, _ = run(tmp_path, album)
    out = tmp_path / "out"
    images = [json.loads(line) for line in (out / "images.jsonl").read_text().splitlines()]
    assert len(images) == len(np.load(out / "embeddings.npy")) == 2 * EACH + 2
    by_id = {image["image_id"]: image for image in images}
    small = by_id[rows["a small one.jpg"]["image_id"]]
    assert small["paths"] == ["a small one.jpg", "b small one again.jpg"]
    assert small["duplicate_of"] == rows["0-0.jpg"]["image_id"]
    assert (small["width"], small["height"]) == (192, 144)
    assert all((out / "thumbnails" / f"{image_id}.webp").is_file() for image_id in by_id)

    with closing(sqlite3.connect(tmp_path / "home" / "imageclust.sqlite")) as db:
        keys = [bytes(pk).decode() for (pk,) in db.execute("SELECT pk FROM items")]
    assert sum(key.startswith("members#") for key in keys) == 2 * EACH
    assert sum(key == f"image#{small['image_id']}" for key in keys) == 2, "facts and place"


def test_the_keeper_can_be_chosen(tmp_path: Path, album: Path) -> None:
    rows, _ = run(tmp_path, album, "--clusters", "2")
    chosen = "b small one again.jpg"
    again, record = run(tmp_path, album, "--clusters", "2", "--keep-copy", "b small*")
    assert record["config"]["keepers"] == ["b small*"]
    assert again[chosen]["status"] == "clustered"
    assert again[chosen]["duplicate_of"] == ""
    for path in ("0-0.jpg", "a small one.jpg", "c coarse.jpg"):
        assert again[path]["duplicate_of"] == chosen
    untouched = set(rows) - {chosen, "0-0.jpg", *COPIES}
    assert all(again[path]["status"] == "clustered" for path in untouched)
    assert record["counts"]["duplicates"] == 3
    assert {row["image_id"] for row in again.values()} == {row["image_id"] for row in rows.values()}
    with closing(sqlite3.connect(tmp_path / "home" / "imageclust.sqlite")) as db:
        members = [
            json.loads(body)
            for pk, body in db.execute("SELECT pk, body FROM items")
            if bytes(pk).startswith(f"members#{record['run_id']}".encode())
        ]
    assert chosen in {member["path"] for member in members}


def test_of_equal_files_the_chosen_one_stands_for_them(tmp_path: Path, album: Path) -> None:
    options = ("--duplicates", "exact", "--keep-copy", COPIES[1])
    rows, _ = run(tmp_path, album, *options)
    assert rows[COPIES[1]]["status"] == "clustered"
    assert rows[COPIES[0]]["duplicate_of"] == COPIES[1]


def test_a_keeper_that_is_no_file_is_refused(
    tmp_path: Path, album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(album), "--home", str(tmp_path / "home"), "--out", str(tmp_path / "o")]
    assert main([*arguments, "--keep-copy", "0-0.jpg", "--keep-copy", "*.tif"]) == 2
    assert "no file of the collection is called or matches '*.tif'" in capsys.readouterr().err


def test_exact_collapses_equal_files_only(tmp_path: Path, album: Path) -> None:
    rows, record = run(tmp_path, album, "--duplicates", "exact")
    assert [path for path, row in rows.items() if row["status"] == "duplicate"] == [COPIES[1]]
    assert rows[COPIES[1]]["duplicate_of"] == COPIES[0]
    assert record["duplicates"]["copies"] == 0
    assert not (tmp_path / "out" / "similar.csv").exists()


def test_names_and_order_change_no_group(tmp_path: Path, album: Path) -> None:
    rows, _ = run(tmp_path, album)
    turned = tmp_path / "turned"
    turned.mkdir()
    for number, path in enumerate(sorted(album.iterdir(), reverse=True)):
        (turned / f"{number:03d}.jpg").write_bytes(path.read_bytes())
    (tmp_path / "second").mkdir()
    again, _ = run(tmp_path / "second", turned)

    def groups(found: dict[str, dict[str, str]]) -> set[tuple[str, str]]:
        return {
            (row["image_id"], found[row["duplicate_of"]]["image_id"])
            for row in found.values()
            if row["status"] == "duplicate"
        }

    assert groups(rows) == groups(again)


def test_look_alikes_are_told_and_are_no_duplicates(tmp_path: Path) -> None:
    """Two frames with an object moved by more than a copy allows."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(4):
        (photos / f"{seed}.jpg").write_bytes(jpeg(picture(seed, family=seed, size=(384, 288))))
    for name, left in (("b, moved.jpg", 40), ("a.jpg", 220)):
        scene = picture(50, family=9, size=(384, 288))
        scene[90:190, left : left + 100] = (250, 20, 30)
        (photos / name).write_bytes(jpeg(scene))
    rows, record = run(tmp_path, photos, "--clusters", "2")
    assert {row["status"] for row in rows.values()} == {"clustered"}
    text = (tmp_path / "out" / "similar.csv").read_text()
    pairs = list(csv.DictReader(text.splitlines()))
    assert text.splitlines()[0] == '"path_a","path_b","score"'
    assert ("a.jpg", "b, moved.jpg") in {(pair["path_a"], pair["path_b"]) for pair in pairs}
    scores = [float(pair["score"]) for pair in pairs]
    assert scores == sorted(scores, reverse=True)
    assert record["duplicates"]["similar"] == len(pairs)


def test_bounds_count_the_pictures_that_vote(
    tmp_path: Path, album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(album), "--home", str(tmp_path / "home"), "--out", str(tmp_path / "o")]
    arguments += ["--duplicates", "confirmed"]
    assert main([*arguments, "--clusters", str(2 * EACH + 2)]) == 2
    assert f"{2 * EACH} images cannot form {2 * EACH + 2} clusters" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_has_its_three_copies_and_no_other(tmp_path: Path) -> None:
    """Night skies, sunsets and chess boards lie on each other as if they were copies."""
    make_demo(tmp_path / "demo")
    rows, record = run(tmp_path, tmp_path / "demo")
    assert record["config"]["duplicates"] == "confirmed"
    assert record["counts"]["duplicates"] == 3
    copies = {path for path, row in rows.items() if row["status"] == "duplicate"}
    assert copies == {f"odds and ends/copy of autumn-0{n}.jpg" for n in (1, 2, 3)}


@pytest.mark.shared
def test_precision_and_recall_on_labelled_copies(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGECLUST_MODELS", str(shared / "models"))
    folder = shared / "data" / "near_duplicates"
    rows, record = run(tmp_path, folder / "images", "--embedder", "mobilenet_v2_1.0_224_w8")
    assert record["counts"]["seen"] == sum(v for k, v in record["counts"].items() if k != "seen")

    def pairs(groups: dict[str, list[str]]) -> set[tuple[str, ...]]:
        found = (itertools.combinations(sorted(group), 2) for group in groups.values())
        return set(itertools.chain.from_iterable(found))

    truth, told = defaultdict(list), defaultdict(list)
    for row in csv.DictReader((folder / "labels.csv").read_text().splitlines()):
        truth[row["group"]].append(row["file"])
    for path, row in rows.items():
        told[row["duplicate_of"] or path].append(path)
    right, found = pairs(truth), pairs(told)
    assert len(found & right) >= 0.99 * len(found)
    assert len(found & right) >= 0.85 * len(right)
    assert Counter(row["status"] for row in rows.values())["rejected"] == 0
