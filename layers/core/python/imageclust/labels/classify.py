"""Logits of a 1000-class head → labels as Rekognition gives them: names, confidence, parents.

A parent's probability is the sum over the classes under it, so a picture whose breed is uncertain
still says "Dog" with confidence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from imageclust.errors import InvalidInput
from imageclust.labels.parents import (
    CATEGORY_OF,
    CATEGORY_WHEN_NOTHING_ELSE,
    NOT_A,
    OTHER_CATEGORY,
)
from imageclust.labels.record import Label
from imageclust.late import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Measured for MobileNetV2: the temperature of least negative log-likelihood is .71 on the ImageNet
# sample (pictures the network may have been trained on) and .83 on caltech45 classes that have an
# ImageNet name. At .8 a label of confidence c is right about c % of the time on both.
TEMPERATURE = 0.8
MIN_CONFIDENCE = 25.0
MAX_LABELS = 15


@dataclass(frozen=True, eq=False)
class LabelSet:
    """What each output of a classifier means, with the parents worth showing.

    ``names`` holds the label of every class, then every parent; ``parents`` and ``categories`` are
    parallel to it. ``under`` holds the parents' places, counted from the first parent, of every
    class.
    """

    names: tuple[str, ...]
    parents: tuple[tuple[str, ...], ...]
    categories: tuple[tuple[str, ...], ...]
    under: tuple[tuple[int, ...], ...]

    @property
    def classes(self) -> int:
        return len(self.under)

    @cached_property
    def cover(self) -> NDArray[np.float32]:
        """(classes, number of parents) float32: 1 where a class is under a parent."""
        cover = np.zeros((self.classes, len(self.names) - self.classes), np.float32)
        for place, parents in enumerate(self.under):
            cover[place, list(parents)] = 1.0
        return cover

    @cached_property
    def telling(self) -> NDArray[np.float32]:
        """(names,) float32 in [0, 1]: 1 for a single class, falling to 0 for a parent of all."""
        spread = np.log(np.concatenate([np.ones(self.classes), self.cover.sum(axis=0)]))
        telling: NDArray[np.float32] = 1 - spread / max(np.log(self.classes), 1.0)
        return telling.astype(np.float32)

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read a JSON list of classes in the order of the logits, or a ``.txt`` of a name a line.

        Each entry has ``name`` and either ``parents`` (taken as they are, nearest first) or
        ``hypernyms`` (WordNet's; only those in plain use are kept). Raises InvalidInput.
        """
        try:
            text = Path(path).read_text("utf-8")
            plain = Path(path).suffix == ".txt"
            entries = [{"name": x} for x in text.splitlines()] if plain else json.loads(text)
        except OSError as error:
            raise InvalidInput(f"the label file {path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise InvalidInput(f"the label file {path} is not JSON: {error}") from error
        if not isinstance(entries, list) or not entries:
            raise InvalidInput(f"the label file {path} must be a JSON list of classes")
        return cls.from_entries(entries)

    @classmethod
    def from_entries(cls, entries: Sequence[Mapping[str, Any]]) -> Self:
        """As ``from_file``, from the list itself."""
        for place, entry in enumerate(entries):
            if not isinstance(entry, Mapping) or not str(entry.get("name") or "").strip():
                raise InvalidInput(f"class {place} of the label file has no name")
            if int(entry.get("index", place)) != place:
                raise InvalidInput(f"class {place} of the label file has index {entry['index']}")
        kept = [_kept(entry) for entry in entries]
        above = sorted({name for names in kept for name in names})
        column = {name: place for place, name in enumerate(above)}
        # The classes under each parent, a bit each: numpy would take longer to load.
        below = dict.fromkeys(above, 0)
        for place, names in enumerate(kept):
            for name in names:
                below[name] |= 1 << place
        size = {name: classes.bit_count() for name, classes in below.items()}
        # By size: WordNet's own order mixes branches ("domestic animal" before "cat").
        leaf_parents = [sorted(names, key=size.__getitem__) for names in kept]
        some = {name: names for names in kept for name in names}  # all wider parents are there
        parent_parents = [
            sorted(
                (b for b in some[a] if size[b] > size[a] and below[a] & below[b] == below[a]),
                key=lambda b: (size[b], b),
            )
            for a in above
        ]
        categories = [_category(entry, names) for entry, names in zip(entries, kept, strict=True)]
        categories += [CATEGORY_OF.get(name, OTHER_CATEGORY) for name in above]
        return cls(
            names=tuple([_shown(str(e["name"])) for e in entries] + [_shown(n) for n in above]),
            parents=tuple(
                tuple(_shown(name) for name in names) for names in leaf_parents + parent_parents
            ),
            categories=tuple((category,) for category in categories),
            under=tuple(tuple(column[name] for name in names) for names in kept),
        )


def classify(
    logits: NDArray[np.float32],
    label_set: LabelSet,
    *,
    max_labels: int = MAX_LABELS,
    min_confidence: float = MIN_CONFIDENCE,
    temperature: float = TEMPERATURE,
) -> list[tuple[Label, ...]]:
    """Labels of each image, most telling first (confidence times specificity).

    Args:
        logits: (n, classes) float, before softmax.
        label_set: meaning of the classes.
        max_labels: at most so many labels an image, parents included.
        min_confidence: labels below it (0 to 100) are left out.
        temperature: divides the logits; below 1 sharpens.

    Returns n tuples; a row with a non-finite logit gets none. Raises InvalidInput.
    """
    logits = np.asarray(logits)
    if logits.ndim != 2 or logits.shape[1] != label_set.classes:
        raise InvalidInput(
            f"logits have shape {logits.shape}, but the label file has {label_set.classes} classes"
        )
    if max_labels < 1:
        raise InvalidInput(f"max_labels must be at least 1, not {max_labels}")
    if not 0 <= min_confidence <= 100:
        raise InvalidInput(f"min_confidence must lie between 0 and 100, not {min_confidence}")
    if not temperature > 0:
        raise InvalidInput(f"temperature must be above 0, not {temperature}")
    return _classify(logits, label_set, max_labels, min_confidence, temperature)


def _classify(
    logits: NDArray[np.float32],
    label_set: LabelSet,
    max_labels: int,
    min_confidence: float,
    temperature: float,
) -> list[tuple[Label, ...]]:
    finite: NDArray[np.bool_] = np.all(np.isfinite(logits), axis=1)
    scaled = np.where(finite[:, None], logits, 0).astype(np.float32) / np.float32(temperature)
    scaled -= scaled.max(axis=1, keepdims=True)
    p = np.exp(scaled)
    p /= p.sum(axis=1, keepdims=True)
    confidence = 100.0 * np.concatenate([p, p @ label_set.cover], axis=1).astype(np.float64)
    np.clip(confidence, 0, 100, out=confidence)
    answers: list[tuple[Label, ...]] = []
    for row, usable in zip(confidence, finite, strict=True):
        sure = np.flatnonzero(row >= min_confidence) if usable else np.empty(0, np.intp)
        order = sure[np.argsort(-row[sure] * label_set.telling[sure], kind="stable")]
        found: dict[str, Label] = {}
        for i in order:
            name = label_set.names[i]
            # A class and a parent may share a name ("Newt"): one label, the surer figure.
            if name in found and found[name].confidence >= row[i]:
                continue
            found[name] = Label(
                name=name,
                confidence=float(row[i]),
                parents=label_set.parents[i],
                categories=label_set.categories[i],
            )
        answers.append(tuple(found.values())[:max_labels])
    return answers


def _kept(entry: Mapping[str, Any]) -> list[str]:
    """Parents to show for one class, without itself, each once."""
    name = str(entry["name"])
    if "parents" in entry:
        return [n for n in dict.fromkeys(map(str, entry["parents"])) if n != name]
    hypernyms = dict.fromkeys(map(str, entry.get("hypernyms") or ()))
    return [n for n in hypernyms if n in CATEGORY_OF and n != name and (name, n) not in NOT_A]


def _category(entry: Mapping[str, Any], kept: Sequence[str]) -> str:
    for name in (str(entry["name"]), *kept):
        if name in CATEGORY_OF:
            return CATEGORY_OF[name]
    for name in entry.get("hypernyms") or ():
        if name in CATEGORY_WHEN_NOTHING_ELSE:
            return CATEGORY_WHEN_NOTHING_ELSE[name]
    return OTHER_CATEGORY


def _shown(name: str) -> str:
    """``dining table`` → ``Dining Table``; words with a capital of their own stay as they are."""
    return " ".join(w if w != w.lower() else w[:1].upper() + w[1:] for w in name.split())
