"""``labels: exemplars``: a few hundred images are labelled, all others get labels from those.

Provisional clusters say which images stand for many. A sample of other images is labelled too, only
to measure how far the spread labels can be trusted; the run tells the result.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from imageclust import keys
from imageclust.clustering import ClusteringConfig
from imageclust.labels import Label
from imageclust.labels.spread import (
    EXEMPLARS_A_CLUSTER,
    MOST_SAMPLED,
    Agreement,
    agreement,
    exemplar_clusters,
    spread_labels,
)
from imageclust.late import np
from imageclust.models import JSON, digest_of, to_json_lines
from imageclust.ports import Labeler
from imageclust.steps.gather import Gathered
from imageclust.steps.pictures import label_row
from imageclust.wiring import Services

_ENGINE = 1  # raise when a change here chooses other images

_POOL = 20_000  # images that are clustered for this; more show nothing new

Labels = dict[str, tuple[Label, ...]]


@dataclass(frozen=True)
class Chosen:
    """Image ids to label: those that labels spread from, and those that only measure it."""

    exemplars: tuple[str, ...]
    sample: tuple[str, ...]

    @property
    def image_ids(self) -> tuple[str, ...]:
        return tuple(sorted((*self.exemplars, *self.sample)))


@dataclass(frozen=True)
class Spread:
    """``labels`` of every image that has any, ``own`` the images that were labelled themselves."""

    labels: Labels
    own: frozenset[str]
    measured: Agreement

    def to_json(self) -> JSON:
        measured = {name: round(value, 4) for name, value in asdict(self.measured).items()}
        return {
            "labelled": len(self.own),
            "spread": len(self.labels.keys() - self.own),
            "agreement": measured,
        }


def choose_exemplars(services: Services, voters: Gathered, embedder: str, *, seed: int) -> Chosen:
    """The images to label, or what was chosen before for the same images."""
    digest = digest_of(
        {"exemplars": _ENGINE, "embedder": embedder, "images": voters.image_ids, "seed": seed}
    )
    uri = keys.join_uri(
        services.settings.data_bucket, keys.clusters_key(digest[:32], "exemplars.json")
    )
    if services.store.size(uri) is None:
        services.store.write(uri, json.dumps(asdict(_choose(voters, seed))).encode())
    found = json.loads(services.store.read(uri))
    return Chosen(tuple(found["exemplars"]), tuple(found["sample"]))


def _choose(voters: Gathered, seed: int) -> Chosen:
    n = len(voters.image_ids)
    rng = np.random.default_rng([seed, 53])
    pool = np.sort(rng.choice(n, min(n, _POOL), replace=False))
    from imageclust.clustering import cluster_vectors  # with SciPy, only where it is needed

    config = ClusteringConfig(
        method="kmeans",
        clusters=exemplar_clusters(n),
        seed=seed,
    )
    result = cluster_vectors(voters.vectors[pool], config=config)
    shown = [row for record in result.clusters for row in record.exemplars[:EXEMPLARS_A_CLUSTER]]
    exemplars = np.unique(pool[shown])
    others = np.setdiff1d(np.arange(n), exemplars)
    count = min(MOST_SAMPLED, math.ceil(len(others) / 10))
    sample = np.sort(rng.choice(others, count, replace=False))
    return Chosen(
        tuple(voters.image_ids[row] for row in exemplars.tolist()),
        tuple(voters.image_ids[row] for row in sample.tolist()),
    )


def label_chosen(services: Services, chosen: Chosen, *, model: str) -> str:
    """Label what is not stored yet; returns the name under which the labels are stored.

    The thumbnails are labelled: they are at hand, and the function that clusters has no room for
    the codecs of every format. The name tells, so that no one takes these for labels of the whole
    picture. Batch by batch, so that a killed run asks for the rest only; an image that the labeler
    refuses is asked for again by the next run.
    """
    labeler = services.open_labeler(model)
    if labeler is None:
        return ""
    name = f"{labeler.key}-thumbnail"
    stored = services.table.get_many(
        (keys.label_pk(name, image_id), keys.POINTER_SK) for image_id in chosen.image_ids
    )
    missing = [
        i for i in chosen.image_ids if (keys.label_pk(name, i), keys.POINTER_SK) not in stored
    ]
    size = services.settings.label_batch
    for start in range(0, len(missing), size):
        _label(services, labeler, name, missing[start : start + size])
    return name


def _label(services: Services, labeler: Labeler, name: str, image_ids: Sequence[str]) -> None:
    from imageclust.images import decode_image  # with OpenCV; stored labels spare it

    bucket = services.settings.data_bucket
    pictures = [
        decode_image(services.store.read(keys.join_uri(bucket, keys.thumbnail_key(i)))).pixels
        for i in image_ids
    ]
    rows = [
        label_row(image_id, answer)
        for image_id, answer in zip(image_ids, labeler.label(pictures), strict=True)
    ]
    known = [row["image_id"] for row in rows if not row["error"]]
    shard = keys.shard_id(known)
    uri = keys.join_uri(bucket, keys.label_key(name, shard))
    services.store.write(uri, to_json_lines(rows), content_type="application/jsonl")
    services.table.put_many(
        {"pk": keys.label_pk(name, image_id), "sk": keys.POINTER_SK, "shard": shard}
        for image_id in known
    )


def spread_over(gathered: Gathered, chosen: Chosen, real: Labels) -> Spread:
    """Spread the real labels of the chosen images over all images.

    The agreement is measured on the sample with labels from the exemplars alone; then the sample's
    labels spread too.
    """
    row = {image_id: place for place, image_id in enumerate(gathered.image_ids)}
    exemplars = [image_id for image_id in chosen.exemplars if image_id in real]
    sample = [image_id for image_id in chosen.sample if image_id in real]
    few = gathered.vectors[[row[image_id] for image_id in (*exemplars, *sample)]]
    guessed = spread_labels(few, range(len(exemplars)), _of(real, exemplars))[len(exemplars) :]
    known = [*exemplars, *sample]
    spread = spread_labels(gathered.vectors, [row[i] for i in known], _of(real, known))
    return Spread(
        labels={i: found for i, found in zip(gathered.image_ids, spread, strict=True) if found},
        own=frozenset(known),
        measured=agreement(guessed, _of(real, sample)),
    )


def _of(labels: Labels, image_ids: Sequence[str]) -> list[tuple[Label, ...]]:
    return [labels[image_id] for image_id in image_ids]
