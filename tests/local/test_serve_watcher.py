"""The watched folder: what is told, when, and what is not told twice."""

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from imageclust import keys, wiring
from imageclust.adapters.local.file_store import FileStore
from imageclust.models import JSON
from imageclust.wiring import Services, local_services

from functions import ingest, start_run
from local.gateway import LocalContext
from local.watcher import Watcher
from tests.functions.test_start_run import Executions

PAST = time.time() - 3600


class Told:
    """What a watcher sent: (kind, key) pairs."""

    def __init__(self, folder: Path, last_run: Callable[[str], float | None]) -> None:
        self.folder = folder
        self.events: list[tuple[str, str]] = []
        self.down = False
        self.watcher = Watcher(
            folder,
            bucket="uploads",
            store=FileStore({"uploads": folder}),
            send=self._send,
            last_run=last_run,
        )

    def _send(self, event: JSON) -> JSON:
        if self.down:
            records = event["Records"]
            return {"batchItemFailures": [{"itemIdentifier": r["messageId"]} for r in records]}
        for record in event["Records"]:
            body = json.loads(record["body"])
            assert body["source"] == "aws.s3"
            self.events.append((body["detail-type"], body["detail"]["object"]["key"]))
        return {"batchItemFailures": []}

    def polls(self, number: int = 2) -> list[tuple[str, str]]:
        """What is told during some polls."""
        self.events.clear()
        for _ in range(number):
            self.watcher.poll()
        return list(self.events)

    def put(self, name: str, data: bytes = b"x", *, age: float | None = None) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if age is not None:
            for changed in (path, *path.parents):
                if self.folder in changed.parents:
                    os.utime(changed, (age, age))
        return path


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path, lambda _: None)


def test_a_new_folder_is_told_once(told: Told) -> None:
    assert told.polls() == []
    for number in range(50):
        told.put(f"a/{number}.jpg")
    assert told.polls(1) == []  # it may still be copied
    assert len(told.polls(1)) == 1  # one event stands for the folder
    assert told.polls(5) == []


def test_changes_of_a_watched_folder_are_told(told: Told) -> None:
    told.put("a/1.jpg")
    told.put("a/sub/2.jpg")
    told.polls()
    told.put("a/sub/3.jpg")
    told.put("a/1.jpg", b"longer")
    (told.folder / "a/sub/2.jpg").unlink()
    assert told.polls() == [
        ("Object Created", "a/1.jpg"),
        ("Object Deleted", "a/sub/2.jpg"),
        ("Object Created", "a/sub/3.jpg"),
    ]
    assert told.polls() == []


def test_a_file_that_still_grows_is_not_told(told: Told) -> None:
    told.put("a/1.jpg")
    told.polls()
    told.put("a/2.jpg")
    for size in range(2, 6):
        told.put("a/big.jpg", b"x" * size)
        assert ("Object Created", "a/big.jpg") not in told.polls(1)
    assert ("Object Created", "a/big.jpg") in told.polls(1)


def test_many_changes_are_told_as_one_batch(told: Told) -> None:
    told.put("a/1.jpg")
    told.polls()
    for number in range(100):
        told.put(f"a/new-{number}.jpg")
    assert len(told.polls(4)) == 10


def test_what_could_not_be_told_is_told_later(told: Told) -> None:
    told.put("a/1.jpg")
    told.down = True
    assert told.polls(4) == []
    told.down = False
    assert told.polls(1) == [("Object Created", "a/1.jpg")]
    told.put("a/2.jpg")
    told.down = True
    assert told.polls(4) == []
    told.down = False
    assert told.polls(1) == [("Object Created", "a/2.jpg")]


def test_files_beside_the_folders_and_hidden_folders_are_not_watched(told: Told) -> None:
    told.put("loose.jpg")
    told.put(".hidden/x.jpg")
    assert told.polls(4) == []


def test_a_folder_unchanged_since_its_last_run_is_left_alone(tmp_path: Path) -> None:
    told = Told(tmp_path, lambda _: PAST)
    told.put("a/sub/1.jpg", age=PAST - 60)
    assert told.polls(3) == []
    told.put("a/sub/2.jpg", age=PAST - 30)  # watched by now
    assert told.polls(3) == [("Object Created", "a/sub/2.jpg")]


@pytest.mark.parametrize("change", ["add", "remove", "empty", "overwrite"])
def test_what_changed_while_nobody_watched_is_told(tmp_path: Path, change: str) -> None:
    told = Told(tmp_path, lambda _: PAST)
    told.put("a/sub/1.jpg", age=PAST - 60)
    path = told.put("a/sub/2.jpg", age=PAST - 60)
    if change == "add":
        told.put("a/sub/3.jpg")
    elif change == "overwrite":
        path.write_bytes(b"other")
    else:
        path.unlink()
    if change == "empty":
        (tmp_path / "a/sub/1.jpg").unlink()
        (tmp_path / "a/sub").rmdir()
    assert len(told.polls(3)) == 1
    assert told.polls(3) == []


def test_a_folder_that_is_a_link_is_watched(tmp_path: Path) -> None:
    photos, uploads = tmp_path / "photos", tmp_path / "uploads"
    photos.mkdir()
    uploads.mkdir()
    (uploads / "a").symlink_to(photos)
    told = Told(uploads, lambda _: None)
    (photos / "1.jpg").write_bytes(b"x")
    assert told.polls() == [("Object Created", "a/1.jpg")]


def test_a_folder_that_goes_away_is_told(told: Told) -> None:
    path = told.put("a/1.jpg")
    told.polls()
    path.unlink()
    path.parent.rmdir()
    assert told.polls() == [("Object Deleted", "a/1.jpg")]
    assert told.polls() == []


def test_awkward_names_reach_the_handler(told: Told) -> None:
    told.put("a/first.jpg")
    told.polls()
    name = os.fsdecode(b"a/\xff % + \xc3\xa9.jpg")
    told.put(name)
    assert told.polls() == [("Object Created", name)]


def test_the_same_handler_takes_the_events(tmp_path: Path) -> None:
    """Watcher → ingest → timer → start_run, with the real table and timers."""
    executions = Executions()
    services: Services = local_services(tmp_path, workflows=lambda _: executions)
    wiring.use(services)
    context: Any = LocalContext(aws_request_id="r")
    watcher = Watcher(
        tmp_path / "uploads",
        bucket="uploads",
        store=services.store,
        send=lambda event: ingest.handler(event, context),
        last_run=lambda _: None,
    )
    (tmp_path / "uploads/a").mkdir()
    (tmp_path / "uploads/a/x.jpg").write_bytes(b"x")
    (tmp_path / "uploads/My Photos").mkdir()
    (tmp_path / "uploads/My Photos/x.jpg").write_bytes(b"x")
    for _ in range(3):
        watcher.poll()
    assert [item["sk"] for item in services.table.query(keys.COLLECTIONS_PK).items] == ["a"]
    timers: Any = services.scheduler
    later = datetime.now(UTC) + timedelta(hours=1)
    timers.fire_due(later, lambda payload: start_run.handler(payload, context))
    assert [run_id.split("-")[0] for run_id in executions.starts] == ["a"]
    assert "My Photos" in (tmp_path / "events.jsonl").read_text()
    services.close()
