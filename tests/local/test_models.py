"""``imageclust models`` as a person uses it."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from local import models
from local.cli import main
from tests.standins.tiny_onnx import make_colour_model

URL = "https://models.example.org/tiny_colours.onnx"


class Network:
    """Serves one file; breaks off after ``holds`` bytes of an answer, or is not there at all."""

    def __init__(self, data: bytes) -> None:
        self.data, self.holds = data, len(data)
        self.starts: list[int] = []

    def fetch(self, url: str, start: int) -> Iterator[bytes]:
        assert url == URL
        self.starts.append(start)
        if not self.holds:
            raise OSError("Temporary failure in name resolution")
        yield self.data[start : start + self.holds]
        if start + self.holds < len(self.data):
            raise ConnectionResetError("connection reset")


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Network:
    card, file, _ = make_colour_model(tmp_path / "publisher")
    network = Network(file.read_bytes())
    monkeypatch.setattr(models, "KNOWN_MODELS", (replace(card, url=URL, labels=""),))
    monkeypatch.setattr(models, "https_fetch", network.fetch)
    monkeypatch.setenv("IMAGECLUST_HOME", str(tmp_path / "home"))
    return network


def test_pull_fetches_checks_and_installs(
    network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "pull", "tiny_colours"]) == 0
    told = capsys.readouterr().out
    assert URL in told
    assert "installed tiny_colours (3 dimensions, MIT)" in told
    assert main(["models", "list"]) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("tiny_colours")]
    assert line.split()[1] == "installed"
    assert main(["models", "pull", "tiny_colours"]) == 0
    assert network.starts == [0], "not fetched again"


def test_pull_goes_on_where_it_broke_off(
    network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    network.holds = 100
    assert main(["models", "pull", "tiny_colours"]) == 1
    assert "run the same command again" in capsys.readouterr().err.replace("\n", " ")
    network.holds = len(network.data)
    assert main(["models", "pull", "tiny_colours"]) == 0
    assert network.starts == [0, 100]


def test_without_a_network_one_sentence_names_the_built_in_descriptor(
    network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    network.holds = 0
    assert main(["models", "pull", "tiny_colours"]) == 1
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("imageclust: ")]
    assert len(lines) == 1
    assert "'builtin'" in lines[0]


def test_bytes_of_another_file_are_thrown_away(
    network: Network, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network.data = bytes(len(network.data))
    assert main(["models", "pull", "tiny_colours"]) == 1
    assert "does not match the digest" in capsys.readouterr().err
    assert not list((tmp_path / "home" / "models").iterdir())


@pytest.mark.usefixtures("network")
def test_a_model_that_nobody_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "pull", "resnet9000"]) == 2
    assert "tiny_colours" in capsys.readouterr().err


def test_add_and_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, file, labels = make_colour_model(tmp_path / "publisher")
    home = ["--home", str(tmp_path / "home")]
    assert main(["models", "add", str(file), *home]) == 0
    assert "added tiny_colours (3 dimensions, MIT)" in capsys.readouterr().out
    (tmp_path / "home" / "models" / labels.name).unlink()
    assert main(["models", "list", *home]) == 0
    listed = capsys.readouterr()
    assert "'imageclust models pull NAME'" in listed.err
    told = listed.out.splitlines()
    assert told[0].split() == ["NAME", "STATE", "DIMENSION", "LABELS", "TEXT", "MB", "LICENCE"]
    assert told[1].startswith("builtin")
    (line,) = [x for x in told if x.startswith("tiny_colours")]
    assert "broken" in line
    assert "tiny_colours_labels.json is missing" in line


def test_a_file_without_a_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.onnx").write_bytes(b"onnx")
    assert main(["models", "add", str(tmp_path / "x.onnx"), "--home", str(tmp_path)]) == 2
    assert "has no card" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"outputs": {"features": {"name": "features", "dimension": 4}}}, "promises (3, 4)"),
        ({"outputs": {"features": {"name": "pooler", "dimension": 3}}}, "the card names"),
        ({"labels": "short.json"}, "names 1 classes"),
        (
            {"input": {"layout": "NHWC float32 [N,16,16,3]", "colour": "RGB", "scale": "x/255",
                       "resize": {"short_side": 16, "size": 16}}},
            "does not take pictures as its card says",
        ),
    ],
)  # fmt: skip
def test_a_card_that_does_not_fit_its_file_is_not_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], said: str
) -> None:
    _, file, _ = make_colour_model(tmp_path)
    (tmp_path / "short.json").write_text('[{"name": "one", "parents": []}]')
    card = file.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | change))
    assert main(["models", "add", str(file), "--home", str(tmp_path / "home")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "home" / "models").exists()


def test_a_model_that_fails_on_several_pictures_is_not_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its file promises any number of pictures, but something inside it holds one only."""
    _, file, _ = make_colour_model(tmp_path)
    made = onnx.load(file)
    made.graph.node[1].CopyFrom(helper.make_node("Reshape", ["pooled", "one"], ["features"]))
    made.graph.initializer.append(numpy_helper.from_array(np.array([1, 3], np.int64), "one"))
    onnx.save(made, file)
    card = file.with_suffix(".json")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    changed = {"sha256": digest, "bytes": file.stat().st_size}
    card.write_text(json.dumps(json.loads(card.read_text()) | changed))
    assert main(["models", "add", str(file), "--home", str(tmp_path / "home")]) == 2
    assert "fails on three plain pictures" in capsys.readouterr().err
    assert not (tmp_path / "home" / "models").exists()
