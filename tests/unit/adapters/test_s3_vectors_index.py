import json
from collections.abc import Iterator

import numpy as np
import pytest
from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.s3_vectors_index import S3VectorsIndex
from imageclust.errors import InvalidInput

from tests.standins.account import without_waiting
from tests.standins.fake_s3vectors import FakeS3Vectors


@pytest.fixture
def service(clients: Clients) -> Iterator[FakeS3Vectors]:
    clients.s3vectors.create_vector_bucket(vectorBucketName="vectors")
    with FakeS3Vectors().serve() as made:
        yield made


@pytest.fixture
def index(clients: Clients, service: FakeS3Vectors) -> S3VectorsIndex:
    return S3VectorsIndex(clients, "vectors")


def put(index: S3VectorsIndex, count: int, dimension: int) -> None:
    rows = np.random.default_rng(0).normal(size=(count, dimension)).astype(np.float32)
    index.create("all", dimension)
    index.put("all", [f"i{n}" for n in range(count)], rows, [{"cluster_id": "c"}] * count)


@pytest.mark.parametrize(
    ("count", "dimension", "calls"),
    [(1, 8, [1]), (500, 8, [500]), (501, 8, [251, 250]), (1300, 8, [434, 433, 433])],
)
def test_calls_are_full_and_even(
    index: S3VectorsIndex, service: FakeS3Vectors, count: int, dimension: int, calls: list[int]
) -> None:
    put(index, count, dimension)
    assert service.puts == calls


def test_long_vectors_stay_below_20_mib_and_above_30_a_call(
    index: S3VectorsIndex, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[dict[str, object]]] = []

    def take(*, vectors: list[dict[str, object]], **_: object) -> None:
        calls.append(vectors)

    monkeypatch.setattr(clients.s3vectors, "put_vectors", take)
    put(index, 250, 4095)
    sizes = [len(call) for call in calls]
    assert sizes == [125, 125]
    assert len(json.dumps(calls[0])) < 20 * 1024 * 1024


def test_throttled_calls_are_tried_again(
    index: S3VectorsIndex, service: FakeS3Vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = without_waiting(monkeypatch)
    service.throttle_next = 2
    put(index, 3, 8)
    assert service.puts == [3]
    assert len(waits) == 2


def test_fields_that_cannot_be_filtered_by(index: S3VectorsIndex) -> None:
    put(index, 3, 8)
    with pytest.raises(InvalidInput, match="image_id"):
        index.query("all", np.ones(8, np.float32), top_k=1, where={"image_id": "x"})


def test_a_query_of_another_dimension(index: S3VectorsIndex) -> None:
    put(index, 3, 8)
    with pytest.raises(InvalidInput, match="dimension"):
        index.query("all", np.ones(9, np.float32), top_k=1)
