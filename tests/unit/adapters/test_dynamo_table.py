from typing import Any

import pytest
from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.dynamo_table import DynamoTable
from imageclust.errors import NotFound, Permanent, Throttled

from tests.standins.endpoint import check_answer
from tests.standins.table import table_definition


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def table(clients: Clients, waits: list[float]) -> DynamoTable:
    clients.dynamodb.create_table(**table_definition())
    return DynamoTable(clients, "imageclust", sleep=waits.append)


def test_what_a_batch_leaves_is_sent_again(
    table: DynamoTable, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = table._clients.dynamodb
    write, read = client.batch_write_item, client.batch_get_item
    calls: list[int] = []

    def write_seven(RequestItems: dict[str, Any]) -> dict[str, Any]:
        ((name, requests),) = RequestItems.items()
        calls.append(len(requests))
        write(RequestItems={name: requests[:7]})
        left = {name: requests[7:]} if requests[7:] else {}
        return check_answer("dynamodb", "BatchWriteItem", {"UnprocessedItems": left})

    def read_forty(RequestItems: dict[str, Any]) -> dict[str, Any]:
        ((name, asked),) = RequestItems.items()
        calls.append(len(asked["Keys"]))
        part: Any = {name: {**asked, "Keys": asked["Keys"][:40]}}
        found = read(RequestItems=part)
        left = {name: {**asked, "Keys": asked["Keys"][40:]}} if asked["Keys"][40:] else {}
        answer = {"Responses": found["Responses"], "UnprocessedKeys": left}
        return check_answer("dynamodb", "BatchGetItem", answer)

    monkeypatch.setattr(client, "batch_write_item", write_seven)
    monkeypatch.setattr(client, "batch_get_item", read_forty)
    items = [{"pk": f"p{n}", "sk": "s", "n": n} for n in range(110)]
    table.put_many(items)
    found = table.get_many([(f"p{n}", "s") for n in range(110)])
    assert found == {(f"p{n}", "s"): item for n, item in enumerate(items)}
    assert max(calls) == 100
    assert len(waits) > 10
    assert all(0 <= wait <= 5 for wait in waits)


def test_a_batch_that_never_ends_is_throttled(
    table: DynamoTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = table._clients.dynamodb
    monkeypatch.setattr(
        client, "batch_write_item", lambda RequestItems: {"UnprocessedItems": RequestItems}
    )
    monkeypatch.setattr(
        client,
        "batch_get_item",
        lambda RequestItems: {"Responses": {}, "UnprocessedKeys": RequestItems},
    )
    with pytest.raises(Throttled, match="1 items"):
        table.put_many([{"pk": "p", "sk": "s"}])
    with pytest.raises(Throttled, match="1 keys"):
        table.get_many([("p", "s")])


def test_items_above_400_kb_are_refused_before_they_are_sent(table: DynamoTable) -> None:
    table.put({"pk": "p", "sk": "s", "text": "é" * 200_000})
    with pytest.raises(Permanent, match="KB"):
        table.put({"pk": "p", "sk": "s", "text": "é" * 205_000})
    with pytest.raises(Permanent, match="KB"):
        table.put_many([{"pk": "p", "sk": "s", "list": [1] * 150_000}])


def test_a_query_over_several_answers(table: DynamoTable) -> None:
    # DynamoDB answers with at most a megabyte.
    table.put_many({"pk": "p", "sk": f"{n:02d}", "text": "x" * 100_000} for n in range(25))
    assert [item["sk"] for item in table.query("p").items] == [f"{n:02d}" for n in range(25)]
    page = table.query("p", limit=15)
    assert len(page.items) == 15
    assert len(table.query("p", limit=15, after=page.next).items) == 10


def test_tiny_numbers_become_zero(table: DynamoTable) -> None:
    table.put({"pk": "p", "sk": "s", "x": 1e-200, "y": -0.0, "z": 2.5e19, "w": 2.0**60})
    item = table.get("p", "s")
    assert item == {"pk": "p", "sk": "s", "x": 0, "y": 0, "z": 2.5e19, "w": 2**60}


def test_a_table_that_is_not_there(clients: Clients) -> None:
    with pytest.raises(NotFound):
        DynamoTable(clients, "none").get("p", "s")
