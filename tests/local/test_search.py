"""``imageclust search`` as a person uses it, over a run of a tiny model of pictures and words."""

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imageclust.adapters.local.file_vector_index import FileVectorIndex

from local.cli import main
from tests.conftest import jpeg
from tests.standins.tiny_towers import make_towers

COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}
EACH = 8
RUN = ["--collection", "colours", "--clusters", "3", "--method", "kmeans"]


class Cli:
    """Runs the command line in this process over one state folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.home, self.photos = folder / "home", folder / "photos"

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--home", str(self.home)])
        told = self.capsys.readouterr()
        return code, told.out, told.err

    def run(self, *options: str) -> None:
        out = str(self.folder / "out")
        code, _, told = self("run", str(self.photos), "--out", out, *RUN, *options)
        assert code == 0, told

    def search(self, *arguments: str) -> list[dict[str, Any]]:
        code, out, told = self("search", "--collection", "colours", "--json", *arguments)
        assert code == 0, told
        found: list[dict[str, Any]] = json.loads(out)
        return found


def picture(colour: str, seed: int) -> np.ndarray:
    """A picture mostly of one colour, the less so the higher its seed."""
    rng = np.random.default_rng([seed, *COLOURS[colour]])
    plain = np.full((40, 50, 3), COLOURS[colour], np.uint8)
    plain[:, : 2 * seed + 1] = rng.integers(0, 256, (40, 2 * seed + 1, 3))
    return plain


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, the given model and a state folder that has a run of them."""
    folder = tmp_path_factory.mktemp("clustered")
    for colour in COLOURS:
        (folder / "photos" / colour).mkdir(parents=True)
        for seed in range(EACH):
            file = folder / "photos" / colour / f"{seed}.jpg"
            file.write_bytes(jpeg(picture(colour, seed)))
    make_towers(folder / "given")
    home = ["--home", str(folder / "home")]
    assert main(["models", "add", str(folder / "given" / "tiny_towers.json"), *home]) == 0
    options = [*RUN, "--embedder", "tiny_towers", "--out", str(folder / "out"), *home]
    assert main(["run", str(folder / "photos"), *options]) == 0
    return folder


@pytest.fixture
def cli(clustered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Each test with a copy of its own."""
    shutil.copytree(clustered, tmp_path, symlinks=True, dirs_exist_ok=True)
    capsys.readouterr()
    return Cli(tmp_path, capsys)


def test_words_find_their_pictures_with_their_cluster(cli: Cli) -> None:
    for colour in COLOURS:
        found = cli.search(f"a {colour} thing", "--top", str(EACH))
        assert [Path(hit["path"]).parent.name for hit in found] == [colour] * EACH
        similar = [hit["similarity"] for hit in found]
        assert similar == sorted(similar, reverse=True)
        assert len({hit["cluster_id"] for hit in found}) == 1
        assert all(hit["title"] for hit in found)
    code, out, _ = cli("search", "red", "--collection", "colours", "--top", "2")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 2
    first = cli.search("red", "--top", "1")[0]
    assert first["path"] in lines[0]
    assert f"{first['title']} ({first['cluster_id']})" in lines[0]


def test_a_picture_finds_its_like(cli: Cli, tmp_path: Path) -> None:
    query = tmp_path / "query.jpg"
    query.write_bytes(jpeg(picture("green", 3)))
    found = cli.search("--image", str(query), "--top", "4")
    assert {Path(hit["path"]).parent.name for hit in found} == {"green"}
    assert found[0]["path"] == "green/3.jpg"
    assert found[0]["similarity"] > 0.999


def test_only_the_shown_run_is_searched(cli: Cli) -> None:
    for seed in range(1, EACH):
        (cli.photos / "red" / f"{seed}.jpg").unlink()
    cli.run("--embedder", "tiny_towers")
    found = cli.search("red", "--top", "50")
    assert len(found) == 2 * EACH + 1
    assert [hit["path"] for hit in found if hit["path"].startswith("red/")] == ["red/0.jpg"]


def test_the_index_forgets_photos_that_were_removed(cli: Cli) -> None:
    removed = cli.photos / "green" / "2.jpg"
    gone = hashlib.sha256(removed.read_bytes()).hexdigest()
    index = FileVectorIndex(cli.home / "vectors")
    (name,) = (folder.name for folder in (cli.home / "vectors").iterdir())
    aim = np.ones(3, np.float32)
    before = {match.id for match in index.query(name, aim, top_k=100)}
    assert gone in before
    removed.unlink()
    cli.run("--embedder", "tiny_towers")
    assert {match.id for match in index.query(name, aim, top_k=100)} == before - {gone}
    assert f"green/{removed.name}" not in {hit["path"] for hit in cli.search("green")}


def test_a_picture_searches_where_no_text_can(cli: Cli) -> None:
    cli.run("--embedder", "builtin")
    query = cli.photos / "blue" / "2.jpg"
    assert cli.search("--image", str(query), "--top", "1")[0]["path"] == "blue/2.jpg"
    code, _, told = cli("search", "blue", "--collection", "colours")
    assert code == 2
    assert "built-in descriptor 'builtin' knows pictures only" in told
    assert "--image FILE" in told
    assert "tiny_towers" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["red", "--collection", "other"], "no collection 'other'. There are: colours."),
        (["--collection", "colours"], "either words or --image"),
        (["red", "--image", "x.jpg", "--collection", "colours"], "either words or --image"),
        (["--image", "absent.jpg", "--collection", "colours"], "no file absent.jpg"),
        (["  ", "--collection", "colours"], "at least one word"),
        (["red", "--collection", "colours", "--top", "0"], "1 to 1000"),
    ],
)
def test_what_cannot_be_searched_is_told_in_one_sentence(
    cli: Cli, arguments: list[str], message: str
) -> None:
    code, out, told = cli("search", *arguments)
    assert code == 2
    assert message in told
    assert len(told.splitlines()) == 1
    assert out == ""


def test_a_file_that_is_no_picture(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    code, _, told = cli("search", "--image", str(tmp_path / "text.jpg"), "--collection", "colours")
    assert code == 2
    assert told.startswith("imageclust: ")


def test_another_model_of_the_name_asks_for_a_run(cli: Cli, tmp_path: Path) -> None:
    make_towers(tmp_path / "given", kind="unigram")
    card = json.loads((tmp_path / "given" / "tiny_towers.json").read_text())
    # The same towers, but pictures prepared in another way: other vectors.
    card["preprocess"] = "letterbox"
    (tmp_path / "given" / "tiny_towers.json").write_text(json.dumps(card))
    assert cli("models", "add", str(tmp_path / "given" / "tiny_towers.json"))[0] == 0
    code, _, told = cli("search", "red", "--collection", "colours")
    assert code == 2
    assert "run the collection again" in told


def test_without_the_library_pictures_still_search(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    code, _, told = cli("search", "red", "--collection", "colours")
    assert code == 2
    assert "imageclust[text]" in told
    query = str(cli.photos / "blue" / "2.jpg")
    assert cli.search("--image", query, "--top", "1")[0]["path"] == "blue/2.jpg"


def test_a_collection_is_known_by_its_folder_too(cli: Cli, tmp_path: Path) -> None:
    query = str(cli.photos / "blue" / "2.jpg")
    assert cli("search", "--image", query)[0] == 0, "the only one needs no name"
    (tmp_path / "Sea 2024").mkdir()
    shutil.copy(query, tmp_path / "Sea 2024" / "a.jpg")
    out = ["--out", str(tmp_path / "sea")]
    assert cli("run", str(tmp_path / "Sea 2024"), *out)[0] == 0
    code, told, _ = cli("search", "--image", query, "--collection", "Sea 2024")
    assert (code, told.split()[1]) == (0, "a.jpg")
    code, _, told = cli("search", "--image", query)
    assert code == 2
    assert re.search(
        r"--collection\. There are: colours, sea-2024-[0-9a-f]{6} \(Sea 2024\)\.", told
    )


def test_before_any_run_there_is_no_state_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["search", "red", "--collection", "x", "--home", str(tmp_path / "none")])
    assert code == 2
    told = capsys.readouterr().err
    assert "no state folder" in told
    assert "imageclust run PHOTOS" in told
    assert not (tmp_path / "none").exists()
