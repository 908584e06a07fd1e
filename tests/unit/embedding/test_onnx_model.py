"""ONNX models: one inference for features and logits, and clear words when a file misfits."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from imageclust.embedding import ModelCard, OnnxEmbedder, OnnxModel
from imageclust.embedding.preprocess import views
from imageclust.errors import CorruptData, InvalidInput

MakeModel = Callable[..., Path]


def opened(card_path: Path, **options: object) -> OnnxModel:
    card = ModelCard.parse(card_path.read_bytes())
    return OnnxModel(card, card_path.with_name(card.file), **options)  # type: ignore[arg-type]


def plain(red: int, green: int, blue: int, rows: int = 12, columns: int = 12) -> np.ndarray:
    return np.full((rows, columns, 3), (red, green, blue), dtype=np.uint8)


def test_features_and_logits_come_from_one_run(make_model: MakeModel) -> None:
    model = opened(make_model())
    outputs = model.run([plain(255, 0, 0), plain(0, 0, 255)])

    unit = np.array([[1, -1, -1], [-1, -1, 1]]) / np.sqrt(3)
    np.testing.assert_allclose(outputs.features, unit, atol=1e-6)
    np.testing.assert_allclose(outputs.logits, [[2, -2], [-2, 2]], atol=1e-5)


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_of_any_size_agree(make_model: MakeModel, threads: int) -> None:
    model = opened(make_model(), threads=threads)
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8) for i in range(11)]

    together = model.features(images)
    alone = np.concatenate([model.features([image]) for image in images])

    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert model.features([]).shape == (0, 3)
    assert model.logits([]).shape == (0, 2)


@pytest.mark.parametrize("preprocess", ["squeeze", "two_views"])
def test_a_file_that_takes_one_picture_at_a_time(make_model: MakeModel, preprocess: str) -> None:
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8) for i in range(7)]
    any_batch = opened(make_model(), preprocess=preprocess).run(images)
    one = opened(make_model("one", batch=1), preprocess=preprocess).run(images)
    np.testing.assert_allclose(one.features, any_batch.features, atol=1e-6)
    np.testing.assert_allclose(one.logits, any_batch.logits, atol=1e-5)  # type: ignore[arg-type]


def test_a_file_that_takes_other_pictures_says_so(make_model: MakeModel) -> None:
    card = make_model()
    told = json.loads(card.read_text())
    told["input"] |= {"layout": "NCHW float32 [N,3,9,9]", "resize": "squash to 9"}
    card.write_text(json.dumps(told))
    with pytest.raises(InvalidInput, match="does not take pictures as its card says"):
        opened(card).run([plain(1, 2, 3)])


def test_two_views_are_averaged(make_model: MakeModel) -> None:
    image = np.random.default_rng(2).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    card = make_model()
    two = opened(card, preprocess="two_views")
    squares = views(image, two.card.resizing, "two_views")

    both = two.logits([image, image])
    alone = opened(card, preprocess="resize").logits(squares)

    np.testing.assert_allclose(both, [alone.mean(axis=0)] * 2, atol=1e-6)


def test_a_tensor_inside_the_graph_can_be_the_features(make_model: MakeModel) -> None:
    inner = {
        "features": {"name": "pooled", "dimension": 3, "internal": True},
        "logits": {"name": "logits", "dimension": 2},
    }
    model = opened(make_model("inner", give_features=False, outputs=inner))
    outputs = model.run([plain(255, 0, 0)])
    np.testing.assert_allclose(outputs.features, [np.array([1, -1, -1]) / np.sqrt(3)], atol=1e-6)
    assert outputs.logits is not None


def test_key_names_everything_that_changes_the_vector(make_model: MakeModel) -> None:
    card = make_model()
    keys = {OnnxEmbedder(opened(card, preprocess=p)).key for p in ("default", "resize")}
    assert len(keys) == 2
    assert all(re.fullmatch(r"[a-z0-9._-]+", key) for key in keys)
    digest = ModelCard.parse(card.read_bytes()).sha256
    assert all(digest[:12] in key for key in keys)
    assert OnnxEmbedder(opened(card)).key == OnnxEmbedder(opened(card, preprocess="squeeze")).key


def test_min_side_follows_the_rule(make_model: MakeModel) -> None:
    card = make_model()
    assert opened(card, preprocess="center_crop").min_side == 10
    assert opened(card, preprocess="resize").min_side == 8


def test_a_changed_file_is_not_loaded(make_model: MakeModel) -> None:
    card = make_model()
    model = opened(card)
    with card.with_suffix(".onnx").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(InvalidInput, match="does not match its card"):
        model.features([plain(1, 2, 3)])


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        ({"features": {"name": "absent", "dimension": 3}}, "does not fit its card"),
        ({"features": "[N,7]"}, "promises"),
    ],
)
def test_a_card_that_promises_too_much(
    make_model: MakeModel, outputs: dict[str, object], says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        opened(make_model(outputs=outputs)).features([plain(1, 2, 3)])


def test_what_is_not_a_model_is_said(make_model: MakeModel, tmp_path: Path) -> None:
    from hashlib import sha256

    path = make_model()
    file = path.with_suffix(".onnx")
    file.write_bytes(b"no model at all")
    fields = json.loads(path.read_text())
    fields["sha256"] = sha256(file.read_bytes()).hexdigest()
    path.write_text(json.dumps(fields))
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        opened(path).features([plain(1, 2, 3)])


def test_values_that_are_not_finite_are_refused(make_model: MakeModel) -> None:
    tiny = {
        "layout": "NCHW float32 [N,3,8,8]",
        "colour": "RGB",
        "scale": {"factor": 1e38, "std": [1e-38, 1, 1]},
        "resize": "squash to 8",
    }
    with np.errstate(all="ignore"), pytest.raises(CorruptData, match="finite"):
        opened(make_model(input=tiny)).features([plain(255, 255, 255)])


def test_bad_options_are_refused(make_model: MakeModel) -> None:
    card = make_model()
    with pytest.raises(InvalidInput, match="letterbox"):
        opened(card, preprocess="fisheye")
    with pytest.raises(InvalidInput, match="cuda"):
        opened(card, device="tpu")
    with pytest.raises(InvalidInput, match="threads"):
        opened(card, threads=-1)
    without = opened(make_model("plain", outputs={"features": "[N,3]"}))
    with pytest.raises(InvalidInput, match="no classes"):
        without.logits([plain(1, 2, 3)])
