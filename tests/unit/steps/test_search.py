"""Search over an index that also holds another run, copies and outliers."""

from typing import Any

import cv2
import numpy as np
import pytest
from imageclust import keys
from imageclust.embedding import BUILTIN
from imageclust.errors import InvalidInput, NotFound, RejectedImage
from imageclust.steps.search import search_image, search_text
from imageclust.wiring import Services

RUN = "colours-20261122T080000-0123abcd"


def plain(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((32, 32, 3), colour, np.uint8)


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()


def put(services: Services, pictures: dict[str, Any], **place: Any) -> None:
    """Index pictures by id; with a place they are of the run."""
    embedder = services.open_embedder(BUILTIN, "default")
    index = keys.index_name("colours", embedder.key)
    services.index.create(index, embedder.dimension)
    vectors = embedder.embed(list(pictures.values()))
    services.index.put(index, list(pictures), vectors, [{"image_id": name} for name in pictures])
    if place:
        services.table.put_many(
            {
                "pk": keys.image_pk(name),
                "sk": keys.run_sk(RUN),
                "path": f"{name}.png",
                "status": "clustered",
                **place,
            }
            for name in pictures
        )


@pytest.fixture
def run(services: Services) -> dict[str, Any]:
    """A published run of two clusters, an outlier and a copy."""
    red = {f"red{n}": plain((200, 10 * n, 0)) for n in range(3)}
    put(services, red, cluster_id="c0001")
    put(services, {"blue": plain((0, 0, 200))}, cluster_id="c0002")
    put(services, {"grey": plain((90, 90, 90))}, cluster_id=None, status="outlier")
    put(services, {"copy": plain((200, 0, 0))}, cluster_id="c0001", status="duplicate")
    for cluster, title in (("c0001", "Red things"), ("c0002", "Sea")):
        services.table.put({"pk": keys.run_pk(RUN), "sk": keys.cluster_sk(cluster), "title": title})
    item = {
        "pk": keys.collection_pk("colours"),
        "sk": keys.run_sk(RUN),
        "run_id": RUN,
        "collection": "colours",
        "config": {"embedder": BUILTIN, "preprocess": "default"},
        "models": {"embedder": services.open_embedder(BUILTIN, "default").key},
    }
    services.table.put(item)
    services.table.put(
        {"pk": keys.COLLECTIONS_PK, "sk": "colours", "name": "colours", "current_run": RUN}
    )
    return item


@pytest.mark.usefixtures("run")
def test_hits_have_their_cluster_and_a_copy_is_its_keeper(services: Services) -> None:
    hits = search_image(services, "colours", png(plain((200, 0, 0))), top=10)
    assert hits[0].image_id == "red0"
    assert {hit.image_id for hit in hits} == {"red0", "red1", "red2", "blue", "grey"}
    assert hits[0].similarity == pytest.approx(1, abs=1e-4)
    assert [hit.similarity for hit in hits] == sorted((h.similarity for h in hits), reverse=True)
    told = {hit.image_id: (hit.path, hit.cluster_id, hit.title) for hit in hits}
    assert told["red1"] == ("red1.png", "c0001", "Red things")
    assert told["blue"] == ("blue.png", "c0002", "Sea")
    assert told["grey"] == ("grey.png", "", "")


@pytest.mark.usefixtures("run")
def test_pictures_of_other_runs_take_no_place(services: Services) -> None:
    put(services, {f"gone{n:03}": plain((200, 0, 0)) for n in range(120)})
    hits = search_image(services, "colours", png(plain((200, 0, 0))), top=3)
    assert hits[0].image_id == "red0"
    assert {hit.image_id for hit in hits} == {"red0", "red1", "red2"}


def test_what_cannot_be_searched_is_said(services: Services, run: dict[str, Any]) -> None:
    red = png(plain((200, 0, 0)))
    with pytest.raises(NotFound, match=r"no collection 'other'\. There are: colours\."):
        search_image(services, "other", red, top=1)
    for top in (0, 1001):
        with pytest.raises(InvalidInput, match="1 to 1000"):
            search_image(services, "colours", red, top=top)
    with pytest.raises(RejectedImage):
        search_image(services, "colours", b"no picture", top=1)
    with pytest.raises(InvalidInput, match="pictures only"):
        search_text(services, "colours", "red", top=1)
    services.table.put({**run, "models": {"embedder": "builtin-v0"}})
    with pytest.raises(InvalidInput, match=r"of builtin-v0, .*run the collection again"):
        search_image(services, "colours", red, top=1)
    services.table.put({"pk": keys.COLLECTIONS_PK, "sk": "colours", "name": "colours"})
    with pytest.raises(InvalidInput, match="no finished run"):
        search_image(services, "colours", red, top=1)
