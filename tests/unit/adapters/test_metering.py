"""What calls buy is counted where every call passes."""

import json

import pytest
from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.dynamo_table import DynamoTable
from imageclust.adapters.aws.metering import _OPERATIONS
from imageclust.costs import Place, cost_of_units, default_prices
from imageclust.errors import InvalidInput
from imageclust.settings import Settings

from tests.infra.from_template import resources_from_template
from tests.standins.fake_bedrock import FakeBedrock
from tests.standins.fake_rekognition import FakeRekognition
from tests.standins.fake_s3vectors import FakeS3Vectors

CLAUDE = "us.anthropic.claude-haiku-4-5-20251001-v1:0"


def test_requests_to_s3_and_the_table_are_counted(clients: Clients) -> None:
    resources_from_template().create(
        s3=clients.s3,
        dynamodb=clients.dynamodb,
        uploads_bucket="uploads",
        data_bucket="data",
        table_name="imageclust",
    )
    clients.meter.take()
    clients.s3.put_object(Bucket="data", Key="a", Body=b"1")
    clients.s3.list_objects_v2(Bucket="data")
    clients.s3.get_object(Bucket="data", Key="a")
    clients.s3.head_object(Bucket="data", Key="a")
    with pytest.raises(clients.s3.exceptions.NoSuchKey):
        clients.s3.get_object(Bucket="data", Key="none")
    table = DynamoTable(clients, "imageclust")
    table.put({"pk": "a", "sk": "b", "n": 1})
    assert clients.meter.take() == {"s3_put": 2, "s3_get": 2, "table_write": 1}
    table.put_many({"pk": "a", "sk": f"{n:02d}"} for n in range(30))
    table.update("a", "b", {"n": 2})
    # moto tells one unit of a batch of writes, DynamoDB one of each.
    assert clients.meter.take()["table_write"] >= 2
    table.query("a")
    table.get("a", "b")
    table.get_many(("a", f"{n:02d}") for n in range(5))
    assert clients.meter.take()["table_read"] > 0
    assert clients.meter.take() == {}


def test_models_are_counted_by_what_they_say(clients: Clients) -> None:
    with FakeBedrock().serve():
        message = {"role": "user", "content": [{"text": "<facts>\n" + FACTS + "\n</facts>"}]}
        answer = clients.bedrock_runtime.converse(modelId=CLAUDE, messages=[message])
    usage = answer["usage"]
    told = clients.meter.take()
    assert told == {
        f"tokens_in/{CLAUDE}": usage["inputTokens"],
        f"tokens_out/{CLAUDE}": usage["outputTokens"],
    }
    clients.meter.count_tokens(CLAUDE, {"usage": {"inputTokens": 1000}}, batch=True)
    clients.meter.count_tokens(CLAUDE, {}, batch=True)
    assert clients.meter.take() == {f"batch_tokens_in/{CLAUDE}": 1000}


FACTS = json.dumps({"pictures": 3, "labels": [{"name": "Cat"}], "attributes": []})


def test_a_refused_picture_is_not_billed(clients: Clients) -> None:
    refused = clients.rekognition.exceptions.InvalidImageFormatException
    with FakeRekognition().serve(), pytest.raises(refused):
        clients.rekognition.detect_labels(Image={"Bytes": b"no picture"})
    assert clients.meter.take() == {}


@pytest.mark.parametrize(("count", "billed"), [(2, 128 * 1024), (400, 400 * (4 * 128 + 3))])
def test_a_small_put_of_vectors_is_billed_as_128_kb(
    clients: Clients, count: int, billed: int
) -> None:
    with FakeS3Vectors().serve():
        clients.s3vectors.create_vector_bucket(vectorBucketName="vectors")
        clients.s3vectors.create_index(
            vectorBucketName="vectors",
            indexName="one",
            dataType="float32",
            dimension=128,
            distanceMetric="cosine",
        )
        vectors = [{"key": f"{n:03d}", "data": {"float32": [1.0] * 128}} for n in range(count)]
        clients.s3vectors.put_vectors(
            vectorBucketName="vectors",
            indexName="one",
            vectors=vectors,  # type: ignore[arg-type]
        )
    told = clients.meter.take()["vector_put_gb"] * 1e9
    assert told == pytest.approx(billed, rel=0.02)


def test_every_figure_that_is_counted_has_a_stage_and_a_price() -> None:
    figures = {*_OPERATIONS.values(), "table_read", "table_write", "titan_embed_image"}
    figures |= {"nova_embed_image", "vector_put_gb", "gpu_second", "lambda_request", "transition"}
    figures |= {"lambda_gb_second", f"tokens_in/{CLAUDE}", f"batch_tokens_out/{CLAUDE}"}
    one_each = cost_of_units({"Embed": dict.fromkeys(figures, 1.0)}, place=Place())
    counted = [name for row in one_each["stages"].values() for name in row["units"]]
    assert sorted(counted) == sorted(figures)


def test_units_become_dollars_by_stage() -> None:
    used = {
        "Embed": {"lambda_gb_second": 100.0, "s3_put": 1000},
        "Label": {"lambda_gb_second": 10.0, "rekognition_image": 500},
        "PublishRun": {"lambda_gb_second": 1.0, f"batch_tokens_in/{CLAUDE}": 1_000_000},
    }
    found = cost_of_units(used, place=Place())
    usd = {stage: row["usd"] for stage, row in found["stages"].items()}
    price = default_prices().usd
    assert usd["embedding"] == pytest.approx(100 * price["lambda_gb_second"], abs=1e-6)
    assert usd["labels"] == pytest.approx(0.5 + 10 * price["lambda_gb_second"], abs=1e-6)
    assert usd["naming"] == pytest.approx(1_000_000 * 0.0000011 / 2)
    assert found["usd"] == pytest.approx(sum(usd.values()))
    decoding = cost_of_units(used, place=Place(), seconds_of_embed="decoding")
    assert decoding["stages"]["decoding"]["usd"] == usd["embedding"]


def test_a_model_without_a_price_counts_as_the_dearest() -> None:
    found = cost_of_units({"DescribeClusters": {"tokens_in/new.model": 1e6}}, place=Place())
    assert found["usd"] == pytest.approx(3.3)
    assert found["notes"] == ["no price of new.model is on file: claude-sonnet-4's is taken"]


def test_a_deployment_has_prices_of_its_own() -> None:
    own = Place.of(Settings(prices='{"rekognition_image": 0.0005}'))
    assert cost_of_units({"Label": {"rekognition_image": 10}}, place=own)["usd"] == 0.005
    for wrong in ("[]", "{", '{"gold": 1}', '{"s3_put": "x"}'):
        with pytest.raises(InvalidInput, match="price"):
            Place.of(Settings(prices=wrong)).priced()


def test_one_machine_costs_nothing() -> None:
    here = Place.of(Settings(paid=False))
    assert cost_of_units({"Label": {"rekognition_image": 10}}, place=here)["usd"] == 0
