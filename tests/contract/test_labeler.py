"""One behaviour of labelers, an ONNX classifier and Rekognition."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.rekognition_labeler import RekognitionLabeler
from imageclust.adapters.local.onnx_labeler import OnnxLabeler
from imageclust.embedding import OnnxModel
from imageclust.ports import Labeler
from moto import mock_aws
from numpy.typing import NDArray

from tests.standins.fake_rekognition import FakeRekognition
from tests.standins.tiny_onnx import make_colour_model

RED, GREEN, GREY = (210, 20, 30), (20, 180, 40), (128, 128, 128)


def picture(colour: tuple[int, int, int], shape: tuple[int, int] = (96, 128)) -> NDArray[np.uint8]:
    return np.full((*shape, 3), colour, np.uint8)


@pytest.fixture(params=["local", "aws"])
def labeler(request: pytest.FixtureRequest, tmp_path: Path, clients: Clients) -> Iterator[Labeler]:
    if request.param == "local":
        card, path, labels = make_colour_model(tmp_path)
        yield OnnxLabeler(OnnxModel(card, path), labels)
        return
    with mock_aws(), FakeRekognition().serve():
        yield RekognitionLabeler(clients, per_second=1000)


def test_one_answer_an_image_in_order(labeler: Labeler) -> None:
    answers = labeler.label([picture(RED), picture(GREEN), picture(GREY), picture(RED)])
    assert len(answers) == 4
    for answer, word in zip(answers, ("red", "green", "grey", "red"), strict=True):
        assert answer.error == ""
        assert answer.model_version
        assert any(word in label.name.lower() for label in answer.labels)
        assert all(0 <= label.confidence <= 100 for label in answer.labels)
    assert answers[0] == answers[3]
    assert any(label.parents for label in answers[0].labels)


def test_no_images(labeler: Labeler) -> None:
    assert labeler.label([]) == []


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (300, 2), (79, 80), (480, 640), (1, 12_000)])
def test_any_size(labeler: Labeler, shape: tuple[int, int]) -> None:
    (answer,) = labeler.label([picture(GREEN, shape)])
    assert answer.error == ""
    assert any("green" in label.name.lower() for label in answer.labels)


def test_the_key_can_be_part_of_a_path(labeler: Labeler) -> None:
    assert re.fullmatch(r"[a-z0-9._-]{1,200}", labeler.key)
    assert labeler.min_side >= 1
