"""The page: everything is on it or counted, nothing escapes, and it stays small."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from imageclust.exports import Export
from imageclust.gallery import render_gallery
from imageclust.gallery.drawings import MOST_NUMBERS, Map, draw_curve, draw_map
from imageclust.gallery.hierarchy import Branch, build_hierarchy
from imageclust.gallery.page import MOST_PICTURES, MOST_POINTS, fair_share

from tests.unit.exports.build import chain, image_id, made_up

_VOID = {"meta", "link", "img", "br", "hr"}


class Page(HTMLParser):
    """Elements, ids, links and text of a page; fails on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.texts))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def values(self, attribute: str) -> list[str]:
        return [a[attribute] or "" for _, a in self.tags if attribute in a]


def page_of(export: Export) -> Page:
    return Page(render_gallery(export).decode())


def boxes(drawn: Map, *, small_screen: bool) -> list[tuple[float, float, float, float]]:
    """Half sizes and centres of the numbers, in units of the drawing, as style.css sets them."""
    size = 36 if small_screen else 19
    return [
        (0.31 * size * len(number.text), 0.4 * size, number.x, number.y)
        for number in drawn.numbers
        if not (small_screen and number.small)
    ]


@pytest.mark.parametrize("spread", [0.02, 1.0, 30.0])
def test_no_number_on_the_map_covers_another(spread: float) -> None:
    rng = np.random.default_rng(3)
    order = [f"c{n}" for n in range(150)]
    pictures = [
        (name, "a.jpg", *(middle + rng.normal(size=2)).tolist())
        for name, middle in zip(order, rng.normal(size=(150, 2)) * spread, strict=True)
        for _ in range(6)
    ]
    drawn = draw_map(pictures, order=order, most=3000)
    assert drawn is not None
    assert [number.text for number in drawn.numbers[:1]] == ["1"], "the largest has one always"
    assert len({number.text for number in drawn.numbers}) == len(drawn.numbers) <= MOST_NUMBERS
    assert len(drawn.numbers) >= (20 if spread > 1 else 2)
    for small_screen in (False, True):
        placed = boxes(drawn, small_screen=small_screen)
        for n, (w, h, x, y) in enumerate(placed):
            for w2, h2, x2, y2 in placed[:n]:
                assert abs(x - x2) >= w + w2 or abs(y - y2) >= h + h2
    assert any(number.small for number in drawn.numbers)


def test_clusters_without_a_number_are_in_the_legend_too() -> None:
    page = page_of(made_up(sizes=(2,) * 75))
    assert "15 more clusters" in page.text
    links = page.values("href")
    assert all(links.count(f"#c{n:04}") >= 3 for n in range(1, 76)), "card, points, legend"


def test_the_page_tells_what_became_of_every_file() -> None:
    page = page_of(made_up())
    assert "18 files seen = 12 clustered 2 outliers 2 duplicates 2 rejected" in page.text
    for part in ("Title 1", "phrase of 2", "description of 3", "Snow", "bad 1.txt",
                 "which is not read here", "copy 0 of it.jpg", "holiday-20260101"):  # fmt: skip
        assert part in page.text


def test_one_of_a_kind_is_told_in_the_singular() -> None:
    text = page_of(made_up(sizes=(1,), outliers=1, duplicates=1, rejected=1)).text
    assert "4 files seen = 1 clustered 1 outlier 1 duplicate 1 rejected" in text
    assert "1 picture in 1 cluster" in text


def test_every_link_leads_somewhere_and_ids_are_unique() -> None:
    page = page_of(made_up())
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    inner = {href[1:] for href in page.values("href") if href.startswith("#")}
    assert inner <= set(ids)
    assert {"c0001", "c0002", "c0003", "outliers"} <= inner
    files = {href for href in page.values("href") if not href.startswith(("#", "data:"))}
    assert files == {"assignments.csv", "clusters.json", "run.json", "images.jsonl",
                     "embeddings.npy", "search/summary.json"}  # fmt: skip


def test_nothing_comes_from_elsewhere_and_no_script_is_there() -> None:
    page = page_of(made_up())
    assert not {"script", "iframe", "object", "embed", "form"} & {tag for tag, _ in page.tags}
    assert all(src.startswith("thumbnails/") for src in page.values("src"))
    assert not [name for _, attributes in page.tags for name in attributes if name[:2] == "on"]


def test_exemplars_come_first() -> None:
    page = page_of(made_up(sizes=(5,), outliers=0))
    shown = [a["src"] for a in page.all("img") if a["alt"]]
    assert shown[:3] == [f"thumbnails/{image_id(n)}.webp" for n in (1, 0, 2)]
    assert len(shown) == 5


def test_headings_go_down_one_level_at_a_time() -> None:
    levels = [int(tag[1]) for tag, _ in page_of(made_up()).tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


HOSTILE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'-alert(1)-'",
    "</title></style><svg onload=alert(1)>", "{{ 7 * 7 }}{% raw %}", "javascript:alert(1)",
    "&lt;b&gt;", "]]><!--", "rtl-\u202egpj.jpg",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_only_text(name: str) -> None:
    plain = [tag for tag, _ in page_of(hostile("plain name")).tags]
    page = page_of(hostile(name))
    assert [tag for tag, _ in page.tags] == plain
    assert name.replace("  ", " ") in page.text
    assert not [n for _, attributes in page.tags for n in attributes if n.startswith("on")]


def hostile(name: str) -> Export:
    """A run in which every text that comes from outside is ``name``."""
    export = made_up()
    result: dict[str, Any] = export.result | {
        "search": [
            {"method": name, "settings": {name: name}, "clusters": 3, "metrics": {}},
            {"method": name, "settings": {}, "clusters": 0, "metrics": {}, "error": name},
        ],
        "misplaced": [0, 6],
        "map_method": name,
    }
    return replace(
        export,
        outcomes=tuple(
            replace(o, path=f"{name}{n}", duplicate_of=o.duplicate_of and name,
                    reason=o.reason and name)
            for n, o in enumerate(export.outcomes)
        ),
        clusters=tuple(
            {**c, "title": name, "phrase": name, "description": name, "labels": [name]}
            for c in export.clusters
        ),
        result=result,
        record=export.record
        | {
            "collection": name,
            "method": name,
            "models": dict.fromkeys(export.record["models"], name),
        },
    )  # fmt: skip


def test_the_answers_of_several_describers_stand_beside_the_one_shown() -> None:
    export = made_up()
    said = {"title": "Couches", "phrase": "a <b>phrase</b>", "description": "d"}
    answers = [{**said, "described_by": "haiku"}, {**said, "described_by": "nova"}]
    clusters = ({**export.clusters[0], "answers": answers}, *export.clusters[1:])
    html = render_gallery(replace(export, clusters=clusters)).decode()
    assert html.count("What each describer said") == 1
    assert "<dt>haiku</dt>" in html
    assert "<dt>nova</dt>" in html
    assert "<b>phrase" not in html
    assert "What each describer said" not in render_gallery(export).decode()


def test_misplaced_pictures_say_where_they_would_fit() -> None:
    export = made_up()
    vectors = export.vectors.copy()
    vectors[:5], vectors[5:9], vectors[9:12] = [1] + 7 * [0], [0, 1] + 6 * [0], 3 * [0] + 5 * [1]
    vectors[1] = [0.1, 1, 0, 0, 0, 0, 0, 0]
    page = page_of(replace(export, vectors=vectors, result=export.result | {"misplaced": [1]}))
    assert "in Title 1, nearer to Title 2" in page.text


# --- degenerate runs


@pytest.mark.parametrize(
    "export",
    [
        made_up(sizes=(), outliers=3, duplicates=0, changes={"curves": {}, "search": []}),
        made_up(sizes=(1,), outliers=0, duplicates=0, rejected=0),
        made_up(sizes=(1, 1), outliers=0),
        made_up(sizes=(4, 2), changes={"curves": {"k": [1.0], "inertia": [1.0]}, "merges": []}),
    ],
    ids=["no cluster", "one picture", "two pictures", "hardly a curve"],
)
def test_small_runs_have_a_page(export: Export) -> None:
    assert "About this run" in page_of(export).text


def test_what_was_not_measured_is_a_dash() -> None:
    export = made_up()
    clusters = tuple({**c, "silhouette": float("nan")} for c in export.clusters)
    assert "Silhouette–" in page_of(replace(export, clusters=clusters)).text


# --- large runs


def test_fifty_thousand_pictures_make_a_page_below_five_megabytes() -> None:
    export = made_up(
        (2400,) * 20 + (10,) * 100, outliers=1000, duplicates=2000, rejected=2000,
        folder="2019/a folder of holiday pictures",
        changes={"misplaced": list(range(0, 48_000, 50))},
    )  # fmt: skip
    html = render_gallery(export)
    assert len(html) < 5_000_000
    page = Page(html.decode())
    assert len([a for a in page.all("img") if a["alt"]]) < MOST_PICTURES + 500
    assert len(page.all("circle")) - 6 == MOST_POINTS
    assert "sample of 3,000 of 50,000 pictures" in page.text
    hidden = [int(n.replace(",", "")) for n in re.findall(r"([\d,]+) pictures of this", page.text)]
    assert len(hidden) == 20
    assert "1,700 more are in assignments.csv" in page.text
    assert len(re.findall("10 pictures", page.text)) >= 100


def test_thousands_of_clusters_are_listed_and_linked() -> None:
    export = made_up((2,) * 5000, outliers=0)
    html = render_gallery(export)
    assert len(html) < 5_000_000
    page = Page(html.decode())
    assert "4,600 smaller clusters" in page.text
    assert "600 more are in clusters.json" in page.text
    assert {href[1:] for href in page.values("href") if href[0] == "#"} <= set(page.values("id"))


def test_small_clusters_are_shown_whole_and_large_ones_share_the_rest() -> None:
    assert fair_share([1, 2, 100, 100], 53) == 25
    assert fair_share([3, 3], 100) == 4
    assert fair_share([10, 20], 100) == 20
    assert fair_share([], 100) == 4
    assert fair_share([9] * 1000, 100) == 4


# --- drawings and the hierarchy


def test_the_map_keeps_one_scale_and_stays_inside() -> None:
    pictures = [("c1", "a", 0.0, 0.0), ("c1", "b", 2.0, 0.0), ("", "c", 0.0, 1.0)]
    drawn = draw_map(pictures, order=["c1"], most=10)
    assert drawn is not None
    assert [group.cluster_id for group in drawn.groups] == ["", "c1"]
    (c,), (a, b) = (group.points for group in drawn.groups)
    assert b.x - a.x == pytest.approx(2 * (a.y - c.y), abs=0.3)
    assert all(0 < p.x < 1000 and 0 < p.y < drawn.height for p in (a, b, c))


def test_a_map_without_places_is_not_drawn() -> None:
    assert draw_map([], order=[], most=5) is None
    assert draw_map([("c1", "a", 1.0, 1.0)] * 4, order=["c1"], most=5) is None
    assert draw_map([("c1", "a", float("nan"), 1.0)] * 2, order=["c1"], most=5) is None


def test_a_curve_marks_its_choice_and_says_it_in_words() -> None:
    curve = draw_curve("Gap", "", [2.0, 4.0, 8.0], [1.0, 3.0, 2.0], chosen=4.0)
    assert curve is not None
    assert curve.chosen is not None
    assert curve.chosen.text == "4"
    assert curve.summary == (
        "Gap from 1 at 2 clusters to 2 at 8, highest 3 at 4; it speaks for 4 clusters"
    )
    assert draw_curve("Gap", "", [2.0], [1.0], chosen=None) is None


def leaves(branch: Branch) -> list[int]:
    return [*branch.leaves, *(leaf for child in branch.branches for leaf in leaves(child))]


@pytest.mark.parametrize("clusters", [2, 3, 8, 200])
def test_every_cluster_is_once_in_the_hierarchy(clusters: int) -> None:
    (tree,) = build_hierarchy(chain((2,) * clusters), clusters, deepest=5)
    assert sorted(leaves(tree)) == list(range(clusters))
    assert tree.size == 2 * clusters
    depth, at = 1, tree
    while at.branches:
        depth, at = depth + 1, at.branches[0]
    assert depth == min(5, clusters - 1)


def test_merges_that_make_no_tree_are_left_out() -> None:
    broken = [{"left": 0, "right": 0, "height": 1.0, "size": 2}]
    assert build_hierarchy(broken, 2, deepest=3) == ()
    assert build_hierarchy([], 3, deepest=3) == ()
