"""Several describers in the workflow: on demand and in batch, whole, in part and not at all."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from imageclust import keys, wiring
from imageclust.steps import browse

from tests.aws.conftest import Cloud, configure, run_item, run_to_end, start
from tests.standins.endpoint import AwsError
from tests.standins.fake_bedrock import BatchPlan, name_from_facts

HAIKU = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
NOVA = "amazon.nova-micro-v1:0"
BOTH = {"embedder": "builtin", "labels": "off", "clusters": 3, "describer": f"auto, {NOVA}"}


@pytest.fixture
def cloud(cloud: Cloud, make_photos: Callable[..., Path]) -> Cloud:
    """Three families of pictures uploaded, models that say who they are."""
    services = replace(cloud.services, workflows=cloud.workflows)
    wiring.use(services)
    configure(services, "holiday", {})
    cloud.upload(make_photos(families=3, each=4), "holiday")
    cloud.bedrock.reply = signed
    return replace(cloud, services=services)


def signed(request: dict[str, Any]) -> str:
    told = json.loads(name_from_facts(request))
    return json.dumps({**told, "phrase": f"says {request['modelId']}"})


def run(cloud: Cloud, **more: Any) -> dict[str, Any]:
    return run_to_end(cloud, {**BOTH, **more})


def clusters(cloud: Cloud, item: dict[str, Any]) -> list[browse.ClusterView]:
    listed = browse.list_clusters(cloud.services, item["run_id"], limit=100, cursor=None).items
    assert len(listed) == 3
    assert len({cluster.title.casefold() for cluster in listed}) == 3
    return list(listed)


def told_by(cluster: browse.ClusterView) -> list[str]:
    return [answer.described_by for answer in cluster.answers]


def test_every_answer_is_kept_and_the_first_is_shown(cloud: Cloud) -> None:
    item = run(cloud, describe="on_demand")
    for cluster in clusters(cloud, item):
        assert told_by(cluster) == [HAIKU, NOVA]
        assert cluster.described_by == HAIKU
        assert cluster.phrase == f"says {HAIKU}"
    assert item["notes"] == []
    exported = keys.join_uri("data", keys.export_key(item["run_id"], "clusters.json"))
    (first, *_) = json.loads(cloud.services.store.read(exported))
    assert [answer["described_by"] for answer in first["answers"]] == [HAIKU, NOVA]
    # The same clusters again are not asked for again.
    before = len(cloud.bedrock.conversations)
    run(cloud, describe="on_demand")
    assert len(cloud.bedrock.conversations) == before == 6


def test_titles_of_one_and_descriptions_of_another(cloud: Cloud) -> None:
    for cluster in clusters(cloud, run(cloud, descriptions_by=NOVA)):
        assert cluster.described_by == f"{HAIKU}; text by {NOVA}"
        assert cluster.phrase == f"says {NOVA}"
        assert told_by(cluster) == [HAIKU, NOVA]


def test_models_that_see_are_shown_exemplars(cloud: Cloud) -> None:
    run(cloud, describe="on_demand")
    shown = {
        (request["modelId"], sum("image" in part for part in request["messages"][0]["content"]))
        for request in cloud.bedrock.conversations
    }
    assert shown == {(HAIKU, 4), (NOVA, 0)}


def test_a_model_near_its_end_is_used_with_a_note(cloud: Cloud) -> None:
    cloud.bedrock.lifecycles[NOVA] = {"status": "LEGACY"}
    item = run(cloud, describe="on_demand")
    (note,) = item["notes"]
    assert note == f"the Bedrock model {NOVA} is going out of use: plan for another"
    asked = len(cloud.bedrock.checked)
    assert asked == 4, "each model of the run once for its life, once for what it takes"
    run(cloud, describe="on_demand")
    assert len(cloud.bedrock.checked) == asked, "a process asks once"


@pytest.mark.parametrize("describe", ["on_demand", "batch"])
def test_a_model_that_is_gone_is_refused_before_anything_is_paid(
    cloud: Cloud, describe: str
) -> None:
    cloud.bedrock.lifecycles[HAIKU.removeprefix("us.")] = None
    run_id = start(cloud, {**BOTH, "describe": describe, "labels": "full"})
    assert cloud.workflows.wait(run_id).status == "FAILED"
    item = run_item(cloud.services, run_id)
    assert item["state"] == "INVALID"
    assert f"The Bedrock model {HAIKU} does not exist in this region" in item["failure"]["cause"]
    assert item["failure"]["state"] == "PlanRun"
    assert (cloud.bedrock.conversations, cloud.bedrock.jobs) == ([], {})


def test_a_run_without_language_models_asks_nothing(cloud: Cloud) -> None:
    run(cloud, describer="deterministic")
    assert cloud.bedrock.checked == []


def closed(*models: str) -> Callable[[dict[str, Any]], str]:
    def reply(request: dict[str, Any]) -> str:
        if request["modelId"] in models:
            raise AwsError("AccessDeniedException", "You don't have access to the model")
        return signed(request)

    return reply


def test_a_model_that_fails_leaves_the_others_and_is_asked_again_by_the_next_run(
    cloud: Cloud,
) -> None:
    cloud.bedrock.reply = closed(HAIKU)
    item = run(cloud, describe="on_demand")
    assert {cluster.described_by for cluster in clusters(cloud, item)} == {NOVA}
    (note,) = item["notes"]
    assert "the describer auto did not name the clusters" in note
    assert "access" in note
    cloud.bedrock.reply = signed
    item = run(cloud, describe="on_demand")
    assert {cluster.described_by for cluster in clusters(cloud, item)} == {HAIKU}
    assert item["notes"] == []


def test_the_deterministic_describer_is_always_there(cloud: Cloud) -> None:
    cloud.bedrock.reply = closed(HAIKU, NOVA)
    item = run(cloud, describe="on_demand")
    assert all(c.described_by.startswith("deterministic") for c in clusters(cloud, item))
    assert len(item["notes"]) == 2


def test_a_job_for_each_model(cloud: Cloud) -> None:
    cloud.bedrock.batch = BatchPlan(minimum=1, polls=2, hidden=1)
    item = run(cloud, describe="batch")
    assert sorted(job.request["modelId"] for job in cloud.bedrock.jobs.values()) == [NOVA, HAIKU]
    assert cloud.bedrock.conversations == []
    for cluster in clusters(cloud, item):
        assert told_by(cluster) == [HAIKU, NOVA]
        assert cluster.phrase == f"says {HAIKU}"
    assert cloud.services.table.query(keys.TOKENS_PK).items == ()


@pytest.mark.parametrize("status", ["Failed", "Expired", "Stopped"])
def test_a_job_that_fails_is_made_up_for_on_demand(cloud: Cloud, status: str) -> None:
    cloud.bedrock.batch = BatchPlan(minimum=1)
    cloud.bedrock.batches[NOVA] = BatchPlan(minimum=1, status=status, polls=4, processed=0)
    item = run(cloud, describe="batch")
    assert "DescribeInBatch" in item["seconds"]
    assert {request["modelId"] for request in cloud.bedrock.conversations} == {NOVA}
    assert all(told_by(cluster) == [HAIKU, NOVA] for cluster in clusters(cloud, item))


def test_failed_records_are_asked_for_on_demand(cloud: Cloud) -> None:
    cloud.bedrock.batch = BatchPlan(
        minimum=1, status="PartiallyCompleted", fail=frozenset({"c0002"}), seed=3
    )
    item = run(cloud, describe="batch")
    assert len(cloud.bedrock.conversations) == 2
    assert all(told_by(cluster) == [HAIKU, NOVA] for cluster in clusters(cloud, item))


def test_all_jobs_expire_and_what_they_wrote_is_used(cloud: Cloud) -> None:
    cloud.bedrock.batch = BatchPlan(minimum=1, status="Expired", processed=2 / 3)
    item = run(cloud, describe="batch")
    assert "DescribeInBatch" not in item["seconds"]
    assert len(cloud.bedrock.conversations) == 2, "one cluster of three, two models"
    assert all(told_by(cluster) == [HAIKU, NOVA] for cluster in clusters(cloud, item))


def test_a_job_that_cannot_be_created_does_not_stop_the_other(cloud: Cloud) -> None:
    cloud.bedrock.batch = BatchPlan(minimum=1)
    cloud.bedrock.refuse_jobs_of = NOVA
    item = run(cloud, describe="batch")
    assert len(cloud.bedrock.jobs) == 1
    assert all(told_by(cluster) == [HAIKU, NOVA] for cluster in clusters(cloud, item))
