"""Model cards: the known prose forms and the structured one are read, all else is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from imageclust.embedding import ModelCard, Output, Resizing, Scaling
from imageclust.embedding.known import KNOWN_MODELS
from imageclust.errors import InvalidInput


def published(**changes: Any) -> dict[str, Any]:
    card: dict[str, Any] = {
        "licence": "Apache-2.0",
        "input": {
            "layout": "NCHW float32 [N,3,224,224], dynamic N",
            "colour": "RGB",
            "scale": "(x-127.5)/127.5  i.e. [-1,1]",
            "resize": "short side 256 bilinear, centre crop 224 (verified); "
            "plain squash to 224 also works",
        },
        "outputs": {"features": "[N,1280] global average pool", "logits": "[N,1000]"},
        "runtime_hint": "SessionOptions.add_session_config_entry("
        "'session.disable_quant_qdq','1') folds the weights at load",
        "file": "net.onnx",
        "sha256": "ab" * 32,
        "labels": "classes.json",
    }
    card.update(changes)
    return card


def with_input(**changes: Any) -> dict[str, Any]:
    card = published()
    card["input"] = {**card["input"], **changes}
    return card


def test_published_prose_is_read_exactly() -> None:
    card = ModelCard.from_json(published())

    assert card.name == "net"
    assert card.scaling == Scaling(1.0, (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
    assert card.resizing == Resizing(short_side=256, size=224)
    assert card.features == Output("features", 1280)
    assert card.logits == Output("logits", 1000)
    assert card.session_config == (("session.disable_quant_qdq", "1"),)


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ("x - (104,117,123), no division", Scaling(1.0, (104, 117, 123))),
        ("x/255", Scaling(1 / 255)),
        (
            "(x/255 - (0.485,0.456,0.406))/(0.229,0.224,0.225)",
            Scaling(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ),
        ({"factor": 0.5, "mean": [1, 2, 3]}, Scaling(0.5, (1.0, 2.0, 3.0))),
    ],
)
def test_scale_forms(scale: object, expected: Scaling) -> None:
    assert ModelCard.from_json(with_input(scale=scale)).scaling == expected


def test_a_card_survives_its_own_json() -> None:
    for card in (ModelCard.from_json(published()), *KNOWN_MODELS):
        assert ModelCard.parse(json.dumps(card.to_json())) == card


@pytest.mark.parametrize(
    ("card", "says"),
    [
        (with_input(scale="divide by something"), "scale"),
        (with_input(scale={"std": [0, 1, 1]}), "above 0"),
        (with_input(resize="as you like"), "resize"),
        (with_input(resize="short side 259, centre crop 227"), "227"),
        (with_input(resize={"short_side": 200, "size": 224}), "short side"),
        (with_input(layout="NCHW float32 [N,1,224,224]"), "layout"),
        (with_input(colour="YUV"), "colour"),
        (published(file="../net.onnx"), "file"),
        (published(labels="/etc/passwd"), "labels"),
        (published(sha256="beef"), "sha256"),
        (published(outputs={"logits": "[N,1000]"}), "features"),
        (published(outputs={"features": "many"}), "features"),
        (published(url="http://example.org/net.onnx"), "https"),
        (published(session_config={"ep.path": "x"}), "session"),
        (published(bytes=-1), "bytes"),
        ([], "object"),
    ],
)
def test_what_is_not_understood_is_refused(card: object, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        ModelCard.from_json(card)


@pytest.mark.shared
def test_published_cards_are_read(shared: Path) -> None:
    paths = [
        path for path in (shared / "models").glob("*.json") if path.with_suffix(".onnx").exists()
    ]
    assert paths
    for path in paths:
        card = ModelCard.parse(path.read_bytes())
        assert card.name == path.stem.lower()
        assert ModelCard.from_json(card.to_json()) == card


def with_text(**changes: Any) -> dict[str, Any]:
    text: dict[str, Any] = {
        "file": "net.text.onnx",
        "sha256": "cd" * 32,
        "tokenizer": {"file": "net.tokenizer.json", "sha256": "ef" * 32},
        "output": {"name": "text_embeds", "dimension": 1280},
        "context": 77,
        "pad": "<pad>",
    }
    return published(text={**text, **changes})


def test_a_text_tower_is_read_and_written_back() -> None:
    card = ModelCard.from_json(with_text(lower_case=True))
    assert card.text is not None
    assert card.text.output == Output("text_embeds", 1280)
    assert [file.file for file in card.files] == [
        "net.onnx", "net.text.onnx", "net.tokenizer.json"
    ]  # fmt: skip
    assert card.text.lower_case
    assert ModelCard.from_json(json.loads(json.dumps(card.to_json()))) == card
    assert ModelCard.from_json(published()).text is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": "other.text.onnx"}, r"must be 'net\.text\.onnx'"),
        ({"file": None}, "'file' is missing"),
        ({"sha256": "12"}, "64 hexadecimal"),
        ({"tokenizer": "net.tokenizer.json"}, "'tokenizer' must be a JSON object"),
        ({"tokenizer": {"file": "tokenizer.json", "sha256": "ef" * 32}}, "'net.tokenizer.json'"),
        ({"output": {"name": "text_embeds", "dimension": 512}}, "512 dimensions and pictures 1280"),
        ({"context": 1}, "'context'"),
        ({"context": 100_000}, "not supported"),
        ({"pad": 0}, "'pad'"),
        ({"lower_case": "yes"}, "'lower_case'"),
        ({"url": "http://a.b/c"}, "https"),
    ],
)
def test_a_text_tower_that_is_not_understood_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        ModelCard.from_json(with_text(**changes))


def test_a_model_is_not_named_like_a_text_tower() -> None:
    with pytest.raises(InvalidInput, match="text tower"):
        ModelCard.from_json(published(file="net.text.onnx"))


def test_what_default_means_is_a_way_that_exists() -> None:
    assert ModelCard.from_json(published(preprocess="resize")).preprocess == "resize"
    with pytest.raises(InvalidInput, match="must be one of squeeze, center_crop"):
        ModelCard.from_json(published(preprocess="zoom"))


def test_a_label_file_may_have_its_digest_and_address() -> None:
    labels = {"file": "classes.txt", "sha256": "ef" * 32, "url": "https://a.b/c", "bytes": 9}
    card = ModelCard.from_json(published(labels=labels))
    assert card.labels == "classes.txt"
    assert [file.file for file in card.files] == ["net.onnx", "classes.txt"]
    assert ModelCard.from_json(json.loads(json.dumps(card.to_json()))) == card
    with pytest.raises(InvalidInput, match="64 hexadecimal"):
        ModelCard.from_json(published(labels={"file": "classes.txt"} | {"sha256": ""}))
    with pytest.raises(InvalidInput, match="bare file name"):
        ModelCard.from_json(published(labels={**labels, "file": "../classes.txt"}))
