"""Confirmed copies of a run's images and its look-alikes, stored by what they depend on."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imageclust import keys
from imageclust.embedding import BUILTIN
from imageclust.errors import NotFound, RejectedImage
from imageclust.late import np
from imageclust.models import JSON, digest_of
from imageclust.steps.gather import Gathered
from imageclust.wiring import Services

if TYPE_CHECKING:  # OpenCV loads where copies are looked for
    from numpy.typing import NDArray

    from imageclust.duplicates import DuplicateReport, Thresholds

_ENGINE = 5  # raise when a change of the search changes what it finds

# The thresholds are for learned features. The built-in descriptor has no negative entries and much
# of it is alike, so its cosines lie near 1: of strangers one pair in a thousand is above .994,
# with MobileNetV2 above .8 (three labelled sets).
_BUILTIN_SPREAD = 0.03

SIMILAR_COLUMNS = ("path_a", "path_b", "score")


@dataclass(frozen=True)
class Copies:
    """``keepers`` maps each confirmed copy to the image that stands for it, by image id.

    ``similar`` are look-alikes (a, b, cosine) that are not copies, the likest first. ``compared``
    counts the pairs compared pixel by pixel; from ``cosine_floor`` on, every pair was.
    """

    keepers: dict[str, str]
    similar: tuple[tuple[str, str, float], ...] = ()
    compared: int = 0
    cosine_floor: float = 1.0

    def to_json(self) -> JSON:
        return {
            "keepers": self.keepers,
            "similar": [list(pair) for pair in self.similar],
            "compared": self.compared,
            "cosine_floor": self.cosine_floor,
        }

    @classmethod
    def from_json(cls, data: JSON) -> Copies:
        return cls(
            keepers=dict(data["keepers"]),
            similar=tuple((a, b, float(score)) for a, b, score in data["similar"]),
            compared=int(data["compared"]),
            cosine_floor=float(data["cosine_floor"]),
        )


NO_COPIES = Copies(keepers={})


def find_copies(
    services: Services,
    gathered: Gathered,
    embedder: str,
    *,
    sizes: Mapping[str, int],
    keep: Collection[str] = (),
) -> Copies:
    """Find copies among the images, or read what an earlier run over the same images found.

    Args:
        sizes: bytes of each image's file.
        keep: images that stand for their copies whatever their quality.
    """
    digest = digest_of(
        {
            "copies": _ENGINE,
            "embedder": embedder,
            "images": gathered.image_ids,
            "keep": sorted(keep),
        }
    )
    uri = keys.join_uri(
        services.settings.data_bucket, keys.clusters_key(digest[:32], "copies.json")
    )
    if services.store.size(uri) is None:
        limits = _thresholds(len(gathered.image_ids), embedder)
        copies = _find(services, gathered, limits, sizes=sizes, keep=keep)
        services.store.write(uri, json.dumps(copies.to_json()).encode())
    return Copies.from_json(json.loads(services.store.read(uri)))


def _thresholds(n: int, embedder: str) -> Thresholds:
    from imageclust.duplicates import Thresholds

    usual = Thresholds.for_size(n)
    if not embedder.startswith(BUILTIN):
        return usual
    return replace(
        usual,
        cosine=1 - _BUILTIN_SPREAD * (1 - usual.cosine),
        similar=1 - _BUILTIN_SPREAD * (1 - usual.similar),
    )


def _find(
    services: Services,
    gathered: Gathered,
    thresholds: Thresholds,
    *,
    sizes: Mapping[str, int],
    keep: Collection[str],
) -> Copies:
    from imageclust.duplicates import Pictures, find_duplicates
    from imageclust.images import decode_image

    ids = gathered.image_ids
    facts = [gathered.facts[image_id] for image_id in ids]
    prints = [fact["fingerprint"] for fact in facts]

    def shown(row: int) -> NDArray[np.uint8] | None:
        uri = keys.join_uri(services.settings.data_bucket, keys.thumbnail_key(ids[row]))
        try:
            return decode_image(services.store.read(uri)).pixels
        except (NotFound, RejectedImage):
            return None

    report = find_duplicates(
        Pictures(
            phashes=np.array([int(p["phash"], 16) for p in prints], dtype=np.uint64),
            vectors=gathered.vectors,
            pixels=np.array([fact["width"] * fact["height"] for fact in facts], dtype=np.int64),
            sharpness=np.array([p["sharpness"] for p in prints], dtype=np.float64),
            sizes=np.array([sizes[image_id] for image_id in ids], dtype=np.int64),
            taken_at=[p.get("captured_at") for p in prints],
        ),
        shown,
        keep=[row for row, image_id in enumerate(ids) if image_id in keep],
        thresholds=thresholds,
    )
    return _by_image(report, ids)


def _by_image(report: DuplicateReport, ids: tuple[str, ...]) -> Copies:
    return Copies(
        keepers={ids[row]: ids[keeper] for row, keeper in sorted(report.duplicate_of().items())},
        similar=tuple((ids[a], ids[b], score) for a, b, score in report.similar),
        compared=report.compared,
        cosine_floor=report.cosine_floor,
    )


def similar_csv(similar: Iterable[tuple[str, str, float]], paths: Mapping[str, str]) -> bytes:
    """``similar.csv``: pairs that look alike and are no copies, the likest first.

    Args:
        similar: (image id, image id, cosine).
        paths: the path that stands for each image.
    """
    rows = [(min(paths[a], paths[b]), max(paths[a], paths[b]), score) for a, b, score in similar]
    rows.sort(key=lambda row: (-row[2], row[0], row[1]))
    text = io.StringIO(newline="")
    # Every path in quotes: the csv module of Python 3.11 leaves a lone CR bare otherwise.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(SIMILAR_COLUMNS)
    writer.writerows(rows)
    return text.getvalue().encode(errors="surrogateescape")
