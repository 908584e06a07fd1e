"""The pictures of a collection nearest to some words or to another picture, with their clusters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imageclust import keys
from imageclust.errors import InvalidInput, NotFound, RejectedImage
from imageclust.models import JSON
from imageclust.steps.start_run import collection_of
from imageclust.wiring import Services

MOST = 1_000
_OVERSHOOT = 2
# The vector index answers no more at once.
_MOST_ASKED = 10_000


@dataclass(frozen=True)
class Hit:
    """One picture: the first of its files by path, and the cosine of its vector with the query.

    ``cluster_id`` and ``title`` are empty for an outlier.
    """

    image_id: str
    path: str
    similarity: float
    cluster_id: str
    title: str


def search_text(services: Services, collection: str, text: str, *, top: int) -> tuple[Hit, ...]:
    """The ``top`` pictures nearest to ``text``, nearest first.

    Raises:
        NotFound: no such collection.
        InvalidInput: it has no published run, or its embedder has no text tower here.
    """
    run = _published(services, collection, top)
    name = _embedder(services, run)[0]
    return _nearest(services, run, services.open_text(name).embed([text.strip()])[0], top)


def search_image(services: Services, collection: str, data: bytes, *, top: int) -> tuple[Hit, ...]:
    """The ``top`` pictures nearest to the picture in ``data`` (a file's bytes), nearest first.

    Raises:
        NotFound: no such collection.
        InvalidInput: it has no published run, its embedder is not the one that is here now, or
            the picture cannot be decoded (RejectedImage).
    """
    run = _published(services, collection, top)
    name, preprocess = _embedder(services, run)
    embedder = services.open_embedder(name, preprocess)
    (picture,) = services.decode([data], embedder.min_side)
    if isinstance(picture, RejectedImage):
        raise picture
    return _nearest(services, run, embedder.embed([picture.pixels])[0], top)


def _published(services: Services, collection: str, top: int) -> JSON:
    """The run that the collection shows."""
    if not 1 <= top <= MOST:
        raise InvalidInput(f"A search answers 1 to {MOST} pictures, not {top}.")
    item = services.table.get(keys.COLLECTIONS_PK, collection)
    if item is None:
        known = services.table.query(keys.COLLECTIONS_PK, limit=20).items
        names = ", ".join(found["sk"] for found in known)
        raise NotFound(f"There is no collection '{collection}'. There are: {names or 'none'}.")
    run_id = item.get("current_run")
    run = services.table.get(keys.collection_pk(collection), keys.run_sk(run_id or ""))
    if run is None:
        raise InvalidInput(f"The collection '{collection}' has no finished run to search in yet.")
    return run


def _embedder(services: Services, run: Mapping[str, Any]) -> tuple[str, str]:
    """Name and preprocessing of the run's embedder, which must still be the very same."""
    config = run["config"]
    name, preprocess = config["embedder"], config["preprocess"]
    key = services.open_embedder(name, preprocess).key
    if key != run["models"]["embedder"]:
        raise InvalidInput(
            f"The vectors of '{run['collection']}' are of {run['models']['embedder']}, and "
            f"{name!r} is now {key}: run the collection again first."
        )
    return name, preprocess


def _nearest(
    services: Services, run: Mapping[str, Any], vector: NDArray[np.float32], top: int
) -> tuple[Hit, ...]:
    """Hits among the run's own pictures: while another run is published the index has both's."""
    run_id = run["run_id"]
    index = keys.index_name(collection_of(run_id), run["models"]["embedder"])
    asked = min(top * _OVERSHOOT, _MOST_ASKED)
    while True:
        matches = services.index.query(index, vector, top_k=asked)
        wanted = [(keys.image_pk(match.id), keys.run_sk(run_id)) for match in matches]
        places = services.table.get_many(wanted)
        # A confirmed copy is told by the picture that it repeats.
        own = [
            (match, place)
            for match, key in zip(matches, wanted, strict=True)
            if (place := places.get(key)) and place["status"] != "duplicate"
        ][:top]
        if len(own) == top or len(matches) < asked or asked == _MOST_ASKED:
            break
        asked = min(asked * 4, _MOST_ASKED)
    clusters = {place["cluster_id"] for _, place in own if place["cluster_id"]}
    titles = services.table.get_many(
        (keys.run_pk(run_id), keys.cluster_sk(cluster)) for cluster in sorted(clusters)
    )
    return tuple(
        Hit(
            image_id=match.id,
            path=place["path"],
            similarity=round(1 - match.distance, 4),
            cluster_id=place["cluster_id"] or "",
            title=_title(titles, run_id, place["cluster_id"]),
        )
        for match, place in own
    )


def _title(titles: Mapping[tuple[str, str], JSON], run_id: str, cluster_id: str | None) -> str:
    if not cluster_id:
        return ""
    found = titles.get((keys.run_pk(run_id), keys.cluster_sk(cluster_id)), {})
    return str(found.get("title", ""))
