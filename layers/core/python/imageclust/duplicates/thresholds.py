"""The calibrated limits of the search for copies."""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Thresholds:
    """When a pair is looked at, when it is a copy, and when it is worth reporting.

    ``cosine``: vectors this close are compared pixel by pixel, and so are hashes within
    ``hash_bits``. ``aligned``: least correlation of the coarse alignment to go on. ``structure``,
    ``worst``, ``overlap``, ``contained``, ``colour``: see ``verify.Match``; all must be reached by
    a copy. ``clash`` and ``hues`` are the most that it may have; with less ``detail`` or more
    ``repeats`` than these it must be exact.
    ``member_…``: what a member reached through other copies must show against the keeper itself.
    ``similar``: cosine of a look-alike. ``similar_an_image``: a look-alike is reported where it
    is among so many likest of either picture. ``pairs_an_image``: most pairs compared for each
    image.
    """

    cosine: float = 0.70
    hash_bits: int = 10
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
    similar_an_image: int = 3
    pairs_an_image: int = 4

    @classmethod
    def for_size(cls, n: int) -> "Thresholds":
        """Thresholds for a collection of ``n`` images.

        Strangers meet n² times, copies only n times, so the bar rises with size: from 1,000
        images on, each tenfold adds .1 to the cosine from which pairs are compared (up to .92),
        takes two bits off the hash, and adds .04 to the cosine of look-alikes (which keeps them
        about level on photos of rooms) and .01 to the structure.
        """
        tens = min(3.0, max(0.0, math.log10(max(n, 1) / 1000)))
        return cls(
            cosine=min(0.92, 0.70 + 0.1 * tens),
            hash_bits=max(7, 10 - round(2 * tens)),
            structure=0.93 + 0.01 * tens,
            worst=0.85 + 0.01 * tens,
            similar=max(0.85, 0.82 + 0.04 * tens),
        )

    def of_members(self) -> "Thresholds":
        """What a member of a group must show against its keeper: no more than a copy must."""
        return replace(
            self,
            structure=min(self.structure, self.member_structure),
            worst=min(self.worst, self.member_worst),
            clash=max(self.clash, self.member_clash),
            overlap=min(self.overlap, self.member_overlap),
        )
