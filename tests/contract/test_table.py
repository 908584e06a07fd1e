"""One behaviour of tables, on SQLite and on DynamoDB."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imageclust.errors import Conflict, InvalidInput
from imageclust.ports import Table

ITEM = {
    "pk": "run#1",
    "sk": "cluster#c0001",
    "title": "Sofas — été",
    "size": 3,
    "cohesion": 0.1,
    "ratio": 1.0,
    "labels": [["Sofa", 0.5, 12.25], ["Lamp", 1e-9, -2]],
    "config": {"seed": 0, "sample": 1.0, "method": None, "keep": True, "empty": {}, "none": []},
    "note": "",
    "created_ns": 1_763_787_045_123_456_789,
}


def test_what_is_put_reads_back(table: Table) -> None:
    assert table.get("run#1", "cluster#c0001") is None
    table.put(ITEM)
    assert table.get("run#1", "cluster#c0001") == ITEM
    table.put({"pk": "run#1", "sk": "cluster#c0001", "size": 4})
    assert table.get("run#1", "cluster#c0001") == {
        "pk": "run#1", "sk": "cluster#c0001", "size": 4
    }  # fmt: skip
    table.delete("run#1", "cluster#c0001")
    table.delete("run#1", "cluster#c0001")
    assert table.get("run#1", "cluster#c0001") is None


def test_whole_numbers_come_back_whole(table: Table) -> None:
    table.put(ITEM)
    found = table.get("run#1", "cluster#c0001")
    assert found is not None
    assert type(found["size"]) is int
    assert type(found["created_ns"]) is int
    assert type(found["cohesion"]) is float
    assert type(found["config"]["keep"]) is bool


WORDS = ["a", "size", "x y", "été", "#1", "a.b"]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False, min_value=-1e125, max_value=1e125).filter(
        lambda x: x == 0 or abs(x) > 1e-120
    )
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.sampled_from(WORDS), parts),
    max_leaves=12,
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(value=json_values)
def test_any_json_reads_back(table: Table, value: Any) -> None:
    item = {"pk": "p", "sk": "s", "value": value}
    table.put(item)
    assert table.get("p", "s") == item


@pytest.mark.parametrize(
    "item",
    [
        {"pk": "p"},
        {"pk": "", "sk": "s"},
        {"pk": "p", "sk": ""},
        {"pk": "p", "sk": 1},
        {"pk": "p", "sk": "s", "x": float("nan")},
        {"pk": "p", "sk": "s", "x": float("inf")},
        {"pk": "p", "sk": "s", "x": object()},
        {"pk": "p", "sk": "s", "x": b"bytes"},
    ],
)
def test_items_that_no_table_holds(table: Table, item: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        table.put(item)
    with pytest.raises(InvalidInput):
        table.put_many([item])


def test_put_unless_exists(table: Table) -> None:
    table.put({"pk": "p", "sk": "s", "by": 1}, unless_exists=True)
    with pytest.raises(Conflict):
        table.put({"pk": "p", "sk": "s", "by": 2}, unless_exists=True)
    assert table.get("p", "s") == {"pk": "p", "sk": "s", "by": 1}
    table.put({"pk": "p", "sk": "s", "by": 3})
    assert table.get("p", "s") == {"pk": "p", "sk": "s", "by": 3}


def test_update_sets_removes_and_creates(table: Table) -> None:
    # Words that DynamoDB keeps for itself must work as names.
    made = table.update("p", "s", {"state": "RUNNING", "size": 1, "a.b": [1]})
    assert made == {"pk": "p", "sk": "s", "state": "RUNNING", "size": 1, "a.b": [1]}
    made = table.update("p", "s", {"state": "FAILED", "size": None, "none": None})
    assert made == {"pk": "p", "sk": "s", "state": "FAILED", "a.b": [1]}
    assert table.get("p", "s") == made
    assert table.update("p", "s", {"a.b": None}) == {"pk": "p", "sk": "s", "state": "FAILED"}


def test_update_under_a_condition(table: Table) -> None:
    with pytest.raises(Conflict):
        table.update("p", "s", {"run": "r2"}, expect={"run": "r1"})
    assert table.get("p", "s") is None
    table.update("p", "s", {"run": "r1"}, expect={"run": None})
    with pytest.raises(Conflict):
        table.update("p", "s", {"run": "r2"}, expect={"run": None})
    with pytest.raises(Conflict):
        table.update("p", "s", {"run": "r2"}, expect={"run": "r1", "dirty": True})
    made = table.update("p", "s", {"run": "r2", "dirty": True}, expect={"run": "r1", "dirty": None})
    assert made == {"pk": "p", "sk": "s", "run": "r2", "dirty": True}
    table.update("p", "s", {"counts": {"seen": 3}, "null": None})
    table.put({"pk": "p", "sk": "n", "x": None})
    table.update("p", "n", {"x": 1}, expect={"x": None})
    table.update("p", "s", {"dirty": None}, expect={"counts": {"seen": 3}})


def test_keys_cannot_be_updated(table: Table) -> None:
    with pytest.raises(InvalidInput):
        table.update("p", "s", {"sk": "t"})


def test_many(table: Table) -> None:
    items = [{"pk": f"p{n % 3}", "sk": f"{n:04d}", "n": n} for n in range(450)]
    table.put_many(iter(items))
    table.put_many([])
    table.put_many(items[:3])
    keys = [(f"p{n % 3}", f"{n:04d}") for n in range(450)]
    found = table.get_many([*keys, *keys[:5], ("p0", "none"), ("none", "0000")])
    assert found == dict(zip(keys, items, strict=True))
    assert table.get_many([]) == {}
    assert len(table.query("p0").items) == 150


def test_of_two_items_with_one_key_the_last_stays(table: Table) -> None:
    table.put_many([{"pk": "p", "sk": "s", "n": n} for n in range(60)])
    assert table.get("p", "s") == {"pk": "p", "sk": "s", "n": 59}


def fill(table: Table) -> None:
    table.put_many(
        [{"pk": "c", "sk": f"run#{n:02d}", "n": n} for n in range(10)]
        + [{"pk": "c", "sk": "meta"}, {"pk": "c", "sk": "run"}, {"pk": "d", "sk": "run#00"}]
        + [{"pk": "c", "sk": "run$"}]
    )


def test_query_by_prefix_in_order(table: Table) -> None:
    fill(table)
    assert [item["n"] for item in table.query("c", prefix="run#").items] == list(range(10))
    page = table.query("c", prefix="run#", newest_first=True, limit=3)
    assert [item["n"] for item in page.items] == [9, 8, 7]
    assert [item["sk"] for item in table.query("c").items][:2] == ["meta", "run"]
    assert table.query("c").next is None
    assert table.query("none").items == ()
    assert table.query("none", limit=1).next is None


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("limit", [1, 3, 5, 10, 11])
def test_pages_hold_every_item_once(table: Table, limit: int, newest_first: bool) -> None:
    fill(table)
    found: list[int] = []
    after, pages = None, 0
    while True:
        page = table.query("c", prefix="run#", limit=limit, after=after, newest_first=newest_first)
        assert 0 < len(page.items) <= limit
        found += [item["n"] for item in page.items]
        after, pages = page.next, pages + 1
        if after is None:
            break
    assert found == sorted(range(10), reverse=newest_first)
    assert pages == -(-10 // limit)


def test_a_cursor_outlives_its_item(table: Table) -> None:
    fill(table)
    page = table.query("c", prefix="run#", limit=4)
    table.delete("c", "run#03")
    rest = table.query("c", prefix="run#", after=page.next)
    assert [item["n"] for item in rest.items] == list(range(4, 10))


@pytest.mark.parametrize("cursor", ["", "x", "!!!", "bnVsbA", "WyJjIl0", "é", "W10"])
def test_broken_cursors(table: Table, cursor: str) -> None:
    fill(table)
    with pytest.raises(InvalidInput, match="cursor"):
        table.query("c", prefix="run#", after=cursor)


def test_a_cursor_of_another_query(table: Table) -> None:
    fill(table)
    cursor = table.query("c", prefix="run#", limit=1).next
    with pytest.raises(InvalidInput, match="cursor"):
        table.query("d", after=cursor)
    with pytest.raises(InvalidInput, match="cursor"):
        table.query("c", prefix="meta", after=cursor)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_page_holds_something(table: Table, limit: int) -> None:
    with pytest.raises(InvalidInput):
        table.query("c", limit=limit)


def test_sort_keys_compare_as_bytes(table: Table) -> None:
    names = ["a", "B", "é", "𝄞", "\ue000", "~", "10", "9", "a#", "a/"]
    table.put_many([{"pk": "p", "sk": name} for name in names])
    found = [item["sk"] for item in table.query("p").items]
    assert found == sorted(names, key=str.encode)


def test_one_of_many_writers_wins(table: Table) -> None:
    def claim(number: int) -> bool:
        try:
            table.put({"pk": "lock", "sk": "-", "by": number}, unless_exists=True)
        except Conflict:
            return False
        return True

    def count(_: int) -> None:
        while True:
            seen = (table.get("n", "-") or {}).get("n")
            try:
                table.update("n", "-", {"n": (seen or 0) + 1}, expect={"n": seen})
            except Conflict:
                continue
            return

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(claim, range(8))) == 1
        list(pool.map(count, range(8)))
    assert table.get("n", "-") == {"pk": "n", "sk": "-", "n": 8}
