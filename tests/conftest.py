"""What several suites share: the real data when it is there, generated pictures, local services."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from imageclust import wiring
from imageclust.wiring import Services

from local.home import open_services

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"

PATIENCE = 600.0
"""Seconds that a test waits for what must happen: only one that hangs waits so long."""

# A slow machine fails no test, and neither does an unlucky draw: every run tries the same examples.
# `pytest --hypothesis-profile search` looks for others.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("search"), derandomize=True, database=None)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the tester's account, state folder or models; wiring starts unbound."""
    for name in ("IMAGECLUST_HOME", "IMAGECLUST_MODELS", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    yield
    wiring.forget()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real photos and models; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared (real photos and models), which is absent")
    return SHARED


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """Local services over an empty state folder, bound as the process's own."""
    made = open_services(tmp_path / "home")
    wiring.use(made)
    yield made
    made.close()


def picture(seed: int, *, family: int = 0, size: tuple[int, int] = (96, 72)) -> np.ndarray:
    """A small RGB picture; those of one family look alike and none is a copy of another."""
    rng = np.random.default_rng([seed, family])
    base = np.random.default_rng(1000 + family)
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    angle, period = base.uniform(0, np.pi), base.uniform(6, 24)
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) / period * 2 * np.pi + rng.uniform(0, 6))
    ink, paper = base.integers(0, 256, 3), base.integers(0, 256, 3)
    for _ in range(6):
        across, down, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(5, 12)
        wave[(x - across) ** 2 + (y - down) ** 2 < radius**2] = 1
    drawn = np.where(wave[..., None] > 0, ink, paper) + rng.normal(0, 6, (height, width, 3))
    return np.clip(drawn, 0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray) -> bytes:
    done, data = cv2.imencode(".jpg", pixels[..., ::-1])
    assert done
    return data.tobytes()


@pytest.fixture
def make_photos(tmp_path: Path) -> Callable[..., Path]:
    """Draw ``families`` × ``each`` pictures into a folder and return it."""

    def make(families: int = 3, each: int = 6, folder: str = "photos") -> Path:
        root = tmp_path / folder
        for family in range(families):
            place = root / f"family {family}"
            place.mkdir(parents=True, exist_ok=True)
            for seed in range(each):
                (place / f"{seed}.jpg").write_bytes(jpeg(picture(seed, family=family)))
        return root

    return make
