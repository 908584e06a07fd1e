"""Labels of a few exemplars spread to the images near them, and how far that can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imageclust.errors import InvalidInput
from imageclust.labels.record import Label
from imageclust.late import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXEMPLARS_A_CLUSTER = 3
MOST_SAMPLED = 40
_IMAGES_A_CLUSTER = 20
_MOST_CLUSTERS = 120
_NEIGHBOURS = 5
_SOFTNESS = 0.05
_TILE = 4096


@dataclass(frozen=True)
class Agreement:
    """How well spread labels match real ones on a sample of ``images``.

    ``precision`` is the share of spread labels that the image really has, ``recall`` the share of
    its real labels that were spread to it. ``stated`` is the mean confidence of the spread labels
    and ``real`` that of the same labels in the real answer (0 where absent), both 0 to 1: an
    honest spread keeps the two near each other.
    """

    images: int
    precision: float
    recall: float
    stated: float
    real: float


def exemplar_clusters(images: int) -> int:
    """Provisional clusters whose exemplars are labelled: one for 20 images, at most 120."""
    return min(_MOST_CLUSTERS, math.ceil(images / _IMAGES_A_CLUSTER))


def most_labelled(images: int) -> int:
    """Images that are labelled at most, exemplars and the sample that measures the spread.

    400 at most: a minute at ten requests a second.
    """
    exemplars = EXEMPLARS_A_CLUSTER * exemplar_clusters(images)
    return min(images, exemplars + min(MOST_SAMPLED, math.ceil(images / 10)))


def spread_labels(
    vectors: NDArray[np.float32],
    exemplars: Sequence[int],
    labels: Sequence[Sequence[Label]],
    *,
    min_confidence: float = 25.0,
    max_labels: int = 15,
) -> list[tuple[Label, ...]]:
    """Give every image the labels of the exemplars most like it.

    The stated confidence is the exemplars' own, averaged over the five nearest with weights that
    fall by e for each .05 of cosine, times the square root of the cosine to the nearest: the
    farther, the less sure. (Measured: so it equals, within .05, the confidence that labelling the
    image itself would give; benchmarks/README.md.)

    Args:
        vectors: (n, d) float32, rows of length 1.
        exemplars: rows that were labelled.
        labels: their labels, in the same order.
        min_confidence: spread labels below it (0 to 100) are left out.
        max_labels: at most so many labels are spread to an image.

    Returns n tuples, surest first; an exemplar keeps its own as they are. Raises InvalidInput.
    """
    if len(exemplars) != len(labels):
        raise InvalidInput(f"{len(exemplars)} exemplars but labels of {len(labels)}")
    if any(not 0 <= row < len(vectors) for row in exemplars):
        raise InvalidInput(f"exemplars must be rows 0 to {len(vectors) - 1}")
    if not exemplars:
        return [() for _ in vectors]
    own = {row: tuple(given) for row, given in zip(exemplars, labels, strict=True)}
    known = vectors[list(exemplars)]
    answers: list[tuple[Label, ...]] = []
    for start in range(0, len(vectors), _TILE):
        cosines = vectors[start : start + _TILE] @ known.T
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :_NEIGHBOURS]
        for offset, places in enumerate(nearest):
            row = start + offset
            if row in own:
                answers.append(own[row])
                continue
            near = [labels[place] for place in places]
            mixed = _mixed(near, cosines[offset, places])
            kept = [label for label in mixed if label.confidence >= min_confidence]
            answers.append(tuple(kept[:max_labels]))
    return answers


def agreement(spread: Sequence[Sequence[Label]], real: Sequence[Sequence[Label]]) -> Agreement:
    """Compare spread labels with real ones of the same images, by name.

    Leave exemplars out of the sample: they agree with themselves. Raises InvalidInput.
    """
    if len(spread) != len(real):
        raise InvalidInput(
            f"{len(spread)} images with spread labels but {len(real)} with real ones"
        )
    said = right = there = 0
    stated = found = 0.0
    for guesses, truth in zip(spread, real, strict=True):
        names = {label.name: label.confidence / 100 for label in truth}
        said += len(guesses)
        there += len(names)
        right += sum(label.name in names for label in guesses)
        stated += sum(label.confidence / 100 for label in guesses)
        found += sum(names.get(label.name, 0.0) for label in guesses)
    return Agreement(
        images=len(real),
        precision=right / said if said else 0.0,
        recall=right / there if there else 0.0,
        stated=stated / said if said else 0.0,
        real=found / said if said else 0.0,
    )


def _mixed(near: Sequence[Sequence[Label]], cosines: NDArray[np.float32]) -> list[Label]:
    share = np.exp((cosines - cosines[0]).astype(np.float64) / _SOFTNESS)
    share *= np.sqrt(max(0.0, min(1.0, float(cosines[0])))) / share.sum()
    sums: dict[str, float] = {}
    like: dict[str, Label] = {}
    for given, weight in zip(near, share.tolist(), strict=True):
        for label in given:
            sums[label.name] = sums.get(label.name, 0.0) + weight * label.confidence
            like.setdefault(label.name, label)
    return [
        Label(name, min(100.0, sure), like[name].parents, like[name].categories)
        for name, sure in sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    ]
