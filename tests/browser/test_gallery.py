"""The gallery as people meet it: in a browser, by mouse and keyboard, on a phone, in the dark."""

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from playwright.sync_api import Page, expect

from local.gateway import Gateway
from local.home import open_services
from tests.browser.conftest import HOSTILE, OpenPage

AXE = Path(__file__).resolve().parents[2] / "node_modules" / "axe-core" / "axe.min.js"

ALL_OPEN = "document.querySelectorAll('details').forEach(part => part.open = true)"


def load_all_pictures(page: Page) -> list[str]:
    """Open everything, load what is lazy, and return the addresses of pictures that failed."""
    page.evaluate(ALL_OPEN)
    broken = page.evaluate(
        """async () => {
            const pictures = [...document.images];
            pictures.forEach(picture => picture.loading = 'eager');
            await Promise.all(pictures.map(picture => picture.decode().catch(() => null)));
            return pictures.filter(picture => !picture.naturalWidth).map(picture => picture.src);
        }"""
    )
    return list(broken)


def test_all_is_there_and_every_picture_loads(results: Path, open_page: OpenPage) -> None:
    page = open_page((results / "index.html").as_uri())
    expect(page.get_by_role("heading", level=1)).to_have_text("browser-test")
    for name in ("Clusters", "Map", "Inside each cluster", "Duplicates", "Rejected",
                 "How this result was chosen", "About this run"):  # fmt: skip
        expect(page.get_by_role("heading", level=2, name=name)).to_have_count(1)
    for landmark in ("banner", "main", "contentinfo", "navigation"):
        expect(page.get_by_role(landmark)).to_have_count(1)
    assert load_all_pictures(page) == []
    assert page.evaluate("document.images.length") > 35


def test_every_link_on_the_page_leads_somewhere(results: Path, open_page: OpenPage) -> None:
    page = open_page((results / "index.html").as_uri())
    cards = page.locator("a.card")
    assert cards.count() >= 4
    for number in range(cards.count()):
        target = cards.nth(number).get_attribute("href") or ""
        cards.nth(number).click()
        assert page.evaluate("location.hash") == target
        expect(page.locator(target)).to_be_in_viewport()
        page.evaluate("scrollTo(0, 0)")
    lost = page.evaluate(
        """() => [...document.querySelectorAll('a[href^="#"]')].map(a => a.getAttribute('href'))
            .filter(href => !document.getElementById(href.slice(1)))"""
    )
    assert lost == []
    files = page.evaluate(
        """() => [...document.querySelectorAll('a:not([href^="#"])')].map(a =>
            a.getAttribute('href'))"""
    )
    assert files
    assert all((results / file).is_file() for file in files)


def test_a_point_of_the_map_leads_to_its_cluster(results: Path, open_page: OpenPage) -> None:
    page = open_page((results / "index.html").as_uri())
    group = page.locator("#map svg a[href='#c0002']")
    group.locator("circle").first.click(force=True)
    assert page.evaluate("location.hash").startswith("#c000")


def test_a_hostile_name_is_only_a_name(results: Path, open_page: OpenPage) -> None:
    page = open_page((results / "index.html").as_uri())
    assert load_all_pictures(page) == []
    assert page.get_by_alt_text(HOSTILE, exact=True).count() >= 1
    assert page.locator("[onerror], script, img[src='x']").count() == 0


def test_nothing_sticks_out_sideways(results: Path, open_page: OpenPage) -> None:
    page = open_page((results / "index.html").as_uri())
    page.evaluate(ALL_OPEN)
    for width in (320, 360, 768, 1280):
        page.set_viewport_size({"width": width, "height": 780})
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_keyboard_reaches_all_and_shows_where_it_is(results: Path, open_page: OpenPage) -> None:
    page = open_page((results / "index.html").as_uri())
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the clusters")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    reached = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        seen: dict[str, Any] = page.evaluate(
            """() => {
                const at = document.activeElement, style = getComputedStyle(at);
                const name = at.tagName + '|' + (at.getAttribute('href') ?? '');
                return {name, outline: parseFloat(style.outlineWidth), kind: style.outlineStyle};
            }"""
        )
        if seen["name"].startswith("BODY"):
            break
        assert seen["outline"] >= 2, seen
        assert seen["kind"] != "none", seen
        reached.add(seen["name"])
    assert {"A|#c0001", "A|#c0004", "SUMMARY|", "A|assignments.csv"} <= reached
    more = page.locator(".cluster summary").first
    more.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".cluster details").first).to_have_attribute("open", "")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_is_accessible(results: Path, open_page: OpenPage, dark: bool) -> None:
    """axe-core finds nothing, contrast of both colour schemes among it."""
    if not AXE.is_file():
        pytest.skip("needs axe-core: npm ci")
    page = open_page((results / "index.html").as_uri(), dark=dark)
    page.evaluate(ALL_OPEN)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in background[4:-1].split(",")) < 380) == dark
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    told = [(v["id"], v["nodes"][0]["html"][:200], v["nodes"][0].get("failureSummary"))
            for v in found["violations"]]  # fmt: skip
    assert told == []
    assert len(found["passes"]) > 20


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def served(results: Path) -> Iterator[str]:
    """Address of the local server over the same state folder."""
    home = results.parent / "home"
    with closing(open_services(home)) as services:
        gateway = Gateway(services, home=home, host="127.0.0.1")
        with make_server("127.0.0.1", 0, gateway, handler_class=_Quiet) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()


def test_the_local_server_shows_the_same_page(
    served: str, results: Path, open_page: OpenPage
) -> None:
    (run,) = (results.parent / "home" / "data" / "exports").iterdir()
    page = open_page(f"{served}/gallery/{run.name}/index.html")
    expect(page.get_by_role("heading", level=1)).to_have_text("browser-test")
    assert load_all_pictures(page) == []
