"""What a run would cost: asked before it is started, of a collection or of a number of images.

Nothing is read but listings and pointers. What is stored already is looked up under the models of
the run that the collection shows; under other models nothing is stored, as far as this can tell.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from imageclust import keys
from imageclust.costs import Cached, Estimate, Place, estimate, within_budget
from imageclust.errors import InvalidInput, NotFound
from imageclust.models import JSON, RunConfig
from imageclust.steps.pictures import image_id_of
from imageclust.wiring import Services

_MOST_FILES = 1_000_000  # listed, a thousand a request
_LOOKED_UP = 2_000  # files of a larger collection that stand for all


@dataclass(frozen=True)
class Known:
    """What is known of a collection without reading its files.

    ``images`` are distinct contents; a file that no run has read yet counts as one. ``looked_up``
    of ``files`` were asked for; the rest is taken to be like them.
    """

    files: int
    images: int
    looked_up: int
    cached: Cached


@dataclass(frozen=True)
class RunEstimate:
    """What a run would cost, and the configuration that stays within its cap."""

    estimate: Estimate
    config: RunConfig
    known: Known | None
    notes: tuple[str, ...]

    def to_json(self) -> JSON:
        return {
            **self.estimate.to_json(),
            "files": None if self.known is None else self.known.files,
            "stored": None
            if self.known is None
            else {"vectors": self.known.cached.vectors, "labels": self.known.cached.labels},
            "config": self.config.to_json(),
            "notes": [*self.notes, *self.estimate.notes],
        }


def estimate_run(
    services: Services,
    *,
    config: RunConfig,
    images: int | None = None,
    collection: str | None = None,
    place: Place | None = None,
) -> RunEstimate:
    """Estimate a run over ``images`` distinct images, or over the files of ``collection``.

    Args:
        place: where the run would happen; None means here.

    Raises:
        InvalidInput: neither or both are given.
        NotFound: there is no such collection.
        OverBudget: even the cheapest form of the run costs more than its cap.
    """
    if (images is None) == (collection is None):
        raise InvalidInput("an estimate is of a collection or of a number of images: give one")
    place = place or Place.of(services.settings)
    known = None if collection is None else look_up(services, collection, config)
    count, cached = (images or 0, Cached()) if known is None else (known.images, known.cached)
    if config.sample < 1:
        # Which images are drawn is not known yet: as many of them are stored as of all.
        count = math.ceil(count * config.sample)
        cached = Cached(
            math.floor(cached.vectors * config.sample), math.floor(cached.labels * config.sample)
        )
    whole, given_up = within_budget(count, replace(config, sample=1.0), cached=cached, place=place)
    notes = list(given_up)
    if known is not None and known.looked_up < known.files:
        notes.append(
            f"{known.looked_up:,} of {known.files:,} files were looked up and stand for the rest"
        )
    return RunEstimate(
        estimate(count, whole, cached=cached, place=place),
        replace(whole, sample=config.sample),
        known,
        tuple(notes),
    )


def look_up(services: Services, collection: str, config: RunConfig) -> Known:
    """Count a collection's images and what is stored of them. Raises NotFound."""
    item = services.table.get(keys.COLLECTIONS_PK, collection)
    if item is None:
        raise NotFound(f"There is no collection '{collection}'.")
    listed = list(
        islice(
            services.store.list(services.settings.uploads_bucket, keys.uploads_prefix(collection)),
            _MOST_FILES,
        )
    )
    step = max(1, math.ceil(len(listed) / _LOOKED_UP))
    files = listed[::step]
    if not files:
        return Known(0, 0, 0, Cached())
    pointers = services.table.get_many((keys.seen_pk(f.uri), keys.POINTER_SK) for f in files)
    # A file that was not read yet stands for itself, its address as the id.
    ids = {
        image_id_of(file, pointers.get((keys.seen_pk(file.uri), keys.POINTER_SK))) or file.uri
        for file in files
    }
    embedder, labeler = _models_shown(services, collection, str(item.get("current_run")), config)
    vectors = _stored(services, [keys.vector_pk(embedder, i) for i in ids] if embedder else [])
    labels = _stored(services, [keys.label_pk(labeler, i) for i in ids] if labeler else [])
    share = len(listed) / len(files)
    return Known(
        files=len(listed),
        images=round(len(ids) * share),
        looked_up=len(files),
        cached=Cached(round(vectors * share), round(labels * share)),
    )


def _stored(services: Services, pks: Sequence[str]) -> int:
    return len(services.table.get_many((pk, keys.POINTER_SK) for pk in pks))


def _models_shown(
    services: Services, collection: str, run_id: str, config: RunConfig
) -> tuple[str, str]:
    """Keys of the embedder and labeler of the shown run, "" where ``config`` asks for others."""
    run = services.table.get(keys.collection_pk(collection), keys.run_sk(run_id))
    if run is None or run.get("state") != "SUCCEEDED":
        return "", ""
    models: dict[str, Any] = run.get("models") or {}
    used = RunConfig.from_json(run.get("config") or {})
    embeds = config.embedder in ("auto", used.embedder) and config.preprocess == used.preprocess
    labels = config.labeler in ("auto", used.labeler) and used.labels == config.labels == "full"
    return (
        str(models.get("embedder", "")) if embeds else "",
        str(models.get("labeler", "")) if labels else "",
    )
