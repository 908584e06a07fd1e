"""A run cancelled, broken or held up in any of its states: nothing is lost, people are told.

Whatever happened, the collection is free, readers see nothing half done, and the next run counts
every file.
"""

import importlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from imageclust import keys
from imageclust.errors import StoreUnavailable
from imageclust.models import JSON, RunConfig
from imageclust.steps import start_run as runs
from imageclust.steps.ingest import create_collection
from imageclust.wiring import Services

FUNCTIONS = ("plan_run", "embed", "cluster", "draw_map", "describe", "publish")
CONFIG = {"embedder": "builtin", "labels": "off", "method": "kmeans", "clusters": 2}
FILES = 9


@pytest.fixture
def collection(services: Services, make_photos: Callable[..., Path], tmp_path: Path) -> Services:
    photos = make_photos(families=2, each=4)
    (photos / "no picture.jpg").write_bytes(b"no")
    (tmp_path / "home" / "uploads" / "drill").symlink_to(photos)
    create_collection(services, "drill", now=datetime.now(UTC))
    return services


def run(services: Services) -> JSON:
    """One run to its end; its record."""
    run_id = runs.start_run(
        services,
        collection="drill",
        config=RunConfig.from_json(CONFIG),
        trigger="api",
        now=datetime.now(UTC),
    )
    while services.workflows.running(run_id):
        time.sleep(0.02)
    record = runs.run_record(services.table, run_id)
    assert record is not None
    return record


def item_of(services: Services) -> JSON:
    return services.table.get(keys.COLLECTIONS_PK, "drill") or {}


def first_do(
    monkeypatch: pytest.MonkeyPatch, function: str, deed: Callable[[str], None]
) -> list[str]:
    """Each call of the function does this first; returns the calls."""
    module = importlib.import_module(f"functions.{function}")
    real, calls = module.handler, []

    def handler(event: Any, context: Any) -> Any:
        calls.append(function)
        deed(event.get("run_id") or event["BatchInput"]["run_id"])
        return real(event, context)

    monkeypatch.setattr(module, "handler", handler)
    return calls


def assert_the_next_run_counts_everything(services: Services) -> None:
    record = run(services)
    assert record["state"] == "SUCCEEDED"
    counts = record["counts"]
    assert counts["seen"] == FILES
    assert counts["seen"] == sum(number for name, number in counts.items() if name != "seen")
    assert counts["rejected"] == 1
    assert item_of(services)["current_run"] == record["run_id"]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_cancelled_in_any_state(
    collection: Services, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    with monkeypatch.context() as patch:
        calls = first_do(
            patch,
            function,
            lambda run_id: runs.cancel_run(collection, run_id=run_id, now=datetime.now(UTC)),
        )
        record = run(collection)
    assert set(calls) == {function}
    assert record["state"] == "CANCELLED"
    item = item_of(collection)
    assert item.get("running_run") is None
    assert item.get("current_run") is None, "readers see nothing of it"
    assert_the_next_run_counts_everything(collection)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_broken_in_any_state(
    collection: Services, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def breaks(_run_id: str) -> None:
        raise KeyError("a fault of ours")

    with monkeypatch.context() as patch:
        first_do(patch, function, breaks)
        record = run(collection)
    if function == "draw_map":  # a run is whole without it
        assert record["state"] == "SUCCEEDED"
        return
    assert record["state"] == "FAILED"
    assert record["failure"]["state"]
    assert record["failure"]["cause"]
    assert "start" in record["failure"]["advice"]
    item = item_of(collection)
    assert item.get("running_run") is None
    assert item.get("current_run") is None
    assert_the_next_run_counts_everything(collection)


def test_a_store_that_is_away_for_a_moment_in_every_state(
    collection: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    away: set[str] = set()

    def once(function: str) -> Callable[[str], None]:
        def deed(_run_id: str) -> None:
            if function not in away:
                away.add(function)
                raise StoreUnavailable("S3 answers 503")

        return deed

    for function in FUNCTIONS:
        first_do(monkeypatch, function, once(function))
    assert_the_next_run_counts_everything(collection)
    assert away == set(FUNCTIONS)
