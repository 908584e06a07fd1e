"""The cap of a run, in the workflow: what is given up, and what is refused before it is paid."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from imageclust.costs import Place, estimate
from imageclust.models import RunConfig

from tests.aws.conftest import Cloud, configure, run_item, start

ASKED = RunConfig(embedder="builtin", labeler="rekognition", clusters=2, method="kmeans")
IMAGES = 40


def ended(cloud: Cloud, photos: Path, config: RunConfig) -> tuple[str, dict[str, Any]]:
    """How the execution of a run over the photos ended, and the run's item."""
    configure(cloud.services, "holiday", config.to_json())
    cloud.upload(photos, "holiday")
    run_id = start(cloud, config.to_json())
    return cloud.workflows.wait(run_id).status, run_item(cloud.services, run_id)


def test_a_run_above_its_cap_labels_exemplars_only_and_stays_below(
    cloud: Cloud, make_photos: Callable[..., Path]
) -> None:
    place = Place.of(cloud.services.settings)
    full = estimate(IMAGES, ASKED, place=place).usd
    fewer = estimate(IMAGES, replace(ASKED, labels="exemplars"), place=place).usd
    cap = (full + fewer) / 2
    photos = make_photos(families=2, each=IMAGES // 2)
    status, item = ended(cloud, photos, replace(ASKED, max_cost_usd=cap))
    assert status == "SUCCEEDED"
    assert item["config"]["labels"] == "exemplars"
    assert "labels are given to exemplars only" in item["notes"][-1]
    assert 0 < item["cost"]["stages"]["labels"]["units"]["rekognition_image"] < IMAGES / 2
    assert item["estimate"]["usd"] <= cap
    assert item["counts"]["seen"] == IMAGES


def test_a_run_that_no_form_of_keeps_the_cap_is_refused_before_it_pays(
    cloud: Cloud, make_photos: Callable[..., Path]
) -> None:
    photos = make_photos(families=2, each=3)
    status, item = ended(cloud, photos, replace(ASKED, max_cost_usd=0.0001))
    assert status == "FAILED"
    assert item["state"] == "INVALID"
    assert "max_cost_usd" in item["failure"]["cause"]
    assert item["failure"]["state"] == "PlanRun"
    assert "labels" not in item["cost"]["stages"]
    assert "naming" not in item["cost"]["stages"]
    assert cloud.bedrock.conversations == []
