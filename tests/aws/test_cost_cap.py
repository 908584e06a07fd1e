"""The cap of a run, in the workflow: what is given up, and what is refused before it is paid."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from imageclust.costs import Place, estimate
from imageclust.models import RunConfig
from imageclust.steps import start_run as runs

from tests.aws.conftest import Cloud, configure, run_item

ASKED = RunConfig(embedder="builtin", labeler="rekognition", clusters=2, method="kmeans")
IMAGES = 40


def start(cloud: Cloud, photos: Path, config: RunConfig) -> str:
    configure(cloud.services, "holiday", config.to_json())
    cloud.upload(photos, "holiday")
    return runs.start_run(
        cloud.services, collection="holiday", config=config, trigger="api", now=datetime.now(UTC)
    )


def test_a_run_above_its_cap_labels_exemplars_only_and_stays_below(
    cloud: Cloud, make_photos: Callable[..., Path]
) -> None:
    place = Place.of(cloud.services.settings)
    full = estimate(IMAGES, ASKED, place=place).usd
    fewer = estimate(IMAGES, replace(ASKED, labels="exemplars"), place=place).usd
    cap = (full + fewer) / 2
    run_id = start(
        cloud, make_photos(families=2, each=IMAGES // 2), replace(ASKED, max_cost_usd=cap)
    )
    item = cloud.execute(run_id)
    assert item["config"]["labels"] == "exemplars"
    assert "labels are given to exemplars only" in item["notes"][-1]
    assert 0 < item["cost"]["stages"]["labels"]["units"]["rekognition_image"] < IMAGES / 2
    assert item["estimate"]["usd"] <= cap
    assert item["counts"]["seen"] == IMAGES


def test_a_run_that_no_form_of_keeps_the_cap_is_refused_before_it_pays(
    cloud: Cloud, make_photos: Callable[..., Path]
) -> None:
    photos = make_photos(families=2, each=3)
    run_id = start(cloud, photos, replace(ASKED, max_cost_usd=0.0001))
    request = {"run_id": run_id, "collection": "holiday", "trigger": "api"}
    config = replace(ASKED, max_cost_usd=0.0001).to_json()
    cloud.workflows.start(run_id, {**request, "config": config})
    assert cloud.workflows.wait(run_id).status == "FAILED"
    item = run_item(cloud.services, run_id)
    assert item["state"] == "INVALID"
    assert "max_cost_usd" in item["failure"]["cause"]
    assert item["failure"]["state"] == "PlanRun"
    assert "labels" not in item["cost"]["stages"]
    assert "naming" not in item["cost"]["stages"]
    assert cloud.bedrock.conversations == []
