"""Geometry of the page's drawings: the map of the pictures and the curves over k."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

MAP_WIDTH = 1000
_MAP_HEIGHTS = (460, 720)
_MARGIN = 36
MOST_NUMBERS = 60
# A digit's width and a number's height in units of the drawing, as style.css sets them, with some
# room for the points between.
_DIGIT, _LINE = 16.0, 26.0
_ON_A_PHONE = 36 / 19  # there numbers are so much larger, to be read at all
_TRIES = 12


@dataclass(frozen=True)
class Point:
    """A picture on the map, in the drawing's own units."""

    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Group:
    """The points of one cluster (outliers have no ``cluster_id`` and no number)."""

    cluster_id: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Number:
    """A cluster's number on one of its points; ``small``: too near to others for a small screen."""

    text: str
    x: float
    y: float
    small: bool


@dataclass(frozen=True)
class Map:
    """All points, grouped by cluster; ``shown`` of ``total`` pictures are drawn.

    No number covers another one: of the first ``MOST_NUMBERS`` clusters of the order, the later
    ones have none where there is no room.
    """

    height: int
    groups: tuple[Group, ...]
    numbers: tuple[Number, ...]
    shown: int
    total: int


def draw_map(
    pictures: Sequence[tuple[str, str, float, float]], *, order: Sequence[str], most: int
) -> Map | None:
    """Scale ``(cluster_id, title, x, y)`` to the drawing; None without two places to tell apart.

    Above ``most`` pictures every n-th is drawn, evenly over the sequence: with pictures in the
    order of their content hashes that is a random sample, and the same one each time. Both axes
    have one scale, because distances mean something and directions do not.
    """
    placed = [p for p in pictures if math.isfinite(p[2]) and math.isfinite(p[3])]
    if len({(x, y) for _, _, x, y in placed}) < 2:
        return None
    left, right = min(p[2] for p in placed), max(p[2] for p in placed)
    low, high = min(p[3] for p in placed), max(p[3] for p in placed)
    wide, tall = (right - left) or 1e-9, (high - low) or 1e-9
    inner = MAP_WIDTH - 2 * _MARGIN
    height = round(min(max(inner * tall / wide + 2 * _MARGIN, _MAP_HEIGHTS[0]), _MAP_HEIGHTS[1]))
    scale = min(inner / wide, (height - 2 * _MARGIN) / tall)
    shown = [placed[number * len(placed) // most] for number in range(most)]
    if len(placed) <= most:
        shown = placed
    points: dict[str, list[Point]] = {}
    for cluster_id, title, x, y in shown:
        points.setdefault(cluster_id, []).append(
            Point(
                x=round(MAP_WIDTH / 2 + (x - (left + right) / 2) * scale, 1),
                y=round(height / 2 - (y - (low + high) / 2) * scale, 1),
                title=title,
            )
        )
    groups = [Group(i, tuple(points[i])) for i in ("", *order) if i in points]
    first = enumerate(order[:MOST_NUMBERS], 1)
    numbered = [(str(number), points[i]) for number, i in first if i in points]
    return Map(
        height=height,
        groups=tuple(groups),
        numbers=_place_numbers(numbered),
        shown=len(shown),
        total=len(placed),
    )


def _place_numbers(numbered: Sequence[tuple[str, list[Point]]]) -> tuple[Number, ...]:
    """Each number in the middle of its points, else on one near to it, else nowhere."""
    numbers: list[Number] = []
    for text, points in numbered:
        x, y = median(point.x for point in points), median(point.y for point in points)
        near = sorted(points, key=lambda point: math.hypot(point.x - x, point.y - y))
        for at in ((x, y), *((point.x, point.y) for point in near[:_TRIES])):
            number = Number(text, round(at[0], 1), round(at[1], 1), small=False)
            if not any(_meet(number, other) for other in numbers):
                large = [other for other in numbers if not other.small]
                crowded = any(_meet(number, other, _ON_A_PHONE) for other in large)
                numbers.append(replace(number, small=crowded))
                break
    return tuple(numbers)


def _meet(one: Number, other: Number, scale: float = 1.0) -> bool:
    wide = scale * _DIGIT * (len(one.text) + len(other.text)) / 2
    return abs(one.x - other.x) < wide and abs(one.y - other.y) < scale * _LINE


CURVE_WIDTH, CURVE_HEIGHT = 340, 190
_CURVE_LEFT, _CURVE_RIGHT, _CURVE_TOP, _CURVE_BOTTOM = 46, 14, 14, 30


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where it is and what it says."""

    at: float
    text: str


@dataclass(frozen=True)
class Curve:
    """One measure over the number of clusters, and the number that it speaks for."""

    name: str
    caption: str
    line: str
    dots: tuple[tuple[float, float, str], ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    chosen: Tick | None
    summary: str


def draw_curve(
    name: str, caption: str, k: Sequence[float], values: Sequence[float], *, chosen: float | None
) -> Curve | None:
    """Draw ``values`` over ``k`` (log scale: the grid is geometric); None for under two points."""
    pairs = [(a, b) for a, b in zip(k, values, strict=False) if a > 0 and math.isfinite(b)]
    if len(pairs) < 2 or pairs[0][0] == pairs[-1][0]:
        return None
    first, last = math.log(pairs[0][0]), math.log(pairs[-1][0])
    low, high = min(b for _, b in pairs), max(b for _, b in pairs)
    spread = (high - low) or 1.0

    def across(clusters: float) -> float:
        share = (math.log(clusters) - first) / (last - first)
        return round(_CURVE_LEFT + share * (CURVE_WIDTH - _CURVE_LEFT - _CURVE_RIGHT), 1)

    def down(value: float) -> float:
        share = (high - value) / spread
        return round(_CURVE_TOP + share * (CURVE_HEIGHT - _CURVE_TOP - _CURVE_BOTTOM), 1)

    best = max(pairs, key=lambda pair: pair[1])
    mark = None
    if chosen is not None and pairs[0][0] <= chosen <= pairs[-1][0]:
        mark = Tick(across(chosen), f"{chosen:.0f}")
    ticks = [Tick(across(a), f"{a:.0f}") for a in (pairs[0][0], pairs[-1][0])]
    if mark:
        ticks = [tick for tick in ticks if abs(tick.at - mark.at) > 24]
    told = f"{name} from {_short(pairs[0][1])} at {pairs[0][0]:.0f} clusters to "
    told += f"{_short(pairs[-1][1])} at {pairs[-1][0]:.0f}"
    if name != "Inertia":
        told += f", highest {_short(best[1])} at {best[0]:.0f}"
    if mark:
        told += f"; it speaks for {mark.text} clusters"
    return Curve(
        name=name,
        caption=caption,
        line=" ".join(f"{across(a)},{down(b)}" for a, b in pairs),
        dots=tuple((across(a), down(b), f"{a:.0f} clusters: {_short(b)}") for a, b in pairs),
        x_ticks=tuple(ticks),
        y_ticks=(Tick(down(high), _short(high)), Tick(down(low), _short(low))),
        chosen=mark,
        summary=told,
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
