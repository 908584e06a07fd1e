"""The AWS adapters together on moto: an upload becomes the run that one machine publishes."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from imageclust import keys, wiring
from imageclust.models import RunConfig
from imageclust.steps import start_run as runs
from imageclust.wiring import Services

from functions import start_run
from local.workflows import LocalWorkflows
from tests.aws.conftest import Cloud, configure, finish, run_item
from tests.conftest import jpeg, picture
from tests.standins.fake_bedrock import BatchPlan

TITLES = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
PLAIN = {"embedder": "builtin", "labels": "off", "describer": "deterministic", "clusters": 3}


def everything_published(services: Services, run_id: str) -> dict[str, Any]:
    """What readers see of a run, without ids and times that differ from run to run."""
    run = run_item(services, run_id)
    items = services.table.query(keys.run_pk(run_id)).items
    members = []
    for item in items:
        if item["sk"].startswith("cluster#"):
            pk = keys.member_pk(run_id, item["cluster_id"], 0)
            members += services.table.query(pk).items
    for kept in (run, *items, *members):
        kept.pop("pk")
        kept.pop("run_id", None)
    volatile = ("sk", "created", "finished", "seconds", "exports", "exported", "made_of", "trigger",
                "config", "estimate", "cost")  # fmt: skip
    facts = {name: value for name, value in run.items() if name not in volatile}
    return {"run": facts, "items": items, "members": members}


def test_an_upload_becomes_the_same_published_run_as_on_one_machine(
    cloud: Cloud, make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    photos = make_photos(families=3, each=7)
    (photos / "broken é.jpg").write_bytes(b"not a picture")
    (photos / "copy of 0.jpg").write_bytes((photos / "family 0" / "0.jpg").read_bytes())
    configure(cloud.services, "holiday", PLAIN)

    cloud.upload(photos, "holiday")
    assert cloud.drain() == 23
    assert cloud.due() == [{"collection": "holiday"}], "many events, one schedule"
    run_id = start_run.handler(cloud.due()[0], None)["run_id"]
    item = cloud.execute(run_id)
    assert item["state"] == "SUCCEEDED"
    assert item["counts"] == {
        "seen": 23, "clustered": 21, "outliers": 0, "duplicates": 1, "rejected": 1,
    }  # fmt: skip
    on_aws = everything_published(cloud.services, run_id)
    collection = cloud.services.table.get(keys.COLLECTIONS_PK, "holiday")
    assert collection is not None
    assert collection["current_run"] == run_id
    assert collection.get("running_run") is None

    from local.home import open_services

    local = open_services(tmp_path / "home")
    wiring.use(local)
    try:
        configure(local, "holiday", PLAIN)
        (tmp_path / "home" / "uploads" / "holiday").symlink_to(photos)
        local_id = runs.start_run(
            local,
            collection="holiday",
            config=RunConfig.from_json(PLAIN),
            trigger="cli",
            now=datetime.now(UTC),
        )
        assert isinstance(local.workflows, LocalWorkflows)
        assert local.workflows.wait(local_id).status == "SUCCEEDED"
        assert everything_published(local, local_id) == on_aws
    finally:
        local.close()


def test_an_upload_during_a_run_starts_another_after_it(
    cloud: Cloud, make_photos: Callable[..., Path]
) -> None:
    photos = make_photos(families=2, each=4)
    configure(cloud.services, "holiday", {**PLAIN, "clusters": 2})
    cloud.upload(photos, "holiday")
    cloud.drain()
    first = start_run.handler(cloud.due()[0], None)["run_id"]
    boto3.client("s3").put_object(Bucket="uploads", Key="holiday/late.jpg", Body=jpeg(picture(77)))
    cloud.drain()
    assert start_run.handler({"collection": "holiday"}, None)["run_id"] is None
    cloud.execute(first)
    assert cloud.due() == [{"collection": "holiday"}]
    second = start_run.handler(cloud.due()[0], None)["run_id"]
    assert second not in (None, first)
    assert cloud.execute(second)["counts"]["seen"] == 9


def test_rekognition_labels_and_bedrock_names(
    cloud: Cloud, make_photos: Callable[..., Path]
) -> None:
    photos = make_photos(families=3, each=6)
    configure(cloud.services, "holiday", {"embedder": "builtin", "clusters": 3})
    cloud.upload(photos, "holiday")
    cloud.drain()
    run_id = start_run.handler(cloud.due()[0], None)["run_id"]
    item = cloud.execute(run_id)
    assert item["models"]["labeler"].startswith("rekognition")
    clusters = cloud.services.table.query(keys.run_pk(run_id), prefix="cluster#").items
    assert len(clusters) == 3
    assert all(cluster["labels"] for cluster in clusters)
    assert all("claude" in cluster["described_by"] for cluster in clusters)
    assert len({cluster["title"] for cluster in clusters}) == 3

    units = {stage: row["units"] for stage, row in item["cost"]["stages"].items()}
    assert units["labels"] == {"rekognition_image": 18}
    assert set(units["naming"]) == {f"tokens_{way}/{TITLES}" for way in ("in", "out")}
    assert min(units["naming"].values()) > 0
    # Three batches of eight in each of two maps, and the run's own states.
    assert units["workflow"] == {"transition": 20 + 3 * 2 * 3}
    # (moto tells one unit of a batch of writes, DynamoDB one of each.)
    assert units["table"]["table_write"] > 0
    assert units["table"]["table_read"] > 0
    assert units["storage"]["s3_put"] > 18
    assert 128 * 1024 / 1e9 < units["vectors"]["vector_put_gb"] < 256 * 1024 / 1e9
    assert item["cost"]["stages"]["labels"]["usd"] == pytest.approx(0.018)
    total = sum(row["usd"] for row in item["cost"]["stages"].values())
    assert item["cost"]["usd"] == pytest.approx(total, abs=1e-5)
    assert item["estimate"]["stages"]["labels"] == pytest.approx(0.018)


@pytest.mark.parametrize("status", ["Completed", "Failed"])
def test_bedrock_batch_names_and_their_fallback(
    cloud: Cloud, make_photos: Callable[..., Path], status: str
) -> None:
    cloud.bedrock.batch = BatchPlan(polls=1, status=status, minimum=1)
    # Tokens must come back to the runner that waits for them.
    services = replace(cloud.services, workflows=cloud.workflows)
    wiring.use(services)
    photos = make_photos(families=3, each=6)
    configure(services, "holiday", {"embedder": "builtin", "clusters": 3, "describe": "batch"})
    cloud.upload(photos, "holiday")
    run_id = runs.start_run(
        services,
        collection="holiday",
        config=RunConfig.from_json({"embedder": "builtin", "clusters": 3, "describe": "batch"}),
        trigger="api",
        now=datetime.now(UTC),
    )
    item = finish(cloud, run_id)
    assert item["state"] == "SUCCEEDED"
    assert ("DescribeInBatch" in item["seconds"]) == (status == "Completed")
    clusters = services.table.query(keys.run_pk(run_id), prefix="cluster#").items
    assert all("claude" in cluster["described_by"] for cluster in clusters)
    paid = set(item["cost"]["stages"]["naming"]["units"])
    # A job that failed after it answered was paid too, and its answers are used.
    assert paid == {f"batch_tokens_{way}/{TITLES}" for way in ("in", "out")}


def test_the_batch_job_embeds_the_same_manifest(
    cloud: Cloud, make_photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from imageclust import batch

    services = replace(
        cloud.services, settings=replace(cloud.services.settings, gpu_enabled=True, gpu_from=1)
    )
    wiring.use(services)
    cloud.upload(make_photos(families=2, each=5), "holiday")
    configure(services, "holiday", PLAIN)
    from functions import plan_run

    request = {
        "run_id": "holiday-20261122T000000-00000000", "collection": "holiday",
        "config": {**PLAIN, "clusters": 2}, "trigger": "api",
    }  # fmt: skip
    plan = plan_run.handler(request, None)
    assert plan["embed"]["placement"] == "gpu"
    manifest = keys.join_uri(plan["embed"]["manifest"]["bucket"], plan["embed"]["manifest"]["key"])
    for index in ("0", "1"):
        monkeypatch.setenv("AWS_BATCH_JOB_ARRAY_INDEX", index)
        arguments = ["embed", "--run", request["run_id"], "--collection", "holiday"]
        arguments += ["--model", plan["embed"]["model"], "--manifest", manifest, "--jobs", "2"]
        assert batch.main([str(a) for a in arguments]) == 0
    again = plan_run.handler(request, None)
    assert again["embed"]["placement"] == "none"


def test_a_model_that_is_not_enabled_is_found_by_the_plan(
    cloud: Cloud, make_photos: Callable[..., Path]
) -> None:
    cloud.bedrock.not_enabled = True
    wiring.use(replace(cloud.services, workflows=cloud.workflows))
    cloud.upload(make_photos(families=2, each=4), "holiday")
    configure(cloud.services, "holiday", PLAIN)
    config = {**PLAIN, "embedder": "amazon.titan-embed-image-v1", "labels": "full"}
    run_id = runs.start_run(
        replace(cloud.services, workflows=cloud.workflows),
        collection="holiday",
        config=RunConfig.from_json({**config, "clusters": 2}),
        trigger="api",
        now=datetime.now(UTC),
    )
    assert cloud.workflows.wait(run_id).status == "FAILED"
    failure = run_item(cloud.services, run_id)["failure"]
    assert failure["state"] == "PlanRun"
    assert "ask for access" in str(failure), "and before Rekognition was paid"
    assert not boto3.client("s3").list_objects_v2(Bucket="data", Prefix="labels/").get("Contents")
