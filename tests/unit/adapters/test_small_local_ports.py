import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import unquote

import pytest
from imageclust.adapters.local.file_events import FileEvents
from imageclust.adapters.local.local_links import LocalLinks
from imageclust.adapters.local.sqlite_table import SqliteTable
from imageclust.adapters.local.table_scheduler import TableScheduler
from imageclust.errors import InvalidInput, Permanent, Throttled
from imageclust.models import JSON

NOW = datetime(2026, 11, 22, 5, 0, tzinfo=UTC)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[SqliteTable]:
    made = SqliteTable(tmp_path / "t.db")
    yield made
    made.close()


def test_timers_fire_once_when_due_oldest_first(table: SqliteTable) -> None:
    scheduler = TableScheduler(table)
    scheduler.schedule("b", NOW + timedelta(seconds=2), {"n": 2})
    scheduler.schedule("a", NOW + timedelta(seconds=3), {"n": 3})
    scheduler.schedule("c", NOW + timedelta(seconds=9), {"n": 9})
    fired: list[JSON] = []
    assert scheduler.fire_due(NOW, fired.append) == 0
    assert scheduler.fire_due(NOW + timedelta(seconds=5), fired.append) == 2
    assert scheduler.fire_due(NOW + timedelta(seconds=5), fired.append) == 0
    assert fired == [{"n": 2}, {"n": 3}]
    assert TableScheduler(table).fire_due(NOW + timedelta(days=1), fired.append) == 1


def test_a_pending_timer_moves(table: SqliteTable) -> None:
    scheduler = TableScheduler(table)
    scheduler.schedule("a", NOW, {"n": 1})
    zone = timezone(timedelta(hours=2))
    scheduler.schedule("a", (NOW + timedelta(seconds=60)).astimezone(zone), {"n": 2})
    fired: list[JSON] = []
    assert scheduler.fire_due(NOW + timedelta(seconds=59), fired.append) == 0
    assert scheduler.fire_due(NOW + timedelta(seconds=60), fired.append) == 1
    assert fired == [{"n": 2}]


def test_a_timer_whose_call_fails_stays(table: SqliteTable) -> None:
    scheduler = TableScheduler(table)
    scheduler.schedule("a", NOW, {"n": 1})

    def fail(_: JSON) -> None:
        raise Throttled("later")

    with pytest.raises(Throttled):
        scheduler.fire_due(NOW, fail)
    fired: list[JSON] = []
    assert scheduler.fire_due(NOW, fired.append) == 1


def test_a_timer_set_again_by_its_own_call_stays(table: SqliteTable) -> None:
    scheduler = TableScheduler(table)
    scheduler.schedule("a", NOW, {"n": 1})
    again = NOW + timedelta(seconds=60)
    scheduler.fire_due(NOW, lambda _: scheduler.schedule("a", again, {"n": 2}))
    fired: list[JSON] = []
    scheduler.fire_due(again, fired.append)
    assert fired == [{"n": 2}]


def test_a_timer_needs_a_time_zone(table: SqliteTable) -> None:
    with pytest.raises(InvalidInput):
        TableScheduler(table).schedule("a", datetime(2026, 11, 22), {})


def test_events_are_lines(tmp_path: Path) -> None:
    path = tmp_path / "new" / "events.jsonl"
    events = FileEvents(path)
    events.publish("RunStarted", {"run_id": "r1", "path": "caf\udce9\n.jpg"})
    FileEvents(path).publish("RunPublished", {"run_id": "r1"})
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["kind"] for line in lines] == ["RunStarted", "RunPublished"]
    assert lines[0]["detail"] == {"run_id": "r1", "path": "caf\udce9\n.jpg"}
    assert datetime.fromisoformat(lines[0]["time"]).tzinfo is not None
    with pytest.raises(Permanent, match="events"):
        FileEvents(path / "below").publish("x", {})


@pytest.mark.parametrize(
    "key", ["house/a b.jpg", "é/写真?.jpg", "a%2Fb#c.jpg", "caf\udce9.jpg", "x+y&z='\".jpg"]
)
def test_links_lead_back_to_their_object(key: str) -> None:
    links = LocalLinks("http://127.0.0.1:8080/")
    uri = f"s3://uploads/{key}"
    address = links.download(uri)
    assert address.startswith("http://127.0.0.1:8080/objects/uploads/")
    assert address.isascii()
    path = address.removeprefix("http://127.0.0.1:8080/objects/")
    assert "s3://" + unquote(path, errors="surrogateescape") == uri
    upload = links.upload(uri, content_type="image/jpeg", max_bytes=5)
    assert upload.url == address
    assert upload.fields == {"key": key, "Content-Type": "image/jpeg", "max-bytes": "5"}
