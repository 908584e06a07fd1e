"""``imageclust estimate`` and the API's estimate."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from local.cli import main


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        home = ["--home", str(tmp_path / "home")]
        code = main(["estimate", *map(str, arguments), *home])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


Ask = Callable[..., tuple[int, str, str]]


def test_the_table_of_a_number_of_images(ask: Ask) -> None:
    code, out, _ = ask("--images", 10_000)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "On this machine a run costs nothing. On AWS:"
    assert lines[1] == "10,000 images, about 200 clusters, us-east-1"
    assert [line.split()[0] for line in lines[3:12]] == [
        "labels", "embedding", "decoding", "workflow", "table", "storage", "vectors", "naming",
        "total",
    ]  # fmt: skip


def test_a_folder_before_and_after_a_run(
    ask: Ask, make_photos: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = make_photos(families=2, each=4)
    (photos / "copy.jpg").write_bytes((photos / "family 0" / "0.jpg").read_bytes())
    code, out, _ = ask(photos)
    assert out.startswith("9 files, 9 distinct images; 0 vectors and 0 labels are stored")
    assert not (tmp_path / "home").exists(), "asking leaves no trace"
    options = ["--home", str(tmp_path / "home"), "--out", str(tmp_path / "out")]
    assert main(["run", str(photos), *options, "--embedder", "builtin"]) == 0
    capsys.readouterr()
    code, out, _ = ask(photos)
    assert code == 0
    assert out.startswith("9 files, 8 distinct images; 8 vectors and 0 labels are stored")
    assert "8 images, Rekognition" in out, "labels of this machine are none of Rekognition's"
    code, out, _ = ask(photos, "--from-scratch", "--json")
    found = json.loads(out)
    assert found["stored"] == {"vectors": 0, "labels": 0}
    assert found["units"]["labels"] == {"rekognition_image": 9}


def test_a_folder_that_a_run_called_otherwise(
    ask: Ask, make_photos: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = make_photos(families=1, each=4)
    options = ["--home", str(tmp_path / "home"), "--out", str(tmp_path / "out")]
    named = ["--collection", "holiday", "--embedder", "builtin"]
    assert main(["run", str(photos), *options, *named]) == 0
    capsys.readouterr()
    assert ask(photos)[1].startswith("4 files, 4 distinct images; 4 vectors")


def test_configuration_and_prices(ask: Ask, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"labels": "off", "describer": "deterministic"}')
    prices = tmp_path / "prices.json"
    prices.write_text('{"lambda_gb_second": 1}')
    out = ask("--images", 10, "--config", config, "--prices", prices, "--json")[1]
    usd = {row["stage"]: row["usd"] for row in json.loads(out)["stages"]}
    assert (usd["labels"], usd["naming"], usd["embedding"]) == (0, 0, 15)
    out = ask("--images", 10_000, "--config", '{"max_cost_usd": 2}')[1]
    assert "Note: labels are given to exemplars only" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give one of them"),
        (["--images", "5", "."], "give one of them"),
        (["nowhere"], "there is no folder nowhere"),
        (["--images", "-1"], "0 or more"),
        (["--images", "5", "--config", "{"], "--config is not JSON"),
        (["--images", "5", "--config", '{"labelz": 1}'], "unknown setting 'labelz'"),
        (["--images", "5", "--config", "none.json"], "there is no file none.json"),
        (["--images", "9999999", "--config", '{"max_cost_usd": 1}'], "max_cost_usd is $1.00"),
    ],
)
def test_what_cannot_be_estimated_is_told(ask: Ask, arguments: list[str], sentence: str) -> None:
    code, out, err = ask(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("imageclust: ")
    assert sentence in err
