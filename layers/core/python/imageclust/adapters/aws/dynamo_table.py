"""The table in DynamoDB: text ``pk`` (hash) and ``sk`` (range), every read consistent."""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from itertools import islice
from typing import Any, TypeVar

from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.failures import translated
from imageclust.adapters.cursors import decode_cursor, encode_cursor
from imageclust.errors import InvalidInput, Permanent, Throttled
from imageclust.models import JSON
from imageclust.ports import Key, Page

Attribute = dict[str, Any]
_T = TypeVar("_T")

MAX_ITEM_BYTES = 400 * 1024
_GET_KEYS = 100
_WRITE_ITEMS = 25
_THREADS = 8
_ROUNDS = 10
_EXACT = 1 << 64
_SMALLEST, _LARGEST = 1e-128, 9.9e125


class DynamoTable:
    """Items in one DynamoDB table.

    Numbers keep their value: integers below 2**64 come back as int, others as float; a magnitude
    under 1e-128, which DynamoDB cannot hold, becomes 0.

    Args:
        clients: the AWS clients.
        name: the table's name.
        sleep: waits between the rounds of a batch that DynamoDB did not take whole.
    """

    def __init__(
        self, clients: Clients, name: str, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clients = clients
        self._name = name
        self._sleep = sleep

    def get(self, pk: str, sk: str) -> JSON | None:
        with translated(self._name):
            answer = self._clients.dynamodb.get_item(
                TableName=self._name, Key=_key(pk, sk), ConsistentRead=True
            )
        return _item(answer["Item"]) if "Item" in answer else None

    def put(self, item: JSON, *, unless_exists: bool = False) -> None:
        """Write the whole item. With ``unless_exists`` an existing one raises Conflict."""
        extra: dict[str, Any] = (
            {"ConditionExpression": "attribute_not_exists(pk)"} if unless_exists else {}
        )
        with translated(f"{item.get('pk')} / {item.get('sk')}"):
            self._clients.dynamodb.put_item(TableName=self._name, Item=_attributes(item), **extra)

    def update(
        self, pk: str, sk: str, changes: JSON, *, expect: Mapping[str, Any] | None = None
    ) -> JSON:
        """Set the attributes of ``changes``; see ``ports.Table``."""
        if {"pk", "sk"} & set(changes):
            raise InvalidInput("The keys of an item cannot be changed.")
        with translated(f"{pk} / {sk}"):
            answer = self._clients.dynamodb.update_item(
                TableName=self._name,
                Key=_key(pk, sk),
                ReturnValues="ALL_NEW",
                **_expressions(changes, expect or {}),
            )
        return _item(answer["Attributes"])

    def delete(self, pk: str, sk: str) -> None:
        with translated(f"{pk} / {sk}"):
            self._clients.dynamodb.delete_item(TableName=self._name, Key=_key(pk, sk))

    def get_many(self, keys: Iterable[Key]) -> dict[Key, JSON]:
        """The items that exist among any number of keys, a hundred a call, several at a time."""
        found: dict[Key, JSON] = {}
        with ThreadPoolExecutor(_THREADS) as pool:
            for window in _chunks(keys, _GET_KEYS * _THREADS):
                chunks = _chunks(dict.fromkeys(window), _GET_KEYS)
                for items in pool.map(self._get_chunk, chunks):
                    found.update({(item["pk"], item["sk"]): item for item in items})
        return found

    def put_many(self, items: Iterable[JSON]) -> None:
        """Write the items, 25 a call, several at a time; of two with one key the last stays."""
        with ThreadPoolExecutor(_THREADS) as pool:
            for window in _chunks(items, _WRITE_ITEMS * _THREADS * 10):
                last = {(item.get("pk"), item.get("sk")): item for item in window}
                requests = [{"PutRequest": {"Item": _attributes(i)}} for i in last.values()]
                for _ in pool.map(self._put_chunk, _chunks(requests, _WRITE_ITEMS)):
                    pass

    def query(
        self,
        pk: str,
        *,
        prefix: str = "",
        limit: int | None = None,
        after: str | None = None,
        newest_first: bool = False,
    ) -> Page:
        """Items of one ``pk`` in the order of ``sk``; see ``ports.Table``."""
        if limit is not None and limit < 1:
            raise InvalidInput("A page must hold at least one item.")
        values: dict[str, Any] = {":pk": {"S": pk}}
        condition = "pk = :pk"
        if prefix:
            values[":prefix"] = {"S": prefix}
            condition += " AND begins_with(sk, :prefix)"
        extra: dict[str, Any] = {}
        if after is not None:
            extra["ExclusiveStartKey"] = _key(pk, decode_cursor(after, pk=pk, prefix=prefix))
        items: list[JSON] = []
        while True:
            # One item more than the page tells whether another page follows.
            if limit is not None:
                extra["Limit"] = limit + 1 - len(items)
            with translated(pk):
                answer = self._clients.dynamodb.query(
                    TableName=self._name,
                    KeyConditionExpression=condition,
                    ExpressionAttributeValues=values,
                    ScanIndexForward=not newest_first,
                    ConsistentRead=True,
                    **extra,
                )
            items += [_item(found) for found in answer["Items"]]
            if "LastEvaluatedKey" not in answer or (limit is not None and len(items) > limit):
                break
            extra["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
        if limit is None or len(items) <= limit:
            return Page(tuple(items))
        return Page(tuple(items[:limit]), encode_cursor(pk, items[limit - 1]["sk"]))

    def _get_chunk(self, keys: Sequence[Key]) -> list[JSON]:
        items: list[JSON] = []
        pending: list[Any] = [_key(pk, sk) for pk, sk in keys]
        for round_ in range(_ROUNDS):
            self._rest(round_)
            with translated(self._name):
                answer = self._clients.dynamodb.batch_get_item(
                    RequestItems={self._name: {"Keys": pending, "ConsistentRead": True}}
                )
            items += [_item(found) for found in answer["Responses"].get(self._name, ())]
            left = answer.get("UnprocessedKeys", {}).get(self._name)
            if not left:
                return items
            pending = list(left["Keys"])
        raise Throttled(f"{self._name} left {len(pending)} keys unread after {_ROUNDS} rounds.")

    def _put_chunk(self, requests: Sequence[Any]) -> None:
        pending = list(requests)
        for round_ in range(_ROUNDS):
            self._rest(round_)
            with translated(self._name):
                answer = self._clients.dynamodb.batch_write_item(RequestItems={self._name: pending})
            pending = list(answer.get("UnprocessedItems", {}).get(self._name, ()))
            if not pending:
                return
        raise Throttled(f"{self._name} left {len(pending)} items unwritten after {_ROUNDS} rounds.")

    def _rest(self, round_: int) -> None:
        if round_:
            # Full jitter, as AWS advises for unprocessed items.
            self._sleep(random.uniform(0, min(0.05 * 2**round_, 5.0)))  # noqa: S311


def _expressions(changes: JSON, expect: Mapping[str, Any]) -> dict[str, Any]:
    names: dict[str, str] = {}
    values: dict[str, Any] = {}
    settings, removals, conditions = [], [], []
    for number, (name, value) in enumerate(changes.items()):
        names[f"#c{number}"] = name
        if value is None:
            removals.append(f"#c{number}")
        else:
            values[f":c{number}"] = _attribute(value)
            settings.append(f"#c{number} = :c{number}")
    for number, (name, value) in enumerate(expect.items()):
        names[f"#e{number}"] = name
        values[f":e{number}"] = _attribute(value)
        equal = f"#e{number} = :e{number}"
        if value is None:
            equal = f"(attribute_not_exists(#e{number}) OR {equal})"
        conditions.append(equal)
    update = ("SET " + ", ".join(settings) if settings else "") + (
        " REMOVE " + ", ".join(removals) if removals else ""
    )
    parts: dict[str, Any] = {
        "UpdateExpression": update.strip(),
        "ConditionExpression": " AND ".join(conditions),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
    }
    return {name: part for name, part in parts.items() if part}


def _key(pk: str, sk: str) -> dict[str, Any]:
    for text in (pk, sk):
        if not isinstance(text, str) or not text:
            raise InvalidInput(f"The keys of an item are text and not empty, not {text!r}.")
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def _attributes(item: JSON) -> dict[str, Any]:
    try:
        key = _key(item["pk"], item["sk"])
    except KeyError as missing:
        raise InvalidInput(f"An item needs {missing}.") from None
    attributes = {name: _attribute(value) for name, value in item.items()} | key
    size = sum(len(name.encode()) + _size(value) for name, value in attributes.items())
    if size > MAX_ITEM_BYTES:
        raise Permanent(
            f"The item {item['pk']} / {item['sk']} takes {size // 1024} KB, "
            f"more than the {MAX_ITEM_BYTES // 1024} KB that DynamoDB holds."
        )
    return attributes


def _attribute(value: Any) -> Attribute:
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case str():
            return {"S": value}
        case int() | float():
            return {"N": _number(value)}
        case list() | tuple():
            return {"L": [_attribute(part) for part in value]}
        case Mapping():
            if not all(isinstance(name, str) for name in value):
                raise InvalidInput("The names inside an item must be text.")
            return {"M": {name: _attribute(part) for name, part in value.items()}}
    raise InvalidInput(f"An item holds JSON only, not {type(value).__name__}.")


def _number(value: float) -> str:
    if isinstance(value, int) or (value.is_integer() and abs(value) < _EXACT):
        if abs(value) >= _EXACT:
            raise InvalidInput(f"{value} is too large a whole number for the table.")
        return str(int(value))
    # NaN compares false with everything.
    if not abs(value) <= _LARGEST:
        raise InvalidInput(f"{value} is not a number that the table holds.")
    return repr(value) if abs(value) >= _SMALLEST else "0"


def _size(attribute: Attribute) -> int:
    """Bytes as DynamoDB counts them, rounded up."""
    ((kind, value),) = attribute.items()
    match kind:
        case "S":
            return len(value.encode("utf-8", "surrogatepass"))
        case "N":
            return len(value) // 2 + 2
        case "L":
            return 3 + sum(1 + _size(part) for part in value)
        case "M":
            return 3 + sum(1 + len(name.encode()) + _size(part) for name, part in value.items())
    return 1


def _item(attributes: Mapping[str, Any]) -> JSON:
    return {name: _value(attribute) for name, attribute in attributes.items()}


def _value(attribute: Mapping[str, Any]) -> Any:
    ((kind, value),) = attribute.items()
    match kind:
        case "NULL":
            return None
        case "N":
            number = Decimal(value)
            whole = number == number.to_integral_value() and abs(number) < _EXACT
            return int(number) if whole else float(number)
        case "L":
            return [_value(part) for part in value]
        case "M":
            return {name: _value(part) for name, part in value.items()}
        case "S" | "BOOL":
            return value
    raise Permanent(f"The table holds an attribute of type {kind}, which nothing here writes.")


def _chunks(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    pending = iter(values)
    while chunk := list(islice(pending, size)):
        yield chunk
