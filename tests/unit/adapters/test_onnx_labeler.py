import json
from pathlib import Path

import numpy as np
import pytest
from imageclust.adapters.local.onnx_labeler import OnnxLabeler
from imageclust.embedding import ModelCard, OnnxModel
from imageclust.errors import InvalidInput

from tests.standins.tiny_onnx import LABELS, make_colour_model

RED = np.full((40, 50, 3), (220, 10, 20), np.uint8)


def test_parents_and_versions(tmp_path: Path) -> None:
    card, path, labels = make_colour_model(tmp_path)
    labeler = OnnxLabeler(OnnxModel(card, path), labels)
    (answer,) = labeler.label([RED])
    found = {label.name: label for label in answer.labels}
    assert found["Red Thing"].confidence > 90
    assert found["Red Thing"].parents == ("Thing",)
    assert found["Thing"].confidence >= found["Red Thing"].confidence
    assert answer.model_version == f"tiny_colours-{card.sha256[:12]}"


def test_settings_and_labels_are_part_of_the_key(tmp_path: Path) -> None:
    card, path, labels = make_colour_model(tmp_path)
    model = OnnxModel(card, path)
    keys = {
        OnnxLabeler(model, labels).key,
        OnnxLabeler(model, labels, min_confidence=60).key,
        OnnxLabeler(model, labels, max_labels=1).key,
        OnnxLabeler(model, labels, temperature=2.0).key,
        OnnxLabeler(OnnxModel(card, path, preprocess="resize"), labels).key,
    }
    other = [{**LABELS[0], "name": "crimson thing"}, *LABELS[1:]]
    labels.write_text(json.dumps(other))
    keys.add(OnnxLabeler(model, labels).key)
    assert len(keys) == 6
    assert len(OnnxLabeler(model, labels, max_labels=1).label([RED])[0].labels) == 1


def test_labels_that_do_not_fit_the_model(tmp_path: Path) -> None:
    card, path, labels = make_colour_model(tmp_path)
    labels.write_text(json.dumps(LABELS[:3]))
    with pytest.raises(InvalidInput, match="3 classes"):
        OnnxLabeler(OnnxModel(card, path), labels)
    with pytest.raises(InvalidInput, match="cannot be read"):
        OnnxLabeler(OnnxModel(card, path), tmp_path / "none.json")
    form = card.to_json()
    del form["outputs"]["logits"]
    with pytest.raises(InvalidInput, match="no classes"):
        OnnxLabeler(OnnxModel(ModelCard.from_json(form), path), labels)
