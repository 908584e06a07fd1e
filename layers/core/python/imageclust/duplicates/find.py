"""Groups of confirmed copies, a keeper for each, and the look-alikes that are not copies."""

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from imageclust.duplicates.candidates import Pairs, cosine_pairs, hash_pairs
from imageclust.duplicates.verify import NO_MATCH, Match, align, coarse_view, compare, fine_view
from imageclust.errors import InvalidInput

Thumbnail = Callable[[int], NDArray[np.uint8] | None]

_FINE_VIEWS_KEPT = 256  # 192 KB each


@dataclass(frozen=True)
class Thresholds:
    """When a pair is looked at, when it is a copy, and when it is worth reporting.

    ``cosine``: vectors this close are compared pixel by pixel. ``aligned``: least correlation of
    the coarse alignment to go on. ``structure``, ``worst``, ``overlap``, ``contained``,
    ``colour``: see ``verify.Match``; all must be reached by a copy. ``clash`` and ``hues`` are the
    most that it may have; with less ``detail`` or more ``repeats`` than these it must be exact.
    ``member_…``: what a member reached through other copies must show against the keeper itself.
    ``similar``: cosine of a look-alike. ``pairs_an_image``: most pairs compared for each image.
    """

    cosine: float = 0.80
    aligned: float = 0.80
    structure: float = 0.93
    worst: float = 0.85
    overlap: float = 0.6
    contained: float = 0.85
    colour: float = 0.75
    clash: float = 0.01
    hues: float = 0.006
    detail: float = 8.0
    repeats: float = 0.8
    member_structure: float = 0.85
    member_worst: float = 0.60
    member_clash: float = 0.03
    member_overlap: float = 0.45
    similar: float = 0.85
    pairs_an_image: int = 8

    @classmethod
    def for_size(cls, n: int) -> "Thresholds":
        """Thresholds for a collection of ``n`` images.

        Strangers meet n² times, copies only n times, so the bar rises with size: from 1,000
        images on, each tenfold adds .04 to the cosine (which keeps the look-alikes an image about
        level on photos of rooms) and .01 to the structure.
        """
        tens = min(3.0, max(0.0, math.log10(max(n, 1) / 1000)))
        return cls(
            cosine=0.80 + 0.04 * tens,
            structure=0.93 + 0.01 * tens,
            worst=0.85 + 0.01 * tens,
            similar=max(0.85, 0.82 + 0.04 * tens),
        )


@dataclass(frozen=True, eq=False)
class Pictures:
    """What is known of n pictures, row by row.

    Args:
        phashes: (n,) uint64; 0 for a picture without structure.
        vectors: (n, d) float, any length; d may be 0.
        pixels: (n,) width times height of the originals.
        sharpness: (n,) any measure that grows with sharpness.
        taken_at: (n,) capture time or None. Two shots with different times are a burst, never
            copies of each other.
    """

    phashes: NDArray[np.uint64]
    vectors: NDArray[np.floating]
    pixels: NDArray[np.int64] | None = None
    sharpness: NDArray[np.floating] | None = None
    taken_at: Sequence[str | None] | None = None


@dataclass(frozen=True)
class DuplicateReport:
    """Rows that are copies of each other, and rows that only look alike.

    ``groups`` are ascending tuples of two rows or more, no row twice, in order of their first
    row; ``keepers`` holds the row to keep of each. ``similar`` are (a, b, cosine) with a < b, the
    likest first. ``compared`` counts the pairs compared pixel by pixel; ``cosine_floor`` is the
    cosine from which all pairs were.
    """

    groups: tuple[tuple[int, ...], ...] = ()
    keepers: tuple[int, ...] = ()
    similar: tuple[tuple[int, int, float], ...] = ()
    compared: int = 0
    cosine_floor: float = 1.0

    def duplicate_of(self) -> dict[int, int]:
        """Row → row of its keeper, for every row that is not kept."""
        return {
            row: keeper
            for group, keeper in zip(self.groups, self.keepers, strict=True)
            for row in group
            if row != keeper
        }


def find_duplicates(
    pictures: Pictures,
    thumbnail: Thumbnail,
    *,
    keep: Collection[int] = (),
    thresholds: Thresholds | None = None,
) -> DuplicateReport:
    """Find confirmed copies and look-alikes.

    Args:
        pictures: hashes, vectors and quality of n pictures.
        thumbnail: row → (h, w, 3) RGB or (h, w) grey uint8, the whole picture, 128 pixels or
            more a side where there are as many; None if there is none, which confirms nothing.
            Called only for rows that are in question, once or twice each.
        keep: rows to keep whatever their quality, if they turn out to have copies.
        thresholds: default ``Thresholds.for_size(n)``.

    The answer does not depend on the order of the rows. Raises InvalidInput.
    """
    n = len(pictures.phashes)
    if pictures.vectors.ndim != 2 or len(pictures.vectors) != n:
        raise InvalidInput(f"{n} hashes but vectors of shape {pictures.vectors.shape}")
    for name in ("pixels", "sharpness", "taken_at"):
        values = getattr(pictures, name)
        if values is not None and len(values) != n:
            raise InvalidInput(f"{n} hashes but {len(values)} values of {name}")
    if any(not 0 <= row < n for row in keep):
        raise InvalidInput(f"rows to keep must lie between 0 and {n - 1}")
    limits = Thresholds.for_size(n) if thresholds is None else thresholds
    if n < 2:
        return DuplicateReport(cosine_floor=limits.cosine)
    return _Search(pictures, thumbnail, frozenset(keep), limits).run()


class _Search:
    """One search. All work is on places in a canonical order, so the input's order is no matter."""

    def __init__(
        self, pictures: Pictures, thumbnail: Thumbnail, keep: frozenset[int], limits: Thresholds
    ) -> None:
        n = len(pictures.phashes)
        pixels = np.zeros(n, np.int64) if pictures.pixels is None else pictures.pixels
        sharp = np.zeros(n) if pictures.sharpness is None else pictures.sharpness
        taken = [None] * n if pictures.taken_at is None else list(pictures.taken_at)
        self.order = sorted(
            range(n),
            key=lambda row: (
                int(pictures.phashes[row]),
                hashlib.blake2b(pictures.vectors[row].tobytes(), digest_size=8).digest(),
                int(pixels[row]),
                float(sharp[row]),
                taken[row] or "",
            ),
        )
        self.phashes = np.asarray(pictures.phashes, dtype=np.uint64)[self.order]
        self.vectors = _unit_rows(pictures.vectors, self.order)
        self.pixels = np.asarray(pixels)[self.order]
        self.sharpness = np.asarray(sharp, dtype=np.float64)[self.order]
        self.taken = [taken[row] for row in self.order]
        self.keep = {place for place, row in enumerate(self.order) if row in keep}
        self.thumbnail = thumbnail
        self.limits = limits
        self.members = replace(
            limits,
            structure=limits.member_structure,
            worst=limits.member_worst,
            clash=limits.member_clash,
            overlap=limits.member_overlap,
        )
        self.coarse: dict[int, NDArray[np.float32] | None] = {}
        self.fine = lru_cache(_FINE_VIEWS_KEPT)(self._fine_view)
        self.match = lru_cache(None)(self._match)

    def run(self) -> DuplicateReport:
        n = len(self.order)
        budget = max(10_000, self.limits.pairs_an_image * n)
        near, _, floor = cosine_pairs(self.vectors, floor=self.limits.cosine, budget=budget)
        alike = hash_pairs(self.phashes, budget=budget)
        pairs = np.unique(np.concatenate([near, alike]), axis=0)
        copies, others = self._sort_out(pairs)
        groups: list[tuple[list[int], int]] = []
        for component in _components(copies):
            groups += self._around_keepers(component)
        group_of = {place: number for number, (group, _) in enumerate(groups) for place in group}
        return self._report(groups, [p for p in others if not _together(p, group_of)], pairs, floor)

    def _sort_out(self, pairs: Pairs) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Pairs that are copies, and the others that are worth reporting."""
        limits = self.limits
        copies, others = [], []
        for a, b in pairs.tolist():
            match, aligned = self.match(a, b)
            copy = self._is_copy(match)
            if copy and not self._burst(a, b):
                copies.append((a, b))
            elif copy or aligned >= 0.9 or self._cosine(a, b) >= limits.similar:
                others.append((a, b))
        return copies, others

    def _around_keepers(self, component: Iterable[int]) -> list[tuple[list[int], int]]:
        """Split a chain of copies into groups whose every member is a copy of the keeper.

        Frames of a slow pan are each a copy of the next, and the last is nothing like the first.
        """
        left = sorted(component)
        groups = []
        while len(left) > 1:
            keeper = self._best(left)
            members, rest = [keeper], list[int]()
            for place in left:
                if place == keeper:
                    continue
                match, _ = self.match(min(place, keeper), max(place, keeper))
                same = self._is_copy(match, self.members)
                (members if same and not self._burst(place, keeper) else rest).append(place)
            if len(members) > 1:
                groups.append((members, keeper))
            left = rest
        return groups

    def _is_copy(self, match: Match, limits: Thresholds | None = None) -> bool:
        limits = limits or self.limits
        tells = match.detail >= limits.detail and match.repeats <= limits.repeats
        return (
            match.structure >= limits.structure
            and match.worst >= limits.worst
            and match.overlap >= limits.overlap
            and match.contained >= limits.contained
            and match.colour >= limits.colour
            and match.clash <= limits.clash
            and match.hues <= limits.hues
            and (tells or match.exact)
        )

    def _best(self, places: Sequence[int]) -> int:
        """The user's choice, else the sharpest of those within a tenth of the most pixels."""
        chosen = [place for place in places if place in self.keep]
        most = max(self.pixels[place] for place in places)
        large = chosen or [place for place in places if self.pixels[place] >= 0.9 * most]
        return min(large, key=lambda place: (-self.sharpness[place], -self.pixels[place], place))

    def _match(self, a: int, b: int) -> tuple[Match, float]:
        first, second = self._coarse_view(a), self._coarse_view(b)
        if first is None or second is None:
            return NO_MATCH, 0.0
        alignment = align(first, second)
        if alignment.score < self.limits.aligned:
            return NO_MATCH, alignment.score
        fine_a, fine_b = self.fine(a), self.fine(b)
        if fine_a is None or fine_b is None:
            return NO_MATCH, alignment.score
        return compare(fine_a, fine_b, alignment), alignment.score

    def _coarse_view(self, place: int) -> NDArray[np.float32] | None:
        if place not in self.coarse:
            image = self.thumbnail(self.order[place])
            self.coarse[place] = None if image is None else coarse_view(image)
        return self.coarse[place]

    def _fine_view(self, place: int) -> NDArray[np.uint8] | None:
        image = self.thumbnail(self.order[place])
        return None if image is None else fine_view(image)

    def _burst(self, a: int, b: int) -> bool:
        first, second = self.taken[a], self.taken[b]
        return bool(first and second and first != second)

    def _cosine(self, a: int, b: int) -> float:
        return float(self.vectors[a] @ self.vectors[b])

    def _report(
        self,
        groups: list[tuple[list[int], int]],
        similar: list[tuple[int, int]],
        pairs: Pairs,
        floor: float,
    ) -> DuplicateReport:
        row = self.order
        numbered = sorted(
            (tuple(sorted(row[place] for place in group)), row[keeper]) for group, keeper in groups
        )
        reported = [
            (min(row[a], row[b]), max(row[a], row[b]), round(self._cosine(a, b), 4))
            for a, b in similar
        ]
        return DuplicateReport(
            groups=tuple(group for group, _ in numbered),
            keepers=tuple(keeper for _, keeper in numbered),
            similar=tuple(sorted(reported, key=lambda item: (-item[2], item[0], item[1]))),
            compared=len(pairs),
            cosine_floor=floor,
        )


def _unit_rows(vectors: NDArray[np.floating], order: Sequence[int]) -> NDArray[np.float32]:
    """The rows in this order, of length 1; those that are zero or not finite become zero.

    In pieces, so that one copy of the vectors is all the memory it takes.
    """
    unit = np.empty(vectors.shape, np.float32)
    for start in range(0, len(unit), 4096):
        piece = unit[start : start + 4096]
        piece[...] = vectors[order[start : start + 4096]]
        piece[~np.all(np.isfinite(piece), axis=1)] = 0
        length = np.linalg.norm(piece, axis=1, keepdims=True)
        piece /= np.where(length > 0, length, 1)
    return unit


def _components(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    parent: dict[int, int] = {}

    def root(place: int) -> int:
        parent.setdefault(place, place)
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for a, b in pairs:
        first, second = root(a), root(b)
        parent[max(first, second)] = min(first, second)
    members: dict[int, list[int]] = {}
    for place in sorted(parent):
        members.setdefault(root(place), []).append(place)
    return list(members.values())


def _together(pair: tuple[int, int], group_of: dict[int, int]) -> bool:
    first = group_of.get(pair[0])
    return first is not None and first == group_of.get(pair[1])
