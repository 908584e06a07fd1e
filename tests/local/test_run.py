"""``imageclust run`` as a person uses it: results, bad input, running again."""

import csv
import errno
import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imageclust import __version__
from imageclust.adapters.local.sqlite_table import table_error
from imageclust.errors import Permanent
from imageclust.steps import browse

from functions import publish
from local.cli import main
from local.gateway import Gateway
from local.home import open_services
from tests.conftest import jpeg, picture
from tests.standins.tiny_onnx import make_colour_model

ROOT = Path(__file__).parents[2]
MakePhotos = Callable[..., Path]


class Cli:
    """Runs the command line in this process over one state folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self.out, self.capsys = folder / "home", folder / "out", capsys

    def run(self, photos: Path, *options: str, out: Path | None = None) -> tuple[int, str, str]:
        arguments = ["run", str(photos), "--home", str(self.home), "--out", str(out or self.out)]
        code = main([*arguments, *options])
        told = self.capsys.readouterr()
        return code, told.out, told.err

    def rows(self) -> list[dict[str, str]]:
        text = (self.out / "assignments.csv").read_text(encoding="utf-8", errors="surrogateescape")
        return list(csv.DictReader(text.splitlines()))

    def record(self) -> Any:
        return json.loads((self.out / "run.json").read_text())


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(tmp_path, capsys)


def assert_conserved(cli: Cli, seen: int) -> None:
    counts = cli.record()["counts"]
    status = Counter(row["status"] for row in cli.rows())
    assert counts["seen"] == seen == len(cli.rows())
    assert counts == {
        "seen": seen,
        "clustered": status["clustered"],
        "outliers": status["outlier"],
        "duplicates": status["duplicate"],
        "rejected": status["rejected"],
    }


def test_settings_come_from_a_file_too(cli: Cli, make_photos: MakePhotos, tmp_path: Path) -> None:
    photos = make_photos(families=2, each=4)
    (photos / "copy.jpg").write_bytes((photos / "family 0" / "0.jpg").read_bytes())
    config = tmp_path / "config.json"
    settings = '{"clusters": 2, "seed": 3, "max_cost_usd": 0.01}'
    config.write_text(settings, encoding="utf-8-sig")  # as some editors save
    code, told, _ = cli.run(photos, "--config", str(config), "--seed", "5")
    assert code == 0
    used = cli.record()["config"]
    assert (used["clusters"], used["seed"], used["max_cost_usd"]) == (2, 5, 0.01), "options win"
    assert "9 files: 8 in 2 clusters, 0 outliers, 1 duplicate, 0 rejected\n" in told


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (b"{", "--config is not JSON"),
        (b"\xff\xfe", "--config is not JSON"),
        (b"[1]", "must be a JSON object"),
        (b'{"moderation": "on"}', "needs Rekognition"),
        (b'{"describer": "auto,deterministic"}', "are the same model"),
    ],
)
def test_settings_that_cannot_work_are_told(
    cli: Cli, make_photos: MakePhotos, tmp_path: Path, config: bytes, sentence: str
) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(config)
    code, told, errors = cli.run(make_photos(families=1, each=2), "--config", str(file))
    assert (code, told) == (2, "")
    assert sentence in errors


def test_a_folder_becomes_named_clusters(cli: Cli, make_photos: MakePhotos) -> None:
    photos = make_photos(families=3, each=8)
    code, told, _ = cli.run(photos, "--clusters", "3")
    assert code == 0
    assert str(cli.out / "index.html") in told
    assert "why rejected" not in told
    rows = cli.rows()
    assert list(rows[0]) == [
        "path", "image_id", "status", "cluster_id", "rank", "duplicate_of", "reason",
    ]  # fmt: skip
    assert_conserved(cli, 24)
    found = {(row["path"].split("/")[0], row["cluster_id"]) for row in rows}
    assert len(found) == 3, "each family is one cluster"

    clusters = json.loads((cli.out / "clusters.json").read_text())
    assert [cluster["size"] for cluster in clusters] == [8, 8, 8]
    assert len({cluster["title"] for cluster in clusters}) == 3
    for cluster in clusters:
        assert {"id", "title", "phrase", "description", "size", "labels", "exemplars",
                "cohesion"} <= set(cluster)  # fmt: skip
        assert set(cluster["exemplars"]) <= {row["image_id"] for row in rows}
        ranks = sorted(int(r["rank"]) for r in rows if r["cluster_id"] == cluster["id"])
        assert ranks == list(range(8))

    images = [json.loads(line) for line in (cli.out / "images.jsonl").read_text().splitlines()]
    vectors = np.load(cli.out / "embeddings.npy")
    assert len(images) == len(vectors) == 24
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-2)
    by_path = {row["path"]: row["image_id"] for row in rows}
    assert all(by_path[image["paths"][0]] == image["image_id"] for image in images)

    best = sorted((cli.out / "search").glob("rank_*"))
    assert 1 <= len(best) <= 10
    for folder in best:
        assert np.load(folder / "cluster_labels.npy").shape == (24,)
        assert json.loads((folder / "clustering_info.json").read_text())

    record = cli.record()
    assert record["state"] == "SUCCEEDED"
    assert set(record["seconds"]) == {
        "PlanRun", "Embed", "Label", "ClusterImages", "DrawMap", "DescribeClusters", "PublishRun",
    }  # fmt: skip
    assert record["versions"]["imageclust"]
    assert record["config"]["clusters"] == 3
    page = (cli.out / "index.html").read_text()
    for row in rows:
        assert (cli.out / "thumbnails" / f"{row['image_id']}.webp").is_file()
        assert f"thumbnails/{row['image_id']}.webp" in page


def test_json_prints_the_record_and_nothing_else(cli: Cli, make_photos: MakePhotos) -> None:
    code, told, _ = cli.run(make_photos(), "--json")
    assert code == 0
    assert json.loads(told) == cli.record()


def test_the_photos_are_left_as_they_were(cli: Cli, make_photos: MakePhotos) -> None:
    photos = make_photos()
    before = {path: path.read_bytes() for path in photos.rglob("*.jpg")}
    assert cli.run(photos)[0] == 0
    assert {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()} == before


def test_a_second_run_embeds_only_what_is_new(cli: Cli, make_photos: MakePhotos) -> None:
    photos = make_photos()
    cli.run(photos)
    assert cli.record()["images"]["to_embed"] == 18
    (photos / "new.jpg").write_bytes(jpeg(picture(99, family=1)))
    cli.run(photos)
    assert cli.record()["images"] == {"seen": 19, "distinct": 19, "to_embed": 1, "to_label": 0}
    first = (cli.out / "assignments.csv").read_bytes()
    cli.run(photos)
    assert cli.record()["images"]["to_embed"] == 0
    assert (cli.out / "assignments.csv").read_bytes() == first


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below with its size and time of change."""
    files = [path for path in folder.rglob("[!.]*") if path.is_file()]
    told = {str(path.relative_to(folder)): path.stat() for path in files}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in told.items()}


def test_a_run_without_news_repeats_the_one_before(cli: Cli, make_photos: MakePhotos) -> None:
    photos = make_photos()
    (photos / "no.jpg").write_text("no picture")
    (photos / "copy.jpg").write_bytes((photos / "family 1" / "2.jpg").read_bytes())
    _, summary, _ = cli.run(photos, "--clusters", "3")
    before, first = listing(cli.out), cli.record()
    _, told, _ = cli.run(photos, "--clusters", "3")
    after, second = listing(cli.out), cli.record()
    assert told.startswith(f"nothing has changed since the run {first['run_id']}\n")
    assert told.splitlines()[1] == summary.splitlines()[0]
    assert {name for name in before if before[name] != after[name]} == {"run.json"}
    assert second["same_as"] == first["run_id"] != second["run_id"]
    assert second["images"] == {"seen": 20, "distinct": 19, "to_embed": 0, "to_label": 0}
    own = ("run_id", "same_as", "images", "models", "seconds", "finished")
    assert {n: v for n, v in second.items() if n not in own} == {
        n: v for n, v in first.items() if n not in own
    }
    assert_conserved(cli, 20)
    _, told, _ = cli.run(photos, "--clusters", "3")
    assert cli.record()["same_as"] == first["run_id"], "not a chain"


@pytest.mark.parametrize("lost", ["index.html", "thumbnails", "search", "."])
def test_results_that_were_changed_or_deleted_are_written_again(
    cli: Cli, make_photos: MakePhotos, lost: str
) -> None:
    photos = make_photos()
    cli.run(photos)
    before = {path: path.read_bytes() for path in cli.out.rglob("*") if path.is_file()}
    (cli.out / "clusters.json").write_text("mine")
    if lost == "index.html":
        (cli.out / lost).unlink()
    else:
        shutil.rmtree(cli.out / lost)
    _, told, _ = cli.run(photos)
    assert "nothing has changed" in told
    after = {path: path.read_bytes() for path in cli.out.rglob("*") if path.is_file()}
    before.pop(cli.out / "run.json")
    after.pop(cli.out / "run.json")
    assert after == before


def test_captions_that_nothing_can_make_are_told(cli: Cli, make_photos: MakePhotos) -> None:
    _, told, _ = cli.run(make_photos(1, 4), "--captions", "all", "--embedder", "builtin")
    assert ", 0 of 4 captions\n" in told
    assert "\nnote: captions are made from labels here, and this run has none\n" in told


def test_files_that_only_an_earlier_run_had_do_not_stay(cli: Cli, make_photos: MakePhotos) -> None:
    photos = make_photos()
    cli.run(photos)
    (cli.out / "captions.csv").write_text("of an earlier run that asked for them")
    (cli.out / "my notes.csv").write_text("mine")
    earlier = {path.name for path in cli.out.iterdir()}
    assert "similar.csv" in earlier
    cli.run(photos, "--duplicates", "exact")
    assert {p.name for p in cli.out.iterdir()} == earlier - {"captions.csv", "similar.csv"}


def _no_map(*_: object) -> None:
    raise RuntimeError("no map today")


@pytest.mark.parametrize(
    "change",
    ["another configuration", "a file", "a name", "the title", "our code", "the exports", "names",
     "the map"],
)  # fmt: skip
def test_news_are_not_hidden(
    cli: Cli, make_photos: MakePhotos, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the results depend on, a change of it makes a run with results of its own."""
    photos = make_photos()
    if change == "the map":  # it failed, and the run went on with the plain one
        with monkeypatch.context() as broken:
            broken.setattr("functions.draw_map.draw_map", _no_map)
            cli.run(photos, "--collection", "here")
        assert cli.record()["map"]["method"] == "pca"
    else:
        cli.run(photos, "--collection", "here")
    options = ["--collection", "here"]
    match change:
        case "another configuration":
            options += ["--seed", "5"]
        case "a file":
            (photos / "family 0" / "1.jpg").write_bytes(jpeg(picture(77)))
        case "a name":
            (photos / "family 0" / "1.jpg").rename(photos / "renamed.jpg")
        case "the title":
            monkeypatch.setattr("imageclust.steps.publish_run.title_of", lambda *_: "Another")
        case "our code":
            monkeypatch.setattr("imageclust.steps.publish_run._code_digest", lambda: "new")
        case "the exports":
            next((cli.home / "data" / "exports").glob("*/index.html")).unlink()
        case "names":
            (names,) = (cli.home / "data" / "descriptions").rglob("names.jsonl")
            names.write_text(names.read_text().replace('"title":"', '"title":"X'))
    first = cli.record()["run_id"]
    code, told, _ = cli.run(photos, *options)
    assert (code, "nothing has changed" in told) == (0, False)
    assert "same_as" not in cli.record()
    assert cli.record()["run_id"] != first
    assert (cli.out / "index.html").is_file()
    assert_conserved(cli, 18)
    cli.run(photos, *options)
    assert "same_as" in cli.record()


def test_the_results_of_an_older_run_are_made_again(cli: Cli, make_photos: MakePhotos) -> None:
    """The collection shows another run meanwhile, so this is news to it."""
    photos = make_photos()
    cli.run(photos, "--clusters", "3")
    cli.run(photos, "--clusters", "2")
    cli.run(photos, "--clusters", "3")
    assert "same_as" not in cli.record()
    assert len(json.loads((cli.out / "clusters.json").read_text())) == 3


def test_the_api_tells_of_a_run_without_news_what_the_one_before_holds(
    cli: Cli, make_photos: MakePhotos
) -> None:
    photos = make_photos()
    (photos / "no.jpg").write_text("no picture")
    ids = []
    for _ in range(2):
        cli.run(photos, "--collection", "here", "--clusters", "3")
        ids.append(cli.record()["run_id"])
    services = open_services(cli.home)
    try:
        collection = browse.get_collection(services, "here")
        assert (collection.current_run, collection.running_run) == (ids[0], None)
        first, second = (browse.get_run(services, run_id) for run_id in ids)
        assert (first.same_as, second.same_as) == (None, ids[0])
        assert second.counts == first.counts is not None
        assert set(second.exports) == set(first.exports)
        assert {n for n in first.exports if second.exports[n] != first.exports[n]} == {"run.json"}

        def held(run_id: str) -> list[object]:
            clusters = browse.list_clusters(services, run_id, limit=9, cursor=None).items
            named = [browse.get_cluster(services, run_id, c.cluster_id) for c in clusters]
            members = [
                browse.list_members(services, run_id, c.cluster_id, limit=99, cursor=None).items
                for c in clusters
            ]
            outliers = browse.list_outliers(services, run_id, limit=99, cursor=None).items
            rejected = browse.list_files(services, run_id, "rejected", limit=9, cursor=None).items
            assert len(clusters) == 3
            assert sum(map(len, members)) + len(outliers) == 18
            assert [file.path for file in rejected] == ["no.jpg"]
            return [clusters, named, members, outliers, rejected]

        assert held(ids[0]) == held(ids[1])
        image = browse.get_image(services, str(cli.rows()[0]["image_id"]))
        assert [place.run_id for place in image.places] == [ids[0]]
        gateway = Gateway(services, home=cli.home, host="127.0.0.1")
        page = gateway._send_gallery(f"{ids[1]}/index.html")
        assert b"".join(page.body) == (cli.out / "index.html").read_bytes()
        page.body.close()  # type: ignore[attr-defined]  # as the server does
    finally:
        services.close()


def test_what_a_run_without_news_does_not_load(make_photos: MakePhotos, tmp_path: Path) -> None:
    """The time of such a run is the time of its imports."""
    command = [sys.executable, "-X", "importtime", "-m", "local.cli", "run", str(make_photos())]
    command += ["--home", str(tmp_path / "home"), "--out", str(tmp_path / "out")]
    card, _, _ = make_colour_model(tmp_path / "models")
    command += ["--embedder", card.name, "--clusters", "3"]
    environment = {**os.environ, "IMAGECLUST_MODELS": str(tmp_path / "models")}
    for _ in range(2):
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
    assert "nothing has changed" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    heavy = {"numpy", "scipy", "cv2", "PIL", "onnxruntime", "boto3", "pydantic", "jinja2", "tqdm"}
    assert "imageclust.steps.publish_run" in loaded
    assert not heavy & loaded


def test_another_collection_reuses_the_same_pictures(cli: Cli, make_photos: MakePhotos) -> None:
    photos = make_photos()
    cli.run(photos)
    copy = shutil.copytree(photos, photos.parent / "copy")
    cli.run(copy, "--collection", "other")
    assert cli.record()["images"]["to_embed"] == 0


def test_the_largest_picture_is_a_matter_of_the_setting(
    cli: Cli, make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_photos()
    (photos / "large.jpg").write_bytes(jpeg(picture(3, size=(1_300, 1_000))))
    monkeypatch.setenv("IMAGECLUST_MAX_MEGAPIXELS", "1")
    assert cli.run(photos)[0] == 0
    rows = {row["path"]: row for row in cli.rows()}
    assert rows["large.jpg"]["status"] == "rejected"
    assert "at most 1 megapixels" in rows["large.jpg"]["reason"]
    assert cli.run(photos)[0] == 0
    assert cli.record()["images"]["to_embed"] == 0
    monkeypatch.setenv("IMAGECLUST_MAX_MEGAPIXELS", "2")
    assert cli.run(photos)[0] == 0
    assert cli.record()["images"]["to_embed"] == 1
    assert {row["path"]: row for row in cli.rows()}["large.jpg"]["status"] != "rejected"
    monkeypatch.setenv("IMAGECLUST_MAX_MEGAPIXELS", "many")
    code, _, complaint = cli.run(photos)
    assert code == 2
    assert "IMAGECLUST_MAX_MEGAPIXELS must be a whole number" in complaint


@pytest.mark.parametrize("part", ["*.npy", "*.jsonl"])
def test_a_torn_shard_is_embedded_again(cli: Cli, make_photos: MakePhotos, part: str) -> None:
    photos = make_photos()
    cli.run(photos)
    before = cli.rows()
    shard = next((cli.home / "data" / "vectors").rglob(part))
    shard.write_bytes(shard.read_bytes()[:-40])
    assert cli.run(photos)[0] == 0
    assert cli.record()["images"]["to_embed"] > 0
    assert cli.rows() == before


def test_duplicates_follow_what_they_duplicate(cli: Cli, make_photos: MakePhotos) -> None:
    photos = make_photos()
    original = photos / "family 1" / "2.jpg"
    shutil.copy(original, photos / "zz copy.jpg")
    assert cli.run(photos, "--clusters", "3")[0] == 0
    assert_conserved(cli, 19)
    rows = {row["path"]: row for row in cli.rows()}
    copy = rows["zz copy.jpg"]
    assert copy["status"] == "duplicate"
    assert copy["duplicate_of"] == "family 1/2.jpg"
    assert copy["cluster_id"] == rows["family 1/2.jpg"]["cluster_id"] != ""
    assert sum(c["size"] for c in json.loads((cli.out / "clusters.json").read_text())) == 18


def test_files_of_one_name_in_two_folders_are_two_files(cli: Cli, make_photos: MakePhotos) -> None:
    assert cli.run(make_photos(families=2, each=3))[0] == 0
    assert {"family 0/0.jpg", "family 1/0.jpg"} <= {row["path"] for row in cli.rows()}


def test_what_is_no_picture_is_rejected_with_a_reason(cli: Cli, make_photos: MakePhotos) -> None:
    photos = make_photos()
    whole = jpeg(picture(1))
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 3])
    (photos / "text.jpg").write_text("<script>alert(1)</script>")
    code, told, _ = cli.run(photos)
    assert code == 0
    assert f"why rejected: see {cli.out / 'assignments.csv'}\n" in told
    assert_conserved(cli, 21)
    reasons = {row["path"]: row["reason"] for row in cli.rows() if row["status"] == "rejected"}
    assert set(reasons) == {"empty.jpg", "cut.jpg", "text.jpg"}
    assert all(reasons.values())
    assert "<script>" not in (cli.out / "index.html").read_text()


def test_a_broken_link_says_so(cli: Cli, make_photos: MakePhotos) -> None:
    photos = make_photos()
    (photos / "link.jpg").symlink_to("/media/card/9.jpg")
    assert cli.run(photos)[0] == 0
    assert_conserved(cli, 19)
    (rejected,) = [row for row in cli.rows() if row["status"] == "rejected"]
    told = "This is a symbolic link to /media/card/9.jpg, which does not exist."
    assert rejected["reason"] == told


def test_a_file_too_large_to_read_is_rejected_unread(cli: Cli, make_photos: MakePhotos) -> None:
    photos = make_photos()
    with (photos / "film.mp4").open("wb") as file:
        file.truncate(300_000_000)
    assert cli.run(photos)[0] == 0
    assert_conserved(cli, 19)
    (rejected,) = [row for row in cli.rows() if row["status"] == "rejected"]
    assert rejected["reason"] == "The file has 300,000,000 bytes; at most 268,435,456 are read."


def test_two_runs_in_one_second_are_two_runs(cli: Cli, make_photos: MakePhotos) -> None:
    photos = make_photos(families=2, each=2)
    ids = set()
    for _ in range(3):
        assert cli.run(photos)[0] == 0
        ids.add(cli.record()["run_id"])
    assert len(ids) == 3


AWKWARD = [
    "with space.jpg", "Ünïcödé 写真 🌅.jpg", "quote'\"name.jpg", "-rf.jpg", "..dots..jpg",
    "semi;colon$(id).jpg", "=cmd|calc.jpg", ".hidden.jpg", "new\nline.jpg", "rtl-\u202egpj.jpg",
    "<img src=x onerror=alert(1)>.jpg", "percent%20.jpg", "back\\slash.jpg", "hash#?.jpg",
]  # fmt: skip


def test_awkward_names_come_through_unchanged(cli: Cli, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, name in enumerate(AWKWARD):
        (photos / name).write_bytes(jpeg(picture(number, family=number % 2)))
    assert cli.run(photos)[0] == 0
    with (cli.out / "assignments.csv").open(newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    assert sorted(row["path"] for row in rows) == sorted(AWKWARD)
    assert {row["status"] for row in rows} <= {"clustered", "outlier"}
    page = (cli.out / "index.html").read_text()
    assert "<img src=x" not in page


def test_a_name_that_is_not_unicode_is_kept(cli: Cli, make_photos: MakePhotos) -> None:
    photos = make_photos()
    odd = os.fsencode(photos) + b"/caf\xe9.jpg"
    with open(odd, "wb") as file:
        file.write(jpeg(picture(5)))
    assert cli.run(photos)[0] == 0
    assert b"caf\xe9.jpg" in (cli.out / "assignments.csv").read_bytes()
    assert_conserved(cli, 19)


def test_state_and_results_inside_the_photos_are_not_photos(
    tmp_path: Path, make_photos: MakePhotos, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = make_photos()
    cli = Cli(photos, capsys)
    for _ in range(2):
        assert cli.run(photos)[0] == 0
        assert_conserved(cli, 18)


def test_a_sample_is_a_share_and_the_same_one_each_time(cli: Cli, make_photos: MakePhotos) -> None:
    photos = make_photos(families=2, each=10)
    assert cli.run(photos, "--sample", "0.5", "--seed", "3")[0] == 0
    first = cli.rows()
    assert len(first) == 10
    cli.run(photos, "--sample", "0.5", "--seed", "3")
    assert cli.rows() == first
    cli.run(photos, "--sample", "0.5", "--seed", "4")
    assert {row["path"] for row in cli.rows()} != {row["path"] for row in first}


@pytest.mark.parametrize("method", ["kmeans", "ward"])
def test_size_bounds_hold(cli: Cli, make_photos: MakePhotos, method: str) -> None:
    photos = make_photos(families=3, each=8)
    code, _, _ = cli.run(photos, "--method", method, "--min-size", "5", "--max-size", "7")
    assert code == 0
    sizes = Counter(row["cluster_id"] for row in cli.rows())
    assert all(5 <= size <= 7 for size in sizes.values())
    assert_conserved(cli, 24)


# --- bad input: exit code 2 and one sentence that says what to mend


def refused(cli: Cli, photos: Path, *options: str) -> str:
    code, told, complaint = cli.run(photos, *options)
    assert code == 2
    assert told == ""
    lines = [line for line in complaint.splitlines() if line.startswith("imageclust: ")]
    assert len(lines) == 1
    return lines[0]


def test_a_folder_that_does_not_exist(cli: Cli, tmp_path: Path) -> None:
    assert "there is no folder" in refused(cli, tmp_path / "nowhere")


def test_a_file_in_place_of_a_folder(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(picture(1)))
    assert "is a file; give the folder" in refused(cli, tmp_path / "a.jpg")


def test_an_empty_folder(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "Holiday 2024").mkdir()
    assert "there are no files in 'Holiday 2024'" in refused(cli, tmp_path / "Holiday 2024")


def test_a_folder_without_pictures(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.txt").write_text("nothing to see")
    assert "no file in 'photos' is a picture that can be read" in refused(cli, tmp_path / "photos")


def test_min_size_above_max_size(cli: Cli, make_photos: MakePhotos) -> None:
    said = refused(cli, make_photos(), "--min-size", "9", "--max-size", "4")
    assert "min_size 9 is above max_size 4" in said


def test_more_clusters_than_the_bounds_allow_names_the_feasible_range(
    cli: Cli, make_photos: MakePhotos
) -> None:
    said = refused(cli, make_photos(), "--clusters", "5", "--min-size", "6")
    assert "18" in said
    assert "3" in said


def test_an_unknown_embedder_lists_the_known_ones(cli: Cli, make_photos: MakePhotos) -> None:
    said = refused(cli, make_photos(), "--embedder", "resnet9000")
    assert "resnet9000" in said
    assert "builtin" in said


@pytest.mark.parametrize(
    ("option", "value"), [("--sample", "0"), ("--clusters", "0"), ("--min-size", "-1")]
)
def test_numbers_out_of_range(cli: Cli, make_photos: MakePhotos, option: str, value: str) -> None:
    assert "must be" in refused(cli, make_photos(), option, value)


def test_an_unknown_method_is_a_usage_error(cli: Cli, make_photos: MakePhotos) -> None:
    with pytest.raises(SystemExit) as leaving:
        cli.run(make_photos(), "--method", "magic")
    assert leaving.value.code == 2


def test_an_output_folder_that_cannot_be_written(
    cli: Cli, make_photos: MakePhotos, tmp_path: Path
) -> None:
    if os.geteuid() == 0:
        target = Path("/sys/imageclust-results")  # read-only even for root
    else:
        (tmp_path / "locked").mkdir(mode=0o500)
        target = tmp_path / "locked" / "results"
    code, _, complaint = cli.run(make_photos(), out=target)
    assert code == 2
    assert "the results cannot go to" in complaint
    assert not (cli.home / "data" / "vectors").exists(), "refused before any work"


def test_an_output_folder_that_is_a_file(cli: Cli, make_photos: MakePhotos) -> None:
    cli.out.write_text("taken")
    assert "it is not a folder" in refused(cli, make_photos())


def test_a_collection_name_that_cannot_be(cli: Cli, make_photos: MakePhotos) -> None:
    assert "cannot name a collection" in refused(cli, make_photos(), "--collection", "My Photos")


_CTRL_C_AT_IMPORT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
loaded = sys.argv.pop(1)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == loaded:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from local.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("loaded", ["argparse", "imageclust.models", "jsonata", "local.run"])
def test_ctrl_c_while_the_program_loads_is_one_line(
    make_photos: MakePhotos, tmp_path: Path, loaded: str
) -> None:
    command = [sys.executable, "-c", _CTRL_C_AT_IMPORT, loaded, "run", str(make_photos())]
    command += ["--home", str(tmp_path / "home"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == "imageclust: stopped; the same command goes on where this one was\n"


# --- failed runs: exit code 1 with the state and the reason


def test_a_full_disk_while_writing_results(
    cli: Cli, make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_photos()
    copyfile = shutil.copyfile

    def full(source: Path, target: Path) -> Any:
        if Path(target).name == ".clusters.json.part":
            raise OSError(28, "No space left on device", str(target))
        return copyfile(source, target)

    monkeypatch.setattr(shutil, "copyfile", full)
    code, _, complaint = cli.run(photos)
    assert code == 1
    assert "the disk is full" in complaint
    monkeypatch.undo()
    assert cli.run(photos)[0] == 0
    assert cli.record()["images"]["to_embed"] == 0, "the run itself was kept"


def test_a_full_disk_in_the_state_folder_fails_the_run_and_loses_nothing(
    cli: Cli, make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imageclust.adapters.local.file_store import FileStore

    photos = make_photos()
    write = FileStore.write

    def full(self: FileStore, uri: str, data: bytes, *, content_type: str = "") -> None:
        if "/clusters/" in uri:
            raise Permanent("the disk is full")
        write(self, uri, data, content_type=content_type)

    monkeypatch.setattr(FileStore, "write", full)
    code, _, complaint = cli.run(photos)
    assert code == 1
    assert "the run failed at ClusterImages (Permanent): the disk is full; when that" in complaint
    assert " log" not in complaint
    monkeypatch.undo()
    assert cli.run(photos)[0] == 0
    assert cli.record()["images"]["to_embed"] == 0


def test_a_failure_that_nobody_foresaw_is_in_a_log(
    cli: Cli, make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_photos(families=1, each=3)

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("no such luck")

    monkeypatch.setattr(publish, "publish_run", broken)
    code, _, complaint = cli.run(photos)
    assert code == 1
    assert "the run failed at PublishRun (ZeroDivisionError): no such luck; start" in complaint
    assert "Traceback" not in complaint
    log = cli.home / "failures.log"
    assert str(log) in complaint
    assert "in broken" in log.read_text()


def test_a_state_folder_that_cannot_be_used(
    cli: Cli, make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Path.mkdir

    def refuse(self: Path, *arguments: Any, **options: Any) -> None:
        if self == cli.home:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        make(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    code, _, complaint = cli.run(make_photos(families=1, each=2))
    assert code == 1
    assert complaint == (
        f"imageclust: the state folder {cli.home} cannot be used: Permission denied; "
        "choose another with --home\n"
    )


def test_a_state_folder_that_can_only_be_read(tmp_path: Path) -> None:
    locked = table_error(_error(sqlite3.SQLITE_READONLY), tmp_path / "imageclust.sqlite")
    assert isinstance(locked, Permanent)
    assert "choose another state folder with --home" in str(locked)


def _error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("attempt to write a readonly database")
    error.sqlite_errorcode = code
    return error


def test_without_a_command_the_usage_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in ([], ["run", "search", "serve"]), (["models"], ["list", "add", "pull"]):
        assert main(arguments) == 2
        told = capsys.readouterr().err
        assert all(f"    {word} " in told for word in words)
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"imageclust {__version__}\n"


@pytest.mark.shared
@pytest.mark.parametrize("name", ["aws_rooms", "nasty"])
def test_real_photos(cli: Cli, shared: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGECLUST_MODELS", str(shared / "models"))
    photos = shared / "data" / name / "images"
    photos = photos if photos.is_dir() else shared / "data" / name / "files"
    seen = sum(path.is_file() for path in photos.rglob("*"))
    code, _, _ = cli.run(photos, "--embedder", "mobilenet_v2_1.0_224_w8", "--clusters", "3")
    assert code == 0
    assert_conserved(cli, seen)
    assert all(cluster["labels"] for cluster in json.loads((cli.out / "clusters.json").read_text()))


def test_results_among_the_photos_stay_results_when_they_go_elsewhere(
    cli: Cli, make_photos: MakePhotos
) -> None:
    photos = make_photos()
    assert cli.run(photos, out=photos / "first results")[0] == 0
    assert cli.run(photos)[0] == 0
    assert_conserved(cli, 18)


def test_a_collection_under_way_keeps_its_folder(cli: Cli, make_photos: MakePhotos) -> None:
    one, two = make_photos(folder="one"), make_photos(folder="two")
    cli.run(one, "--collection", "same")
    with (cli.home / "locks" / "collection-same").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, _, complaint = cli.run(two, "--collection", "same")
    assert code == 1
    assert "another imageclust works on the collection 'same'" in complaint
    assert (cli.home / "uploads" / "same").readlink() == one.resolve()
