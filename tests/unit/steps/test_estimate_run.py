"""Estimates of a collection: what is stored is taken off, nothing is read."""

from dataclasses import replace
from typing import Any

import pytest
from imageclust import keys
from imageclust.costs import Place
from imageclust.errors import InvalidInput, NotFound, OverBudget
from imageclust.models import RunConfig
from imageclust.settings import Settings
from imageclust.steps import estimate_run as module
from imageclust.steps.estimate_run import estimate_run
from imageclust.wiring import Services

ON_AWS = Place(Settings())


def make(services: Services, files: int, *, known: int = 0, stored: int = 0, **run: Any) -> None:
    """A collection of ``files``; of ``known`` the content is known, of ``stored`` the vector."""
    services.table.put({"pk": keys.COLLECTIONS_PK, "sk": "c", "name": "c", "current_run": "c-1"})
    services.table.put(
        {
            "pk": keys.collection_pk("c"),
            "sk": keys.run_sk("c-1"),
            "state": "SUCCEEDED",
            "config": RunConfig(embedder="builtin", labeler="rekognition", **run).to_json(),
            "models": {"embedder": "builtin-1", "labeler": "rekognition-1"},
        }
    )
    for number in range(files):
        services.store.write(f"s3://uploads/c/{number:04d}.jpg", b"x")
    for number, item in enumerate(services.store.list("uploads", "c/")):
        image_id = f"{number:064x}"
        if number < known:
            pointer = {"etag": item.etag, "size": item.size, "image_id": image_id}
            services.table.put({"pk": keys.seen_pk(item.uri), "sk": "-", **pointer})
        if number < stored:
            for pk in (
                keys.vector_pk("builtin-1", image_id),
                keys.label_pk("rekognition-1", image_id),
            ):
                services.table.put({"pk": pk, "sk": "-", "rejected": {}})


def units(services: Services, **more: Any) -> dict[str, dict[str, float]]:
    asked = {"collection": "c", "place": ON_AWS, "config": RunConfig(), **more}
    return {stage: dict(of) for stage, of in estimate_run(services, **asked).estimate.units.items()}


def test_what_is_stored_is_taken_off(services: Services) -> None:
    make(services, 50, known=30, stored=20)
    assert units(services)["labels"] == {"rekognition_image": 30}
    assert units(services)["embedding"]["lambda_gb_second"] == pytest.approx(30 * 3 * 0.5)


def test_other_models_have_nothing_stored(services: Services) -> None:
    make(services, 50, known=50, stored=50)
    assert units(services)["labels"] == {"rekognition_image": 0}
    asked = RunConfig(embedder="amazon.titan-embed-image-v1", preprocess="letterbox")
    assert units(services, config=asked)["embedding"] == {"titan_embed_image": 50}


def test_copies_count_once(services: Services) -> None:
    make(services, 10, known=10)
    for item in services.store.list("uploads", "c/"):
        pointer = {"etag": item.etag, "size": item.size, "image_id": "a" * 64}
        services.table.put({"pk": keys.seen_pk(item.uri), "sk": "-", **pointer})
    found = estimate_run(services, config=RunConfig(), collection="c", place=ON_AWS)
    assert (found.estimate.images, found.known and found.known.files) == (1, 10)


def test_a_large_collection_is_looked_up_in_part(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(services, 100, known=50, stored=50)
    monkeypatch.setattr(module, "_LOOKED_UP", 20)
    found = estimate_run(services, config=RunConfig(), collection="c", place=ON_AWS)
    assert found.estimate.images == 100
    assert found.known is not None
    assert found.known.cached.vectors == 50
    assert found.notes == ("20 of 100 files were looked up and stand for the rest",)


def test_a_sample_is_a_share_of_all(services: Services) -> None:
    make(services, 40, known=40, stored=20)
    asked = RunConfig(sample=0.25)
    found = estimate_run(services, config=asked, collection="c", place=ON_AWS)
    assert found.estimate.units["labels"] == {"rekognition_image": 5}
    assert found.config == asked


def test_the_cap_is_applied(services: Services) -> None:
    asked = RunConfig(max_cost_usd=2)
    found = estimate_run(services, config=asked, images=10_000, place=ON_AWS)
    assert found.config.labels == "exemplars"
    assert found.estimate.usd <= 2
    with pytest.raises(OverBudget):
        estimate_run(services, config=replace(asked, max_cost_usd=0.1), images=10_000, place=ON_AWS)


def test_what_cannot_be_estimated(services: Services) -> None:
    with pytest.raises(InvalidInput, match="give one"):
        estimate_run(services, config=RunConfig())
    with pytest.raises(InvalidInput, match="give one"):
        estimate_run(services, config=RunConfig(), images=1, collection="c")
    with pytest.raises(NotFound, match="no collection 'c'"):
        estimate_run(services, config=RunConfig(), collection="c")


def test_an_empty_collection_and_a_machine_cost_nothing(services: Services) -> None:
    make(services, 0)
    assert estimate_run(services, config=RunConfig(), collection="c").estimate.usd == 0
    assert estimate_run(services, config=RunConfig(), images=50).estimate.usd == 0
