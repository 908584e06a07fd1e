"""PlanRun: which files, which images, and what is left to do."""

from dataclasses import replace
from typing import Any

import pytest
from imageclust import keys
from imageclust.clustering import ClusteringConfig
from imageclust.errors import InvalidInput, NotFound
from imageclust.models import FileSeen, ImageRef, RunConfig, RunRequest, to_json_lines
from imageclust.steps.gather import read_files
from imageclust.steps.plan_run import _check_memory, _most_in_a_batch, clustering_config, plan_run
from imageclust.wiring import Services

from tests.conftest import jpeg, picture

PLAIN: dict[str, Any] = {"embedder": "builtin", "labels": "off"}


def upload(services: Services, count: int) -> None:
    for number in range(count):
        uri = keys.join_uri("uploads", f"c/{number:02d}.jpg")
        services.store.write(uri, jpeg(picture(number)))


def planned(services: Services, **more: Any) -> list[FileSeen]:
    keep = more.pop("keep", ())
    request = RunRequest("r", "c", RunConfig(**PLAIN, **more), "api")
    return read_files(services, plan_run(services, request, keep=keep)["files"])


def paths(files: list[FileSeen]) -> set[str]:
    return {file.path for file in files}


def test_a_larger_sample_holds_the_smaller_one(services: Services) -> None:
    upload(services, 20)
    small, large = planned(services, sample=0.2), planned(services, sample=0.5)
    assert (len(small), len(large)) == (4, 10)
    assert paths(small) < paths(large)
    assert paths(planned(services, sample=0.2)) == paths(small)
    assert paths(planned(services, sample=0.2, seed=1)) != paths(small)


def test_named_files_stay_in_the_sample(services: Services) -> None:
    upload(services, 20)
    small = paths(planned(services, sample=0.1))
    named = {f"{n:02d}.jpg" for n in (3, 7, 11)}
    assert paths(planned(services, sample=0.1, keep=named)) == small | named


def test_content_is_read_once(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(services, 5)
    first = planned(services)
    read: list[str] = []
    original = services.store.read

    def counting(uri: str) -> bytes:
        read.append(uri)
        return original(uri)

    monkeypatch.setattr(services.store, "read", counting)
    assert planned(services) == first
    assert not [uri for uri in read if uri.startswith("s3://uploads/")]
    services.store.write("s3://uploads/c/02.jpg", jpeg(picture(99)) + b"changed")
    changed = planned(services)
    assert [uri for uri in read if "uploads" in uri] == ["s3://uploads/c/02.jpg"]
    assert changed[2].image_id != first[2].image_id
    assert [file.path for file in changed] == [file.path for file in first]


def test_a_file_that_goes_while_it_is_read_has_a_reason(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(services, 3)
    original = services.store.read

    def vanishing(uri: str) -> bytes:
        if uri.endswith("01.jpg"):
            raise NotFound("gone")
        return original(uri)

    monkeypatch.setattr(services.store, "read", vanishing)
    found = planned(services)
    assert [bool(file.image_id) for file in found] == [True, False, True]
    assert "removed while" in (found[1].reason or "")


def test_when_time_is_up_what_was_read_stays_read(services: Services) -> None:
    upload(services, 3)
    times = iter([0.0, *[10_000.0] * 10])
    request = RunRequest("r", "c", RunConfig(**PLAIN), "api")
    plan = plan_run(services, request, clock=lambda: next(times))
    assert plan["complete"], "one chunk is always done"
    assert plan["images"]["distinct"] == 3


def test_the_search_is_told_its_budget_and_weights() -> None:
    config = RunConfig.from_json({"search_seconds": 90, "silhouette_weight": 1, "noise_weight": 0})
    asked = clustering_config(config)
    assert asked.time_budget_s == 90
    assert asked.weights == (1.0, 0.4, 0.0)
    assert clustering_config(RunConfig()) == ClusteringConfig()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"search_seconds": 0}, "search_seconds must be more than 0"),
        ({"search_seconds": float("nan")}, "search_seconds must be more than 0"),
        ({"balance_weight": -0.1}, "balance_weight must not be negative"),
        ({"noise_weight": float("inf")}, "noise_weight must not be negative"),
        (
            {"silhouette_weight": 0, "balance_weight": 0, "noise_weight": 0},
            "at least one of silhouette_weight, balance_weight, noise_weight",
        ),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(given: dict[str, float], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        RunConfig.from_json(given)


def test_a_batch_of_long_names_fits_into_a_state() -> None:
    images = [
        ImageRef(f"{n:064x}", f"s3://uploads/holiday/{'写' * 330}{n}.jpg", 1) for n in range(500)
    ]
    most = _most_in_a_batch(images)
    assert 64 <= most < 500
    assert len(to_json_lines([image.to_json() for image in images[:most]])) < 256 * 1024
    assert _most_in_a_batch([ImageRef("a" * 64, "s3://uploads/holiday/1.jpg", 1)]) > 500


def test_more_images_than_the_memory_holds_are_refused_before_anything_is_paid(
    services: Services,
) -> None:
    upload(services, 4)
    config = RunConfig.from_json(PLAIN)
    dimension = services.open_embedder("builtin", "default").dimension
    small = replace(services.settings, cluster_memory_mb=1)
    _check_memory(30, dimension, config, small)
    with pytest.raises(InvalidInput, match=r"memory of ClusterImages .* set sample to 0\.\d+ or"):
        _check_memory(1_000, dimension, config, small)
    # A million pictures of the usual model, in the largest function that there is.
    large = replace(services.settings, cluster_memory_mb=10_240)
    with pytest.raises(InvalidInput, match="1,000,000 images with vectors of 1,280 numbers"):
        _check_memory(1_000_000, 1_280, config, large)
    _check_memory(50_000, 2_048, config, large)
    _check_memory(1_000_000, 1_280, config, services.settings)  # on one machine: its own affair


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"label_weight": 0.5}, True),
        ({"label_weight": 0.5, "labels": "full"}, True),  # and no model that gives any
        ({"label_weight": 0.0}, False),
        ({}, False),
    ],
)
def test_a_label_weight_without_labels_is_told(
    services: Services, asked: dict[str, Any], told: bool
) -> None:
    upload(services, 3)
    plan = plan_run(services, RunRequest("r", "c", RunConfig(**PLAIN | asked), "api"))
    note = "the label weight counts for nothing: this run has no labels"
    assert (note in plan["notes"]) == told
