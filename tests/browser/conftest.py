"""A real browser without a window, and a small run whose gallery it opens."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from local.cli import main
from tests.conftest import PATIENCE, jpeg, picture

_CHROMIUM = Path("/usr/bin/chromium")
_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

OpenPage = Callable[..., Page]

HOSTILE = "<img src=x onerror=alert(1)>.jpg"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not _CHROMIUM.exists():
        pytest.skip(f"needs a browser at {_CHROMIUM}")
    expect.set_options(timeout=1000 * PATIENCE)
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(
            executable_path=_CHROMIUM, args=_ARGUMENTS, timeout=1000 * PATIENCE
        )
        yield made
        made.close()


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of one run: four families, awkward names, a copy, a lone picture, two bad files."""
    folder = tmp_path_factory.mktemp("gallery")
    photos = folder / "photos"
    for family in range(4):
        (photos / f"family {family}").mkdir(parents=True)
        for seed in range(8):
            drawn = jpeg(picture(seed, family=family))
            (photos / f"family {family}" / f"{seed}.jpg").write_bytes(drawn)
    for number, name in enumerate((HOSTILE, "quote\"'s & 100%.jpg", "写真 🌅.jpg")):
        (photos / name).write_bytes(jpeg(picture(50 + number, family=number)))
    (photos / "copy.jpg").write_bytes((photos / "family 0" / "0.jpg").read_bytes())
    (photos / "notes.txt").write_text("<script>alert(2)</script>")
    # Long, so that the table must break it to stay on a small screen.
    (photos / f"cut-{'0123456789abcdef' * 4}.jpg").write_bytes(jpeg(picture(1))[:300])
    out = folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("IMAGECLUST_HOME", "IMAGECLUST_MODELS"):
            patch.delenv(name, raising=False)
        code = main(
            [
                "run",
                str(photos),
                "--home",
                str(folder / "home"),
                "--out",
                str(out),
                "--collection",
                "browser-test",
            ]
        )
    assert code == 0
    return out


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open an address; whatever the page complains of, asks for elsewhere or pops up fails."""
    complaints: list[str] = []
    contexts = []

    def dismissed(dialog: object) -> None:
        complaints.append(f"dialog {dialog}")

    def opened(address: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.on("console", lambda message: complaints.append(f"console {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error {error}"))
        page.on("requestfailed", lambda request: complaints.append(f"failed {request.url}"))
        page.on("dialog", dismissed)
        allowed = address.rsplit("/", 1)[0]
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((allowed, "data:"))
                else complaints.append(f"elsewhere {request.url}")
            ),
        )
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
