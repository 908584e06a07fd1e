"""Killed at any moment, run again: finished, nothing lost, nothing stored computed twice."""

import csv
import fcntl
import json
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FAMILIES, EACH = 3, 24  # three batches of 32 to embed


def run(folder: Path, photos: Path, number: int, when: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, str(Path(__file__).with_name("killed_run.py")), str(number), when,
        "run", str(photos), "--home", str(folder / "home"), "--out", str(folder / "out"),
        "--clusters", "3", "--method", "kmeans",
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def outcome(folder: Path) -> tuple[list[dict[str, str]], dict[str, Any]]:
    rows = list(csv.DictReader((folder / "out" / "assignments.csv").read_text().splitlines()))
    return rows, json.loads((folder / "out" / "run.json").read_text())


def stored_vectors(folder: Path) -> int:
    """Images whose vector the table points to, as the killed process left it."""
    path = folder / "home" / "imageclust.sqlite"
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'items'").fetchone():
            return 0  # killed before the table was made
        found = db.execute("SELECT pk FROM items").fetchall()
    return sum(bytes(pk).startswith(b"vector#") for (pk,) in found)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, list[dict[str, str]]]:
    """Writes of a whole run, and its result."""
    folder = tmp_path_factory.mktemp("whole")
    photos = draw(folder)
    done = run(folder, photos, 0, "before")
    assert done.returncode == 0, done.stderr
    (told,) = re.findall(r"(\d+) writes", done.stderr)
    return int(told), outcome(folder)[0]


def draw(folder: Path) -> Path:
    from tests.conftest import jpeg, picture

    for family in range(FAMILIES):
        place = folder / "photos" / f"family {family}"
        place.mkdir(parents=True)
        for seed in range(EACH):
            (place / f"{seed}.jpg").write_bytes(jpeg(picture(seed, family=family)))
    (folder / "photos" / "copy.jpg").write_bytes(jpeg(picture(0, family=0)))
    return folder / "photos"


@pytest.mark.parametrize("share", [0.0, 0.06, 0.4, 0.7, 0.88, 0.94, 0.97, 1.0])
def test_a_run_killed_at_any_write_is_finished_by_the_same_command(
    tmp_path: Path, uninterrupted: tuple[int, list[dict[str, str]]], share: float
) -> None:
    writes, expected = uninterrupted
    photos = draw(tmp_path)
    number = max(1, round(share * writes))
    when = "before" if number % 2 else "after"
    killed = run(tmp_path, photos, number, when)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    stored = stored_vectors(tmp_path)

    finished = run(tmp_path, photos, 0, "before")
    assert finished.returncode == 0, finished.stderr
    rows, record = outcome(tmp_path)
    assert rows == expected
    counts = record["counts"]
    assert counts["seen"] == FAMILIES * EACH + 1
    assert counts["seen"] == sum(v for name, v in counts.items() if name != "seen")
    assert record["images"]["to_embed"] == FAMILIES * EACH - stored


def test_killed_again_and_again_it_still_finishes(
    tmp_path: Path, uninterrupted: tuple[int, list[dict[str, str]]]
) -> None:
    _, expected = uninterrupted
    photos = draw(tmp_path)
    kills = 0
    for number in (5, 20, 40, 45):
        kills += run(tmp_path, photos, number, "after").returncode == -signal.SIGKILL
    assert kills >= 2
    assert run(tmp_path, photos, 0, "before").returncode == 0
    assert outcome(tmp_path)[0] == expected


def test_one_run_is_executed_by_one_process(
    tmp_path: Path, uninterrupted: tuple[int, list[dict[str, str]]]
) -> None:
    photos = draw(tmp_path)
    run(tmp_path, photos, uninterrupted[0] // 2, "after")
    (lock,) = (tmp_path / "home" / "locks").glob("photos-*")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = run(tmp_path, photos, 0, "before")
        assert done.returncode == 1
        assert "another imageclust works on the collection" in done.stderr
    assert run(tmp_path, photos, 0, "before").returncode == 0
