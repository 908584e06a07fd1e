"""Embedding with Bedrock when it does not go well: one bad picture, no access, a busy service."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from imageclust.adapters.aws.bedrock_embedder import BedrockEmbedder
from imageclust.adapters.aws.clients import Clients
from imageclust.errors import InvalidInput, UnknownModel
from numpy.typing import NDArray

from tests.standins.fake_bedrock import FakeBedrock

MODELS = ["amazon.titan-embed-image-v1", "amazon.nova-2-multimodal-embeddings-v1:0"]


@pytest.fixture
def bedrock(clients: Clients) -> Iterator[FakeBedrock]:
    assert clients
    with FakeBedrock().serve() as made:
        yield made


def grey(level: int) -> NDArray[np.uint8]:
    return np.full((60, 70, 3), level, dtype=np.uint8)


def is_dark(picture: bytes) -> bool:
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return bool(pixels.mean() < 50)


@pytest.mark.parametrize("model", MODELS)
def test_a_picture_that_is_refused_costs_only_itself(
    clients: Clients, bedrock: FakeBedrock, model: str
) -> None:
    bedrock.refuses = is_dark
    rows = BedrockEmbedder(clients, model).embed([grey(90), grey(0), grey(200)])
    assert np.isnan(rows[1]).all()
    np.testing.assert_allclose(np.linalg.norm(rows[[0, 2]], axis=1), 1, atol=1e-6)


def test_pictures_that_are_all_refused_are_told_from_a_wrong_request(
    clients: Clients, bedrock: FakeBedrock
) -> None:
    bedrock.refuses = is_dark
    rows = BedrockEmbedder(clients, MODELS[0]).embed([grey(0), grey(1)])
    assert np.isnan(rows).all(), "the model takes a plain picture: these are at fault"
    bedrock.refuses = lambda picture: True
    with pytest.raises(InvalidInput, match="unusable"):
        BedrockEmbedder(clients, MODELS[0]).embed([grey(0), grey(1)])


@pytest.mark.parametrize("model", MODELS)
def test_a_model_that_is_not_enabled_is_named_with_what_to_do(
    clients: Clients, bedrock: FakeBedrock, model: str
) -> None:
    bedrock.not_enabled = True
    with pytest.raises(UnknownModel, match="ask for access") as told:
        BedrockEmbedder(clients, model).embed([grey(90), grey(91)])
    assert model in str(told.value)


def test_pictures_larger_than_the_service_takes(clients: Clients, bedrock: FakeBedrock) -> None:
    seen: list[tuple[int, ...]] = []

    def look(picture: bytes) -> bool:
        pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None
        seen.append((*pixels.shape[:2], len(picture)))
        return False

    bedrock.refuses = look
    noise = np.random.default_rng(0).integers(0, 256, (2500, 4000, 3), dtype=np.uint8)
    rows = BedrockEmbedder(clients, MODELS[0]).embed([noise, np.zeros((2, 9000, 3), np.uint8)])
    assert np.isfinite(rows).all()
    assert all(min(h, w) >= 50 and max(h, w) <= 2048 and size <= 256 << 10 for h, w, size in seen)
