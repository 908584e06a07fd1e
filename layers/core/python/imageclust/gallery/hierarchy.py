"""The hierarchy above the clusters as a tree to open level by level."""

from collections.abc import Sequence
from dataclasses import dataclass

from imageclust.models import JSON


@dataclass(frozen=True)
class Branch:
    """A group of clusters: those directly in it, and the smaller groups that it is made of.

    ``members`` are all its clusters by number, largest cluster first.
    """

    size: int
    members: tuple[int, ...]
    leaves: tuple[int, ...]
    branches: tuple["Branch", ...]


def build_hierarchy(merges: Sequence[JSON], clusters: int, *, deepest: int) -> tuple[Branch, ...]:
    """The trees that ``merges`` make of ``clusters`` clusters, the largest first.

    A merge joins two of: clusters, numbered from 0, and earlier merges, numbered from
    ``clusters``. Below ``deepest`` levels a group lists its clusters without further grouping, so
    that a chain of merges stays readable. Merges that name what is not there give no tree.
    """
    parts: dict[int, tuple[int, int]] = {}
    members: dict[int, tuple[int, ...]] = {number: (number,) for number in range(clusters)}
    sizes: dict[int, int] = {}
    roots = dict.fromkeys(range(clusters))
    for number, merge in enumerate(merges, start=clusters):
        left, right = int(merge["left"]), int(merge["right"])
        if left == right or left not in roots or right not in roots:
            return ()
        del roots[left], roots[right]
        roots[number] = None
        parts[number] = (left, right)
        members[number] = tuple(sorted(members[left] + members[right]))
        sizes[number] = int(merge["size"])

    def branch(number: int, level: int) -> Branch:
        flat = level >= deepest
        below = () if flat else parts[number]
        return Branch(
            size=sizes[number],
            members=members[number],
            leaves=members[number] if flat else tuple(x for x in below if x < clusters),
            branches=tuple(branch(x, level + 1) for x in sorted(below, key=members.__getitem__)
                           if x >= clusters),
        )  # fmt: skip

    trees = [branch(number, 1) for number in roots if number >= clusters]
    return tuple(sorted(trees, key=lambda tree: -tree.size))
