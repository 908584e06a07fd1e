"""``imageclust compare`` as a person uses it: a ranked table, stored vectors, honest refusals."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local.cli import main
from tests.conftest import jpeg, picture
from tests.standins.tiny_onnx import make_colour_model

MakePhotos = Callable[..., Path]


class Compare:
    """Runs the comparison in this process over one state folder with one tiny model."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self.out, self.capsys = folder / "home", folder / "out", capsys
        make_colour_model(self.home / "models")

    def call(self, *arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--home", str(self.home), "--out", str(self.out)])
        told = self.capsys.readouterr()
        return code, told.out, told.err

    def compare(self, photos: Path, *options: str) -> Any:
        code, _, complaint = self.call("compare", str(photos), *options)
        assert code == 0, complaint
        return json.loads((self.out / "compare.json").read_text())

    def refused(self, photos: Path, *options: str) -> str:
        code, told, complaint = self.call("compare", str(photos), *options)
        assert code == 2
        assert told == ""
        return complaint.strip().splitlines()[-1]


@pytest.fixture
def tool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Compare:
    return Compare(tmp_path, capsys)


def test_every_combination_is_ranked_and_stored(tool: Compare, make_photos: MakePhotos) -> None:
    photos = make_photos()
    (photos / "broken.jpg").write_text("no picture")
    options = ("--embedders", "builtin,tiny_colours", "--preprocess", "squeeze,letterbox")
    code, told, progress = tool.call("compare", str(photos), *options, "--clusters", "3")
    assert code == 0
    assert "1/3 builtin/default: 18 embedded, 0 reused" in progress
    document = json.loads((tool.out / "compare.json").read_text())
    assert (document["images"], document["left_out"]) == (18, 1)
    rows = document["rows"]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert {row["name"] for row in rows} == {
        "builtin/default", "tiny_colours/squeeze", "tiny_colours/letterbox",
    }  # fmt: skip
    assert all(row["clusters"] == 3 for row in rows)
    assert [row["composite"] for row in rows] == sorted(
        (row["composite"] for row in rows), reverse=True
    )
    lines = told.splitlines()
    assert len(lines) == 4
    assert [line.split()[1] for line in lines[1:]] == [row["name"] for row in rows]
    with (tool.out / "compare.csv").open(newline="") as text:
        assert [row["name"] for row in csv.DictReader(text)] == [row["name"] for row in rows]


def test_vectors_are_kept_for_the_next_comparison_and_for_runs(
    tool: Compare, make_photos: MakePhotos
) -> None:
    photos = make_photos()
    first = tool.compare(photos, "--embedders", "tiny_colours")
    assert [row["embedded"] for row in first["rows"]] == [18]
    again = tool.compare(photos, "--embedders", "tiny_colours,builtin")
    assert {row["name"]: row["embedded"] for row in again["rows"]} == {
        "tiny_colours/default": 0, "builtin/default": 18,
    }  # fmt: skip
    code, _, _ = tool.call("run", str(photos), "--embedder", "tiny_colours", "--labels", "off")
    assert code == 0
    assert json.loads((tool.out / "run.json").read_text())["images"]["to_embed"] == 0


def test_what_is_one_configuration_is_tried_once(tool: Compare, make_photos: MakePhotos) -> None:
    found = tool.compare(
        make_photos(), "--embedders", "tiny_colours", "--preprocess", "default,squeeze"
    )
    assert [row["name"] for row in found["rows"]] == ["tiny_colours/default"]


def test_resolutions_are_configurations_of_their_own(
    tool: Compare, make_photos: MakePhotos
) -> None:
    found = tool.compare(make_photos(), "--embedders", "builtin", "--resolutions", "32,64")
    assert {row["name"] for row in found["rows"]} == {"builtin/default@32", "builtin/default@64"}
    assert {row["embedded"] for row in found["rows"]} == {18}


def test_a_sample_is_drawn_first_and_keeps_the_named_files(
    tool: Compare, make_photos: MakePhotos
) -> None:
    photos = make_photos(families=2, each=20)
    named = ["family 1/7.jpg", "family 0/3.jpg"]
    options = ["--embedders", "builtin", "--sample", "0.2", "--seed", "5", "--json"]
    options += [word for name in named for word in ("--include", name)]
    first = tool.compare(photos, *options)
    assert 8 <= first["images"] <= 10
    assert first["rows"][0]["embedded"] == first["images"], "only the sample is embedded"
    assert first["kept"] == sorted(named)
    second = tool.compare(photos, *options)
    assert second["rows"][0]["embedded"] == 0, "the same sample again"
    assert second["images"] == first["images"]
    absolute = tool.compare(photos, "--embedders", "builtin", "--sample", "0.01",
                            "--include", str(photos / named[0]))  # fmt: skip
    assert absolute["kept"] == named[:1]


def test_a_pair_that_is_given_twice_counts_once(tool: Compare, make_photos: MakePhotos) -> None:
    pairs = tool.home.parent / "pairs.csv"
    rule = "family 0/0.jpg,family 0/1.jpg,must\n"
    pairs.write_text(f"first,second,rule\n{rule}{rule}family 0/1.jpg,family 0/0.jpg,must-link\n")
    found = tool.compare(make_photos(), "--embedders", "builtin", "--pairs", str(pairs))
    assert found["pairs"] == 1
    assert "embedder" not in found["config"], "each row has its own"


def test_results_do_not_go_among_the_photos_through_a_link(
    tool: Compare, make_photos: MakePhotos, tmp_path: Path
) -> None:
    photos = make_photos()
    (tmp_path / "link").symlink_to(photos)
    tool.out = tmp_path / "link"
    said = tool.refused(photos, "--embedders", "builtin")
    assert "the photos lie in it" in said
    assert sorted(photos.glob(".*")) == []


def test_pairs_rank_before_any_score(tool: Compare, make_photos: MakePhotos) -> None:
    photos = make_photos(families=2, each=6)
    pairs = photos.parent / "pairs.csv"
    pairs.write_text(
        "first,second,rule\n"
        "family 0/0.jpg,family 0/1.jpg,must-link\n"
        "family 0/0.jpg,family 1/1.jpg,cannot-link\n"
    )
    found = tool.compare(photos, "--embedders", "builtin,tiny_colours", "--clusters", "2",
                         "--pairs", str(pairs), "--sample", "0.1")  # fmt: skip
    assert found["pairs"] == 2
    assert set(found["kept"]) == {"family 0/0.jpg", "family 0/1.jpg", "family 1/1.jpg"}
    shares = [row["pairs_satisfied"] for row in found["rows"]]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "needs the columns first, second and rule"),
        ("first,second,rule\nfamily 0/0.jpg,family 0/1.jpg,maybe\n", "must-link or cannot-link"),
        ("first,second,rule\nfamily 0/0.jpg,gone.jpg,must\n", "there is no file 'gone.jpg'"),
        ("first,second,rule\nfamily 0/0.jpg,text.jpg,must\n", "not an image that can be read"),
        ("first,second,rule\nfamily 0/0.jpg,copy.jpg,cannot\n", "the same picture"),
        ("first,second,rule\nfamily 0/0.jpg,family 0/0.jpg,must\n", "line 2: a pair is two files"),
        (
            "first,second,rule\nfamily 0/0.jpg,family 0/1.jpg,must\n"
            "family 0/1.jpg,family 0/0.jpg,cannot\n",
            "line 3: family 0/0.jpg and family 0/1.jpg must be together and must not",
        ),
    ],
)
def test_pairs_that_cannot_be(tool: Compare, make_photos: MakePhotos, text: str, said: str) -> None:
    photos = make_photos(families=1)
    (photos / "text.jpg").write_text("no picture")
    (photos / "copy.jpg").write_bytes((photos / "family 0" / "0.jpg").read_bytes())
    pairs = photos.parent / "pairs.csv"
    pairs.write_text(text)
    assert said in tool.refused(photos, "--embedders", "builtin", "--pairs", str(pairs))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--embedders", "builtin,resnet9000"], "resnet9000"),
        (["--embedders", " , "], "at least one embedder"),
        (["--preprocess", ""], "one preprocessing"),
        (["--embedders", "tiny_colours", "--preprocess", "magic"], "magic"),
        (["--resolutions", "5"], "between 16 and 4096"),
        (["--include", "gone.jpg"], "there is no file 'gone.jpg'"),
        (["--sample", "2"], "sample must be"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(
    tool: Compare, make_photos: MakePhotos, options: list[str], said: str
) -> None:
    assert said in tool.refused(make_photos(), *options)
    assert not (tool.home / "data" / "vectors").exists()


def test_resolutions_that_are_no_numbers(
    tool: Compare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        tool.call("compare", str(tmp_path), "--resolutions", "64,large")
    assert "whole numbers separated by commas, not '64,large'" in capsys.readouterr().err


def test_a_folder_that_is_not_there(tool: Compare, tmp_path: Path) -> None:
    assert "there is no folder" in tool.refused(tmp_path / "nowhere")


def test_a_file_outside_the_folder_is_not_included(
    tool: Compare, make_photos: MakePhotos, tmp_path: Path
) -> None:
    (tmp_path / "other.jpg").write_bytes(jpeg(picture(1)))
    said = tool.refused(make_photos(), "--include", str(tmp_path / "other.jpg"))
    assert "there is no file" in said
