"""Embedding with Bedrock when it does not go well: one bad picture, no access, a busy service."""

import io
import json
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from botocore.exceptions import ClientError
from imageclust.adapters.aws.bedrock_embedder import BedrockBatchEmbedder, BedrockEmbedder
from imageclust.adapters.aws.bedrock_jobs import BedrockJobs
from imageclust.adapters.aws.clients import Clients
from imageclust.errors import InvalidInput, Throttled, UnknownModel
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


def test_every_request_keeps_to_the_pace_retries_too(
    clients: Clients, bedrock: FakeBedrock, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = BedrockEmbedder(clients, MODELS[0], per_second=1000)
    turns: list[float] = []
    monkeypatch.setattr(embedder._pace, "wait", lambda: turns.append(0))
    monkeypatch.setattr(embedder._pace, "sleep", lambda _: None)
    bedrock.throttle_next = 2
    rows = embedder.embed(grey(90 + n) for n in range(3))
    assert np.isfinite(rows).all()
    assert len(turns) == 5, "botocore asks again for none by itself"
    bedrock.throttle_next = 1000
    with pytest.raises(Throttled):
        embedder.embed([grey(90)])


def test_a_quota_that_is_exceeded_is_waited_for(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = BedrockEmbedder(clients, MODELS[0], dimension=256)
    monkeypatch.setattr(embedder._pace, "sleep", lambda _: None)
    answers = [ClientError(error("ServiceQuotaExceededException"), "InvokeModel")]

    def invoke_model(**_: object) -> dict[str, Any]:
        if answers:
            raise answers.pop()
        return {"body": io.BytesIO(json.dumps({"embedding": [1.0] * 256}).encode())}

    service = SimpleNamespace(invoke_model=invoke_model)
    monkeypatch.setattr(clients, "bedrock_runtime", service)
    np.testing.assert_allclose(embedder.embed([grey(90)]), 1 / 16)


def error(code: str) -> Any:
    return {"Error": {"Code": code, "Message": "later"}}


def test_requests_go_out_while_pictures_are_still_being_decoded(
    clients: Clients, bedrock: FakeBedrock
) -> None:
    asked = threading.Event()
    bedrock.refuses = lambda picture: bool(asked.set())
    waited: list[bool] = []

    def decoded() -> Iterator[NDArray[np.uint8]]:
        yield grey(90)
        waited.append(asked.wait(30))
        yield grey(91)

    assert len(BedrockEmbedder(clients, MODELS[0]).embed(decoded())) == 2
    assert waited == [True]


# --- batch inference: records and the join


def line(image_id: str, answer: tuple[str, object]) -> bytes:
    record = {"recordId": image_id, "modelInput": {}, answer[0]: answer[1]}
    return json.dumps(record).encode() + b"\n"


@pytest.mark.parametrize("model", MODELS)
def test_answers_are_joined_on_the_id_and_the_rest_is_asked_for(
    clients: Clients, bedrock: FakeBedrock, model: str
) -> None:
    embedder = BedrockEmbedder(clients, model, dimension=256)
    batch = BedrockBatchEmbedder(embedder, BedrockJobs(clients, role_arn="arn:aws:iam::1:role/r"))
    names = ["right", "second", "failed", "missing", "no vector", "short", "torn", "twice"]
    pictures = [np.full((60, 64, 3), 20 + 25 * n, dtype=np.uint8) for n in range(len(names))]
    wanted = dict(zip(names, embedder.embed(pictures), strict=True))
    records = b"".join(map(batch.record, names, pictures))

    def said(name: str, *, times: float = 1.0) -> tuple[str, object]:
        row = [float(x) * times for x in wanted[name]]
        titan = {"embedding": row}
        nova = {"embeddings": [{"embeddingType": "IMAGE", "embedding": row}]}
        return "modelOutput", titan if "titan" in model else nova

    first = (
        line("twice", said("twice"))
        + line("stranger", said("right"))
        + line("failed", ("error", {"errorCode": 400, "errorMessage": "no"}))
        + line("no vector", ("modelOutput", {"message": "sorry"}))
        + line("short", ("modelOutput", {"embedding": [1.0], "embeddings": []}))
        + b"\n[]\nnot json\n"
        + line("right", said("right", times=40))
    )
    other = line("second", said("second")) + line("twice", said("failed"))
    torn = line("torn", said("torn"))[:-30]
    bedrock.invocations = 0
    found = batch.join(records, [first, other + torn])
    assert set(found) == set(names)
    assert bedrock.invocations == 5, "failed, missing, no vector, short, torn"
    for name in names:
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-6)


def test_without_any_answer_all_is_asked_for_on_demand(
    clients: Clients, bedrock: FakeBedrock
) -> None:
    embedder = BedrockEmbedder(clients, MODELS[0])
    batch = BedrockBatchEmbedder(embedder, BedrockJobs(clients, role_arn="arn:aws:iam::1:role/r"))
    records = batch.record("a", grey(90)) + batch.record("b", grey(0))
    bedrock.refuses = is_dark
    found = batch.join(records, [])
    np.testing.assert_allclose(found["a"], embedder.embed([grey(90)])[0], atol=1e-6)
    assert np.isnan(found["b"]).all()
    assert batch.join(b"", []) == {}


def test_a_job_of_the_heaviest_records_is_within_the_quotas(clients: Clients) -> None:
    batch = BedrockBatchEmbedder(
        BedrockEmbedder(clients, MODELS[1], dimension=3072),
        BedrockJobs(clients, role_arn="arn:aws:iam::1:role/r"),
    )
    noise = np.random.default_rng(0).integers(0, 256, (512, 2048, 3), dtype=np.uint8)
    heavy = batch.record("f" * 64, noise)
    assert len(heavy) > 250_000, "near the bound, or the test says nothing"
    assert 0 < batch.records_a_job * len(heavy) <= 5_000_000_000
    assert batch.records_a_job <= 50_000
