"""The page of a run: picks what is shown, in bounded amounts, and renders the template.

The page holds at most about ``MOST_PICTURES`` pictures of clusters and ``MOST_POINTS`` points, so
that it stays usable for 50,000 images; what it leaves out it counts, and points to the files that
have everything.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from imageclust.descriptions.words import plural
from imageclust.gallery.drawings import (
    CURVE_HEIGHT,
    CURVE_WIDTH,
    MAP_WIDTH,
    MOST_NUMBERS,
    Curve,
    Map,
    draw_curve,
    draw_map,
)
from imageclust.gallery.export import Export
from imageclust.gallery.hierarchy import Branch, build_hierarchy
from imageclust.models import JSON, Outcome

MOST_PICTURES = 3_000
MOST_POINTS = 3_000
MOST_CLUSTERS = 400
"""Clusters shown with pictures; the smaller ones are listed by name."""

MOST_LISTED = 4_000
MOST_OTHERS = 300
MOST_MISPLACED = 60
_MOST_COPIES = 8
_MOST_NAME = 240
_DEEPEST = 7
_TOP = 10

_METHODS = {
    "ward": "Ward", "kmeans": "K-Means", "gmm": "Gaussian mixture", "dbscan": "DBSCAN",
    "hdbscan": "HDBSCAN",
}  # fmt: skip
_MAPS = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
_CURVES = (
    ("Silhouette", "silhouette", "Higher is better: how much nearer pictures are to their own "
     "cluster than to the next."),
    ("Gap", "gap", "Higher is better: how much tighter the clusters are than those of pictures "
     "scattered at random."),
    ("Inertia", "inertia", "Always falls; the elbow, where more clusters stop helping, is what "
     "counts."),
)  # fmt: skip
_CHOICES = {"silhouette": "silhouette_k", "gap": "gap_k", "inertia": "elbow_k"}


@dataclass(frozen=True)
class ClusterCard:
    """One cluster as the page shows it: exemplars, then more members, then only a count."""

    number: int
    facts: JSON
    hue: int
    exemplars: tuple[Outcome, ...]
    more: tuple[Outcome, ...]
    hidden: int

    @property
    def id(self) -> str:
        return str(self.facts["cluster_id"])

    @property
    def title(self) -> str:
        return str(self.facts["title"])

    @property
    def size(self) -> int:
        return int(self.facts["size"])


@dataclass(frozen=True)
class Listing:
    """A bounded list: what is shown of ``total``."""

    shown: tuple[Any, ...]
    total: int

    @property
    def hidden(self) -> int:
        return self.total - len(self.shown)


@dataclass(frozen=True)
class Copies:
    """Files that hold the same picture as ``original``; ``image_ids`` are up to three of them."""

    image_ids: tuple[str, ...]
    original: str
    cluster_id: str
    names: tuple[str, ...]
    total: int


@dataclass(frozen=True)
class Misplaced:
    """A picture that lies nearer to the centre of another cluster than to its own."""

    outcome: Outcome
    nearer: ClusterCard | None


@dataclass(frozen=True)
class SearchTable:
    """The best settings that were tried, and those that failed."""

    best: tuple[JSON, ...]
    failed: tuple[JSON, ...]
    tried: int
    skipped: int
    won: int | None


def render_gallery(export: Export) -> bytes:
    """One HTML page (UTF-8). File names and labels are escaped, and no script can run in it."""
    outcomes = [o for o in export.outcomes if not export.flagged(o.image_id)]
    by_status: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_status.setdefault(outcome.status, []).append(outcome)
    held_back = len(export.outcomes) - len(outcomes)
    cards = _cards(export, by_status.get("clustered", []))
    outliers = sorted(by_status.get("outlier", []), key=lambda outcome: outcome.rank or 0)
    rejected = sorted(by_status.get("rejected", []), key=lambda outcome: outcome.path)
    text = _templates().get_template("index.html.j2").render(
        record=export.record,
        held_back=held_back,
        counts=export.record["counts"],
        captions=export.captions,
        cards=cards[:MOST_CLUSTERS],
        listed=Listing(tuple(cards[MOST_CLUSTERS : MOST_CLUSTERS + MOST_LISTED]),
                       max(0, len(cards) - MOST_CLUSTERS)),
        by_id={card.id: card for card in cards},
        named={card.id for card in cards[: MOST_CLUSTERS + MOST_LISTED]},
        map=_map(export, cards),
        map_width=MAP_WIDTH,
        most_numbers=MOST_NUMBERS,
        map_method=_MAPS.get(export.result["map_method"], export.result["map_method"]),
        hierarchy=_hierarchy(export, cards),
        all_cards=cards,
        misplaced=_misplaced(export, cards, by_status.get("clustered", [])),
        outliers=Listing(tuple(outliers[:MOST_OTHERS]), len(outliers)),
        duplicates=_duplicates(
            by_status.get("duplicate", []), {o.path: o.image_id for o in outcomes}
        ),
        similar=(export.record.get("duplicates") or {}).get("policy") == "confirmed",
        rejected=Listing(tuple(rejected[:MOST_OTHERS]), len(rejected)),
        reasons=Counter(outcome.reason for outcome in rejected).most_common(8),
        search=_search(export.result),
        curves=_curves(export.result.get("curves") or {}),
        curve_size=(CURVE_WIDTH, CURVE_HEIGHT),
    )  # fmt: skip
    # A name that is not Unicode has no character to show; assignments.csv keeps its bytes.
    return text.encode(errors="replace")


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("imageclust", "gallery"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        number=lambda value: f"{value:,}",
        figure=_figure,
        noun=lambda number, noun: noun if number == 1 else plural(noun),
        settings=_settings,
        method=lambda name: _METHODS.get(name, name),
        short=_short_name,
        base=lambda path: _short_name(path.rsplit("/", 1)[-1]),
    )
    return made


def _figure(value: float | None, digits: int = 3) -> str:
    """A measure as text; a dash where nothing was or could be measured."""
    if value is None or not np.isfinite(value):
        return "–"
    return f"{value:.{digits}f}"


def _settings(settings: JSON) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items())


def _short_name(path: str) -> str:
    """A path as text of bounded length: its beginning and its end."""
    if len(path) <= _MOST_NAME:
        return path
    return f"{path[: _MOST_NAME // 2]}…{path[-_MOST_NAME // 2 :]}"


def _cards(export: Export, members: list[Outcome]) -> list[ClusterCard]:
    """The clusters with their pictures: exemplars first, the rest by rank."""
    by_cluster: dict[str, list[Outcome]] = {}
    for outcome in members:
        by_cluster.setdefault(outcome.cluster_id, []).append(outcome)
    sizes = [len(by_cluster.get(c["cluster_id"], ())) for c in export.clusters]
    each = fair_share(sizes[:MOST_CLUSTERS], MOST_PICTURES)
    cards = []
    for number, cluster in enumerate(export.clusters):
        mine = sorted(by_cluster.get(cluster["cluster_id"], ()), key=lambda o: o.rank or 0)
        found = {outcome.image_id: outcome for outcome in mine}
        first = [found.pop(i) for i in cluster["exemplars"] if i in found] or mine[:1]
        chosen = {outcome.image_id for outcome in first}
        rest = [outcome for outcome in mine if outcome.image_id not in chosen]
        more = rest[: max(0, each - len(first))]
        cards.append(
            ClusterCard(
                number=number + 1,
                facts=cluster,
                hue=_hue(number),
                exemplars=tuple(first[:each]),
                more=tuple(more),
                hidden=len(mine) - len(first[:each]) - len(more),
            )
        )
    return cards


def fair_share(sizes: Sequence[int], total: int) -> int:
    """The largest limit a cluster (at least 4) with which all clusters together stay in ``total``.

    Small clusters are shown whole, so what they leave goes to the large ones.
    """
    left, ordered = total, sorted(sizes)
    for place, size in enumerate(ordered):
        share = left // (len(ordered) - place)
        if size > share:
            return max(4, share)
        left -= size
    return max(4, ordered[-1]) if ordered else 4


def _hue(number: int) -> int:
    """Hue in degrees: neighbours in the list differ by the golden angle."""
    return round(255 + number * 137.508) % 360


def _map(export: Export, cards: list[ClusterCard]) -> Map | None:
    paths: dict[str, str] = {}
    for outcome in export.outcomes:
        if outcome.status in ("clustered", "outlier") and not export.flagged(outcome.image_id):
            paths[outcome.image_id] = outcome.path
    pictures = []
    for image_id in export.image_ids:
        place = export.places.get(image_id, {})
        if "map" in place and image_id in paths:
            x, y = place["map"]
            pictures.append((place.get("cluster_id") or "", paths[image_id], x, y))
    return draw_map(pictures, order=[card.id for card in cards], most=MOST_POINTS)


def _hierarchy(export: Export, cards: list[ClusterCard]) -> tuple[Branch, ...]:
    merges = export.result.get("merges") or ()
    if len(cards) < 3 or len(cards) > MOST_CLUSTERS:
        return ()
    return build_hierarchy(merges, len(cards), deepest=_DEEPEST)


def _misplaced(export: Export, cards: list[ClusterCard], members: list[Outcome]) -> Listing:
    """Pictures that the clustering calls misplaced, worst first, and where they would fit."""
    ids, rows = export.image_ids, export.result.get("misplaced") or []
    by_image = {outcome.image_id: outcome for outcome in members}
    rows = [row for row in rows if 0 <= row < len(ids) and ids[row] in by_image]
    shown = rows[:MOST_MISPLACED]
    nearer = _nearest_other(export, shown, len(cards))
    return Listing(
        tuple(
            Misplaced(by_image[ids[row]], cards[other] if other is not None else None)
            for row, other in zip(shown, nearer, strict=True)
        ),
        len(rows),
    )


def _nearest_other(export: Export, rows: list[int], clusters: int) -> list[int | None]:
    """For each row, the cluster other than its own whose centre is nearest (by cosine)."""
    labels = np.asarray(export.result.get("labels", ()), dtype=np.int64)
    if not rows or clusters < 2 or len(labels) != len(export.vectors):
        return [None] * len(rows)
    sums = np.zeros((clusters, export.vectors.shape[1]), dtype=np.float64)
    for cluster in range(clusters):
        sums[cluster] = export.vectors[labels == cluster].sum(axis=0, dtype=np.float64)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    cosines = export.vectors[rows] @ (sums / np.where(lengths > 0, lengths, 1)).T
    for place, row in enumerate(rows):
        if labels[row] >= 0:
            cosines[place, labels[row]] = -np.inf
    return [int(other) for other in cosines.argmax(axis=1)]


def _duplicates(duplicates: Iterable[Outcome], images: dict[str, str]) -> Listing:
    """Copies grouped by what they duplicate, in order of path. ``images``: path → image id."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in sorted(duplicates, key=lambda outcome: (outcome.duplicate_of, outcome.path)):
        groups.setdefault(outcome.duplicate_of, []).append(outcome)
    shown = []
    for original, copies in list(groups.items())[:MOST_OTHERS]:
        contents = [images[original]] if original in images else []
        contents += [outcome.image_id for outcome in copies]
        shown.append(
            Copies(
                image_ids=tuple(dict.fromkeys(contents))[:3],
                original=original,
                cluster_id=copies[0].cluster_id,
                names=tuple(outcome.path for outcome in copies[:_MOST_COPIES]),
                total=len(copies),
            )
        )
    return Listing(tuple(shown), len(groups))


def _search(result: JSON) -> SearchTable:
    entries = result.get("search") or []
    best = tuple(entry for entry in entries if not entry.get("error"))[:_TOP]
    won = [
        place
        for place, entry in enumerate(best)
        if (entry["method"], entry["settings"]) == (result["method"], result["settings"])
    ]
    return SearchTable(
        best=best,
        failed=tuple(entry for entry in entries if entry.get("error"))[:_TOP],
        tried=int(result.get("tried") or len(entries)),
        skipped=int(result.get("skipped") or 0),
        won=won[0] if won else None,
    )


def _curves(curves: dict[str, list[float]]) -> list[Curve]:
    drawn = []
    for title, name, caption in _CURVES:
        chosen = next(iter(curves.get(_CHOICES[name]) or ()), None)
        curve = draw_curve(
            title, caption, curves.get("k") or (), curves.get(name) or (), chosen=chosen
        )
        if curve:
            drawn.append(curve)
    return drawn
