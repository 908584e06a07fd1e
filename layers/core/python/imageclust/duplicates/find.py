"""Groups of confirmed copies, a keeper for each, and the look-alikes that are not copies."""

import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from imageclust.duplicates.candidates import Pairs, cosine_pairs, hash_pairs
from imageclust.duplicates.thresholds import Thresholds
from imageclust.duplicates.verify import (
    NO_MATCH,
    Alignment,
    CoarseView,
    FineView,
    Match,
    align,
    coarse_view,
    compare,
    fine_view,
)
from imageclust.errors import InvalidInput

Thumbnail = Callable[[int], NDArray[np.uint8] | None]
Item = TypeVar("Item")
Made = TypeVar("Made")

_READERS = 32  # thumbnails come from a store: their time is mostly waiting
_READ_AHEAD = 64
_ALIGNED_AT_ONCE = 256
_LEAST_PAIRS = 4000  # compared, also in small collections
_FINE_VIEWS_KEPT = 128  # at most 0.8 MB each, with all that is derived


@dataclass(frozen=True, eq=False)
class Pictures:
    """What is known of n pictures, row by row.

    Args:
        phashes: (n,) uint64; 0 for a picture without structure.
        vectors: (n, d) float, any length; d may be 0.
        pixels: (n,) width times height of the originals.
        sharpness: (n,) any measure that grows with sharpness.
        sizes: (n,) bytes of the files; for one resolution, what compression left.
        taken_at: (n,) capture time or None. Two shots with different times are a burst, never
            copies of each other.
    """

    phashes: NDArray[np.uint64]
    vectors: NDArray[np.floating]
    pixels: NDArray[np.int64] | None = None
    sharpness: NDArray[np.floating] | None = None
    sizes: NDArray[np.int64] | None = None
    taken_at: Sequence[str | None] | None = None


@dataclass(frozen=True)
class DuplicateReport:
    """Rows that are copies of each other, and rows that only look alike.

    ``groups`` are ascending tuples of two rows or more, no row twice, in order of their first
    row; ``keepers`` holds the row to keep of each. ``similar`` are (a, b, cosine) with a < b, the
    likest first, of each row its few likest. ``compared`` counts the pairs compared pixel by
    pixel; ``cosine_floor`` is the cosine from which all pairs were.
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
            Called from many threads at once, ahead of need, and only for rows that are in
            question: mostly once each, again for those that pass the coarse look.
        keep: rows to keep whatever their quality, if they turn out to have copies.
        thresholds: default ``Thresholds.for_size(n)``.

    The answer does not depend on the order of the rows. Raises InvalidInput.
    """
    n = len(pictures.phashes)
    if pictures.vectors.ndim != 2 or len(pictures.vectors) != n:
        raise InvalidInput(f"{n} hashes but vectors of shape {pictures.vectors.shape}")
    for name in ("pixels", "sharpness", "sizes", "taken_at"):
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
        sizes = np.zeros(n, np.int64) if pictures.sizes is None else pictures.sizes
        taken = [None] * n if pictures.taken_at is None else list(pictures.taken_at)
        self.order = sorted(
            range(n),
            key=lambda row: (
                int(pictures.phashes[row]),
                hashlib.blake2b(pictures.vectors[row].tobytes(), digest_size=8).digest(),
                int(pixels[row]),
                float(sharp[row]),
                int(sizes[row]),
                taken[row] or "",
            ),
        )
        self.phashes = np.asarray(pictures.phashes, dtype=np.uint64)[self.order]
        self.vectors = _unit_rows(pictures.vectors, self.order)
        self.pixels = np.asarray(pixels)[self.order]
        self.sharpness = np.asarray(sharp, dtype=np.float64)[self.order]
        self.density = np.asarray(sizes)[self.order] / np.maximum(self.pixels, 1)
        self.taken = [taken[row] for row in self.order]
        self.keep = {place for place, row in enumerate(self.order) if row in keep}
        self.thumbnail = thumbnail
        self.limits = limits
        self.members = limits.of_members()
        self.coarse: dict[int, CoarseView | None] = {}
        self.matches: dict[tuple[int, int], Match] = {}

    def run(self) -> DuplicateReport:
        n = len(self.order)
        budget = max(_LEAST_PAIRS, self.limits.pairs_an_image * n)
        near, _, floor = cosine_pairs(self.vectors, floor=self.limits.cosine, budget=budget)
        alike = hash_pairs(self.phashes, radius=self.limits.hash_bits, budget=budget)
        pairs = np.unique(np.concatenate([near, alike]), axis=0)
        copies, others = self._sort_out(pairs)
        groups = self._around_keepers(_components(copies))
        group_of = {place: number for number, (group, _) in enumerate(groups) for place in group}
        return self._report(groups, [p for p in others if not _together(p, group_of)], pairs, floor)

    def _sort_out(self, pairs: Pairs) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Pairs that are copies, and the others that are worth reporting."""
        limits = self.limits
        copies, others = [], []
        aligned = self._look(pairs)
        for (a, b), score in zip(map(tuple, pairs.tolist()), aligned, strict=True):
            copy = self.matches.get((a, b), NO_MATCH).is_copy(limits)
            if copy and not self._burst(a, b):
                copies.append((a, b))
            elif copy or score >= 0.9 or self._cosine(a, b) >= limits.similar:
                others.append((a, b))
        return copies, others

    def _around_keepers(self, components: list[list[int]]) -> list[tuple[list[int], int]]:
        """Split chains of copies into groups whose every member is a copy of the keeper.

        Frames of a slow pan are each a copy of the next, and the last is nothing like the first.
        """
        groups = []
        while components:
            keepers = [self._best(places) for places in components]
            wanted = (
                (min(place, keeper), max(place, keeper))
                for places, keeper in zip(components, keepers, strict=True)
                for place in places
                if place != keeper
            )
            unseen = sorted({pair for pair in wanted if pair not in self.matches})
            self._look(np.array(unseen, np.int64).reshape(-1, 2))
            left = []
            for places, keeper in zip(components, keepers, strict=True):
                members, rest = [keeper], list[int]()
                for place in places:
                    if place != keeper:
                        (members if self._belongs(place, keeper) else rest).append(place)
                if len(members) > 1:
                    groups.append((members, keeper))
                if len(rest) > 1:
                    left.append(rest)
            components = left
        return groups

    def _belongs(self, place: int, keeper: int) -> bool:
        match = self.matches.get((min(place, keeper), max(place, keeper)), NO_MATCH)
        return match.is_copy(self.members) and not self._burst(place, keeper)

    def _best(self, places: Sequence[int]) -> int:
        """The user's choice, else the largest, least compressed one that is not soft.

        Of those within a tenth of the most pixels, those with a quarter or more of the most bytes
        a pixel: the blocks of a strong compression measure as sharpness. Of these, those at least
        half as sharp as the sharpest, and then the most bytes: a blurred picture stored without
        loss is large too.
        """
        left = np.array([place for place in places if place in self.keep] or places)
        left = left[self.pixels[left] >= 0.9 * self.pixels[left].max()]
        left = left[self.density[left] >= 0.25 * self.density[left].max()]
        left = left[self.sharpness[left] >= 0.5 * self.sharpness[left].max()]
        return int(
            min(
                left.tolist(),
                key=lambda place: (
                    -self.density[place], -self.sharpness[place], -self.pixels[place], place,
                ),
            )
        )  # fmt: skip

    def _look(self, pairs: Pairs) -> NDArray[np.float32]:
        """Compare these pairs of places; how well each aligns, 0 without a thumbnail.

        ``matches`` gets those that align. Reading, aligning and comparing run on threads, with
        few pictures under way, and every answer depends on its pair alone.
        """
        scores = np.zeros(len(pairs), np.float32)
        plausible: list[tuple[int, int, Alignment]] = []
        with (
            ThreadPoolExecutor(_READERS) as readers,
            ThreadPoolExecutor(_worker_count()) as workers,
        ):
            unread = [place for place in np.unique(pairs).tolist() if place not in self.coarse]
            coarse = _in_order(lambda place: readers.submit(self._coarse_view, place), unread)
            self.coarse.update(zip(unread, coarse, strict=True))
            parts = [
                pairs[start : start + _ALIGNED_AT_ONCE]
                for start in range(0, len(pairs), _ALIGNED_AT_ONCE)
            ]
            answers = _in_order(lambda part: workers.submit(self._aligned, part), parts)
            for number, found in enumerate(answers):
                for row, alignment in enumerate(found, number * _ALIGNED_AT_ONCE):
                    if alignment is None:
                        continue
                    scores[row] = alignment.score
                    if alignment.score >= self.limits.aligned:
                        a, b = pairs[row].tolist()
                        plausible.append((a, b, alignment))

            # Pairs of one neighbourhood follow each other: each picture is read once for them.
            number_of = {
                place: number
                for number, places in enumerate(_components((a, b) for a, b, _ in plausible))
                for place in places
            }
            plausible.sort(key=lambda item: (number_of[item[0]], item[0], item[1]))

            @lru_cache(_FINE_VIEWS_KEPT)
            def view(place: int, inside: bool) -> "Future[FineView | None]":
                return readers.submit(self._fine_view, place, inside)

            def compared(item: tuple[int, int, Alignment]) -> "Future[Match]":
                a, b, alignment = item
                inside = alignment.inside
                return workers.submit(self._compared, view(a, inside), view(b, inside), alignment)

            matches = _in_order(compared, plausible)
            for (a, b, _), match in zip(plausible, matches, strict=True):
                self.matches[a, b] = match
        return scores

    def _aligned(self, pairs: Pairs) -> list[Alignment | None]:
        views = [(self.coarse[a], self.coarse[b]) for a, b in pairs.tolist()]
        return [None if a is None or b is None else align(a, b) for a, b in views]

    def _compared(
        self,
        first: "Future[FineView | None]",
        second: "Future[FineView | None]",
        alignment: Alignment,
    ) -> Match:
        a, b = first.result(), second.result()
        if a is None or b is None:
            return NO_MATCH
        return compare(a, b, alignment, self.members)

    def _coarse_view(self, place: int) -> CoarseView | None:
        image = self.thumbnail(self.order[place])
        return None if image is None else coarse_view(image)

    def _fine_view(self, place: int, inside: bool) -> FineView | None:
        image = self.thumbnail(self.order[place])
        return None if image is None else fine_view(image, inside=inside)

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
        reported.sort(key=lambda item: (-item[2], item[0], item[1]))
        told = Counter[int]()
        likest = []
        for a, b, score in reported:
            if min(told[a], told[b]) < self.limits.similar_an_image:
                likest.append((a, b, score))
            told.update((a, b))
        return DuplicateReport(
            groups=tuple(group for group, _ in numbered),
            keepers=tuple(keeper for _, keeper in numbered),
            similar=tuple(likest),
            compared=len(pairs),
            cosine_floor=floor,
        )


def _in_order(submit: Callable[[Item], "Future[Made]"], items: Iterable[Item]) -> Iterator[Made]:
    """Answers in the order of the items; so many are under way that memory stays bounded."""
    waiting: deque[Future[Made]] = deque()
    for item in items:
        waiting.append(submit(item))
        if len(waiting) > _READ_AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _worker_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
