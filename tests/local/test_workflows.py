"""Executions of several processes over one state folder."""

import fcntl
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from imageclust.adapters.local.file_store import FileStore

from local import workflows
from local.runner import Execution
from local.workflows import LocalWorkflows
from tests.conftest import PATIENCE


def test_a_look_at_a_run_does_not_keep_another_process_from_starting_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To look whether a run is alive is to take its lock for a moment."""
    started, tried, looked = threading.Event(), threading.Event(), threading.Event()

    def flock(file: Any, operation: int) -> None:
        if operation & fcntl.LOCK_NB == 0 and started.is_set():
            tried.set()
        try:
            fcntl.flock(file, operation)
        finally:
            if started.is_set():
                tried.set()

    class Workflow:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def run(self, *_: Any, **__: Any) -> Execution:
            return Execution("SUCCEEDED")

    constants = {name: getattr(fcntl, name) for name in ("LOCK_EX", "LOCK_NB")}
    monkeypatch.setattr(workflows, "fcntl", SimpleNamespace(flock=flock, **constants))
    monkeypatch.setattr(workflows, "Workflow", Workflow)
    store = FileStore({"data": tmp_path / "data"})
    one, other = (LocalWorkflows(store, home=tmp_path) for _ in range(2))
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "a-run").touch()  # left by a process that was killed
    genuine = other._hold

    def hold(run_id: str) -> Any:
        held = genuine(run_id)
        looked.set()
        tried.wait(PATIENCE)
        return held

    monkeypatch.setattr(other, "_hold", hold)
    looking = threading.Thread(target=other.running_elsewhere, args=("a-run",))
    looking.start()
    assert looked.wait(PATIENCE)
    started.set()
    one.start("a-run", {})
    looking.join()
    assert one.wait("a-run").status == "SUCCEEDED"
    assert not other.running("a-run")
