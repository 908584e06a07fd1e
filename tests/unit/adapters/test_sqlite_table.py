import multiprocessing
import os
import signal
import sqlite3
from pathlib import Path

import pytest
from imageclust.adapters.local.sqlite_table import SqliteTable, table_error
from imageclust.errors import CorruptData, Permanent, StoreUnavailable


def _write_for_ever(path: Path) -> None:
    table = SqliteTable(path)
    number = 0
    while True:
        table.put_many({"pk": "batch", "sk": f"{n:03d}", "n": number} for n in range(200))
        table.update("count", "-", {"n": number})
        number += 1


def test_killing_the_writer_loses_at_most_one_transaction(tmp_path: Path) -> None:
    path = tmp_path / "table.db"
    process = multiprocessing.get_context("spawn").Process(target=_write_for_ever, args=(path,))
    process.start()
    table = SqliteTable(path)
    while (table.get("count", "-") or {"n": 0})["n"] < 3:
        process.join(0.01)
        assert process.is_alive()
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    items = table.query("batch").items
    assert len(items) == 200
    count = (table.get("count", "-") or {})["n"]
    assert {item["n"] for item in items} in ({count}, {count + 1})
    table.put({"pk": "count", "sk": "-", "n": 0})
    table.close()


def test_two_tables_on_one_file_see_each_other(tmp_path: Path) -> None:
    one, two = SqliteTable(tmp_path / "t.db"), SqliteTable(tmp_path / "t.db")
    one.put({"pk": "p", "sk": "s", "n": 1})
    assert two.update("p", "s", {"n": 2}, expect={"n": 1})["n"] == 2
    assert one.get("p", "s") == {"pk": "p", "sk": "s", "n": 2}
    one.close()
    assert one.get("p", "s") == {"pk": "p", "sk": "s", "n": 2}
    one.close()
    two.close()


def test_keys_of_file_names_that_are_not_utf8(tmp_path: Path) -> None:
    table = SqliteTable(tmp_path / "t.db")
    pk = "seen#s3://uploads/caf\udce9.jpg"
    table.put({"pk": pk, "sk": "-", "uri": pk})
    assert table.get(pk, "-") == {"pk": pk, "sk": "-", "uri": pk}
    assert table.get_many([(pk, "-")]) == {(pk, "-"): {"pk": pk, "sk": "-", "uri": pk}}
    table.put({"pk": "p", "sk": "a\udce9b", "n": 1})
    assert len(table.query("p", prefix="a\udce9").items) == 1
    table.close()


def test_look_ups_use_the_key(tmp_path: Path) -> None:
    table = SqliteTable(tmp_path / "t.db")
    statements: list[str] = []
    table.get("p", "s")
    assert table._connection is not None
    table._connection.set_trace_callback(statements.append)
    table.get_many([("p", "a"), ("p", "b")])
    table.query("p", prefix="a")
    plans = [
        str(table._connection.execute(f"EXPLAIN QUERY PLAN {s}").fetchall())
        for s in list(statements)
        if "SELECT" in s
    ]
    assert len(plans) == 2
    assert all("SEARCH items" in plan and "SCAN items" not in plan for plan in plans)
    table.close()


def test_a_failed_batch_changes_nothing(tmp_path: Path) -> None:
    table = SqliteTable(tmp_path / "t.db")

    def items() -> object:
        yield {"pk": "p", "sk": "1"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        table.put_many(items())  # type: ignore[arg-type]
    assert table.query("p").items == ()
    table.put({"pk": "p", "sk": "2"})
    assert len(table.query("p").items) == 1
    table.close()


def test_a_large_batch(tmp_path: Path) -> None:
    table = SqliteTable(tmp_path / "t.db")
    table.put_many({"pk": "p", "sk": f"{n:06d}", "n": n} for n in range(25_000))
    assert len(table.query("p").items) == 25_000
    found = table.get_many(("p", f"{n:06d}") for n in range(0, 30_000, 3))
    assert len(found) == 8334
    table.close()


def test_a_file_that_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "t.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(CorruptData, match="not a database"):
        SqliteTable(tmp_path / "t.db").get("p", "s")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Permanent, match="file"):
        SqliteTable(tmp_path / "file" / "t.db").get("p", "s")
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(Permanent, match=r"folder\.db"):
        SqliteTable(tmp_path / "folder.db").get("p", "s")


def test_a_full_disk(tmp_path: Path) -> None:
    table = SqliteTable(tmp_path / "t.db")
    table.put({"pk": "p", "sk": "kept"})
    assert table._connection is not None
    pages = table._connection.execute("PRAGMA page_count").fetchone()[0]
    table._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(Permanent, match="disk is full"):
        table.put_many({"pk": "p", "sk": f"{n}", "text": "x" * 500} for n in range(100))
    assert [item["sk"] for item in table.query("p").items] == ["kept"]
    table.close()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_BUSY, StoreUnavailable),
        (sqlite3.SQLITE_IOERR_FSYNC, StoreUnavailable),
        (sqlite3.SQLITE_READONLY, Permanent),
        (sqlite3.SQLITE_CORRUPT, CorruptData),
    ],
)
def test_error_classes(code: int, kind: type[Exception]) -> None:
    error = sqlite3.OperationalError("told so")
    error.sqlite_errorcode = code
    assert type(table_error(error, Path("t.db"))) is kind
