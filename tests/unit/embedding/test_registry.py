"""The registry: what is installed, known or broken, and what `add` accepts."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from imageclust.embedding import BUILTIN, ModelRegistry, open_embedder, open_text
from imageclust.errors import InvalidInput, UnknownModel

from tests.standins.tiny_towers import make_towers

MakeModel = Callable[..., Path]


@pytest.mark.parametrize("suffix", [".json", ".onnx"])
def test_add_takes_the_card_or_the_model(
    make_model: MakeModel, tmp_path: Path, suffix: str
) -> None:
    registry = ModelRegistry(tmp_path / "models")
    given = make_model(labels="classes.json")
    given.with_name("classes.json").write_text('["a", "b"]')

    card = registry.add(given.with_suffix(suffix))

    assert registry.get("tiny") == card
    assert registry.path("tiny").read_bytes() == given.with_suffix(".onnx").read_bytes()
    assert registry.labels_path("tiny") == tmp_path / "models" / "classes.json"
    assert not list((tmp_path / "models").glob(".*"))
    assert registry.add(given) == card
    states = {entry.name: entry.state for entry in registry.list()}
    assert states[BUILTIN] == "built in"
    assert states["tiny"] == "installed"
    assert "classes" not in states


def test_add_says_what_is_wrong(make_model: MakeModel, tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "models")
    card = make_model()
    with pytest.raises(InvalidInput, match="no file"):
        registry.add(card.with_name("absent.onnx"))
    with pytest.raises(InvalidInput, match="neither"):
        registry.add(card.with_name("photo.jpg"))
    lonely = shutil.copy(card.with_suffix(".onnx"), card.with_name("lonely.onnx"))
    with pytest.raises(InvalidInput, match=r"put lonely\.json beside it"):
        registry.add(Path(lonely))
    other = shutil.copy(card, card.with_name("other.json"))
    with pytest.raises(InvalidInput, match=r"is for tiny\.onnx"):
        registry.add(Path(other))
    with pytest.raises(InvalidInput, match="label file"):
        registry.add(make_model("unlabelled", labels="absent.json"))
    card.with_suffix(".onnx").write_bytes(b"changed")
    with pytest.raises(InvalidInput, match="does not match its card"):
        registry.add(card)
    assert not (tmp_path / "models").exists()


def test_label_files_are_shared_but_never_overwritten(
    make_model: MakeModel, tmp_path: Path
) -> None:
    registry = ModelRegistry(tmp_path / "models")
    given = make_model(labels="classes.json")
    labels = given.with_name("classes.json")
    labels.write_text('["a", "b"]')
    registry.add(given)
    registry.add(make_model("second", labels="classes.json"))
    labels.write_text('["c", "d"]')
    with pytest.raises(InvalidInput, match="another name"):
        registry.add(make_model("third", labels="classes.json"))
    assert registry.labels_path("tiny").read_text() == '["a", "b"]'  # type: ignore[union-attr]


def test_later_folders_are_searched_and_earlier_ones_win(
    make_model: MakeModel, tmp_path: Path
) -> None:
    given = make_model().parent
    registry = ModelRegistry([tmp_path / "mine", given])
    assert registry.path("tiny").parent == given
    registry.add(given / "tiny.json")
    assert registry.path("tiny").parent == tmp_path / "mine"


def test_unknown_models_list_the_known(make_model: MakeModel) -> None:
    registry = ModelRegistry(make_model().parent)
    with pytest.raises(UnknownModel, match="builtin, tiny"):
        registry.get("huge")
    with pytest.raises(UnknownModel, match="models pull resnet50-v1-12"):
        registry.get("resnet50-v1-12")


def test_a_broken_model_is_listed_and_explained(make_model: MakeModel) -> None:
    card = make_model()
    fields = json.loads(card.read_text())
    fields["input"]["scale"] = "who knows"
    card.write_text(json.dumps(fields))
    registry = ModelRegistry(card.parent)
    (entry,) = (entry for entry in registry.list() if entry.name == "tiny")
    assert entry.state == "broken"
    with pytest.raises(InvalidInput, match="scale"):
        registry.get("tiny")


def test_open_embedder_by_name(make_model: MakeModel) -> None:
    registry = ModelRegistry(make_model().parent)
    image = np.full((40, 50, 3), 200, dtype=np.uint8)
    for name in ("tiny", BUILTIN):
        embedder = open_embedder(name, registry=registry, threads=1)
        vectors = embedder.embed([image, image])
        assert vectors.shape == (2, embedder.dimension)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    with pytest.raises(InvalidInput, match="whole picture"):
        open_embedder(BUILTIN, registry=registry, preprocess="letterbox")


def test_a_registry_needs_a_folder() -> None:
    with pytest.raises(InvalidInput, match="folder"):
        ModelRegistry([])


def test_importing_the_package_loads_no_engine() -> None:
    code = (
        "import sys, imageclust.embedding as e; from pathlib import Path;"
        "e.ModelRegistry(Path('nowhere')).list();"
        "bad = {'onnxruntime', 'cv2', 'scipy', 'urllib.request', 'http.client'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_add_brings_both_towers_and_the_tokenizer(tmp_path: Path) -> None:
    card = make_towers(tmp_path / "given")
    registry = ModelRegistry(tmp_path / "models")
    assert registry.add(tmp_path / "given" / "tiny_towers.onnx") == card
    assert {path.name for path in (tmp_path / "models").iterdir()} == {
        "tiny_towers.json", *(file.file for file in card.files)
    }  # fmt: skip
    # A tokenizer is JSON too, and no card.
    states = {entry.name: entry.state for entry in registry.list() if entry.state != "known"}
    assert states == {BUILTIN: "built in", "tiny_towers": "installed"}
    assert open_text("tiny_towers", registry=registry).embed(["red"]).shape == (1, 3)


@pytest.mark.parametrize("file", ["tiny_towers.text.onnx", "tiny_towers.tokenizer.json"])
def test_add_takes_no_half_model(tmp_path: Path, file: str) -> None:
    make_towers(tmp_path / "given")
    (tmp_path / "given" / file).unlink()
    with pytest.raises(InvalidInput, match=f"no model file .*{file}"):
        ModelRegistry(tmp_path / "models").add(tmp_path / "given" / "tiny_towers.json")
    assert not (tmp_path / "models").exists()
