"""Embedding by Bedrock's batch inference on moto, with its awkward truths, against on demand."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import boto3
import numpy as np
import pytest
from imageclust import keys, wiring
from imageclust.adapters.aws.bedrock_embedder import BedrockBatchEmbedder
from imageclust.errors import InvalidInput, StoreUnavailable
from imageclust.models import RunConfig, RunState, parse_json_lines
from imageclust.steps import start_run as runs
from imageclust.steps.batch_jobs import job_name
from imageclust.steps.gather import gather
from imageclust.wiring import Services
from numpy.typing import NDArray

from functions import batch_job_event, embed, embed_in_batch, plan_run
from tests.aws.conftest import Cloud, configure, finish
from tests.conftest import jpeg, picture
from tests.standins.account import without_waiting
from tests.standins.fake_bedrock import BatchPlan

TITAN = "amazon.titan-embed-image-v1"
NOVA = "amazon.nova-2-multimodal-embeddings-v1:0"
CONFIG: dict[str, Any] = {
    "embedder": TITAN, "labels": "off", "describer": "deterministic", "method": "kmeans",
    "clusters": 2, "embed": "batch",
}  # fmt: skip
IMAGES = 20


@pytest.fixture
def services(cloud: Cloud) -> Services:
    """The cloud's, with tokens that come back to the runner and jobs of 10 records or more."""
    settings = replace(cloud.services.settings, bedrock_batch_minimum=10)
    made = replace(cloud.services, workflows=cloud.workflows, settings=settings)
    wiring.use(made)
    cloud.bedrock.batch = BatchPlan(minimum=10)
    configure(made, "holiday", {})
    return made


def upload(cloud: Cloud) -> list[str]:
    """``IMAGES`` photos and one that is none; the image ids of the photos in order."""
    s3 = boto3.client("s3")
    for number in range(IMAGES):
        data = jpeg(picture(number, size=(90 + 7 * number, 640)))
        s3.put_object(Bucket="uploads", Key=f"holiday/{number:02d}.jpg", Body=data)
    s3.put_object(Bucket="uploads", Key="holiday/broken.jpg", Body=b"not a picture")
    return sorted(
        sha256(jpeg(picture(n, size=(90 + 7 * n, 640)))).hexdigest() for n in range(IMAGES)
    )


def start(services: Services, **more: Any) -> str:
    return runs.start_run(
        services,
        collection="holiday",
        config=RunConfig.from_json({**CONFIG, **more}),
        trigger="api",
        now=datetime.now(UTC),
    )


def vectors(services: Services, ids: list[str], model: str = TITAN) -> NDArray[np.float32]:
    found = gather(services, ids, services.open_embedder(model, "default").key, run="")
    assert found.image_ids == tuple(ids)
    assert all(fact["width"] for fact in found.facts.values())
    return found.vectors


def on_demand(services: Services, ids: list[str], model: str = TITAN) -> NDArray[np.float32]:
    """What the same photos get without a job, straight from the embedder."""
    embedder = services.open_embedder(model, "default")
    contents = [
        services.store.read(item.uri)
        for item in services.store.list("uploads", "holiday/")
        if not item.uri.endswith("broken.jpg")
    ]
    contents.sort(key=lambda data: sha256(data).hexdigest())
    pixels = [item.pixels for item in services.decode(contents, embedder.min_side)]  # type: ignore[union-attr]
    assert len(pixels) == len(ids)
    return embedder.embed(pixels).astype(np.float16).astype(np.float32)


AWKWARD = {
    "all well": (BatchPlan(), 0),
    "shuffled otherwise": (BatchPlan(seed=7), 0),
    "late": (BatchPlan(polls=4, hidden=2), 0),
    "partial": (BatchPlan(status="PartiallyCompleted", processed=0.5), 10),
    "failed": (BatchPlan(status="Failed", processed=0.0), IMAGES),
    "expired half-way": (BatchPlan(status="Expired", processed=0.5), 10),
    "stopped at once": (BatchPlan(status="Stopped", processed=0.0), IMAGES),
    "torn": (BatchPlan(status="PartiallyCompleted", torn=True), 3),
}


@pytest.mark.parametrize("case", AWKWARD)
def test_however_the_job_ends_every_image_has_its_vector(
    cloud: Cloud, services: Services, case: str
) -> None:
    plan, asked_again = AWKWARD[case]
    cloud.bedrock.batch = replace(plan, minimum=10)
    ids = upload(cloud)
    run_id = start(services)
    item = finish(cloud, run_id)
    assert item["counts"] == {
        "seen": 21, "clustered": 20, "outliers": 0, "duplicates": 0, "rejected": 1,
    }  # fmt: skip
    assert "21 images by batch inference" in item["models"]["placement"]
    assert len(cloud.bedrock.jobs) == 1
    assert cloud.bedrock.invocations == asked_again
    np.testing.assert_array_equal(vectors(services, ids), on_demand(services, ids))
    assert services.table.query(keys.TOKENS_PK).items == ()
    assert len(list(services.store.list("data", "thumbnails/"))) == IMAGES


def test_records_that_fail_are_missing_or_come_twice(cloud: Cloud, services: Services) -> None:
    ids = upload(cloud)
    cloud.bedrock.batch = BatchPlan(
        minimum=10,
        fail=frozenset(ids[:3]),
        lose=frozenset(ids[5:7]),
        repeat=frozenset(ids[10:15]),
    )
    item = finish(cloud, start(services))
    assert cloud.bedrock.invocations == 5
    assert item["cost"]["stages"]["embedding"]["units"] == {
        "batch_titan_embed_image": 15, "titan_embed_image": 5,
    }  # fmt: skip
    np.testing.assert_array_equal(vectors(services, ids), on_demand(services, ids))


def test_nova_by_batch_inference(cloud: Cloud, services: Services) -> None:
    ids = upload(cloud)
    finish(cloud, start(services, embedder=NOVA))
    (job,) = cloud.bedrock.jobs.values()
    assert job.request["modelId"] == NOVA
    assert job.request["modelInvocationType"] == "InvokeModel"
    assert cloud.bedrock.invocations == 0
    np.testing.assert_array_equal(vectors(services, ids, NOVA), on_demand(services, ids, NOVA))


def test_a_picture_that_the_model_refuses_is_rejected(cloud: Cloud, services: Services) -> None:
    ids = upload(cloud)
    refused: list[bytes] = []

    def first_only(data: bytes) -> bool:
        refused[:] = refused or [data]
        return data == refused[0]

    cloud.bedrock.refuses = first_only
    item = finish(cloud, start(services))
    assert item["counts"]["rejected"] == 2
    assert item["counts"]["clustered"] == IMAGES - 1
    rejected = services.table.query(keys.run_pk(item["run_id"]), prefix="file#rejected").items
    assert any("does not take this picture" in file["reason"] for file in rejected)
    assert len(ids) == IMAGES


def test_a_busy_service_is_asked_again(
    cloud: Cloud, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_waiting(monkeypatch)
    cloud.bedrock.batch = BatchPlan(minimum=10, status="Failed", processed=0.0)
    ids = upload(cloud)
    run_id = start(services)
    cloud.bedrock.throttle_next = 5
    finish(cloud, run_id)
    np.testing.assert_array_equal(vectors(services, ids), on_demand(services, ids))


def test_a_second_run_embeds_nothing(cloud: Cloud, services: Services) -> None:
    upload(cloud)
    finish(cloud, start(services))
    item = finish(cloud, start(services))
    assert item["models"]["placement"] == "every vector is already stored"
    assert len(cloud.bedrock.jobs) == 1


@pytest.mark.parametrize(
    ("more", "least", "why"),
    [
        ({"embed": "on_demand"}, 10, "asks for embeddings on demand"),
        ({}, 22, "21 images, below the 22 of a batch inference job"),
        ({"embed": "auto"}, 10, "21 images: batch inference would save less than $1.00"),
    ],
)
def test_few_images_or_on_request_there_is_no_job(
    cloud: Cloud, services: Services, more: dict[str, Any], least: int, why: str
) -> None:
    settings = replace(services.settings, bedrock_batch_minimum=least)
    services = replace(services, settings=settings)
    wiring.use(services)
    upload(cloud)
    item = finish(cloud, start(services, **more))
    assert why in item["models"]["placement"]
    assert cloud.bedrock.jobs == {}
    assert cloud.bedrock.invocations == IMAGES


def test_a_run_waits_for_jobs_where_they_save_the_stated_sum(
    cloud: Cloud, services: Services
) -> None:
    saving = 21 * 0.00003
    for sum_stated, jobs in ((saving * 1.01, 0), (saving * 0.99, 1)):
        settings = replace(services.settings, embed_batch_saving_usd=sum_stated)
        wiring.use(replace(services, settings=settings))
        upload(cloud)
        plan = planned(services, embed="auto")[0]["embed"]
        assert plan["jobs"] == jobs
        assert (plan["placement"] == "bedrock_batch") == bool(jobs)


def test_few_images_on_demand_use_the_whole_rate(cloud: Cloud, services: Services) -> None:
    settings = replace(services.settings, bedrock_embed_per_second=9.0, embed_batch=64)
    wiring.use(replace(services, settings=settings))
    upload(cloud)
    plan = planned(services, embed="on_demand")[0]["embed"]
    assert (plan["concurrency"], plan["batch"]) == (3, 8), "each function has a third of the rate"
    jobs = planned(services)[0]["embed"]
    assert (jobs["concurrency"], jobs["prepare_concurrency"], jobs["batch"]) == (3, 100, 64)


def test_bedrock_takes_no_preprocessing(cloud: Cloud, services: Services) -> None:
    with pytest.raises(InvalidInput, match="'default' with amazon"):
        services.open_embedder(TITAN, "letterbox")


def test_too_few_readable_images_start_no_job(cloud: Cloud, services: Services) -> None:
    """Files that are no pictures count in the plan but make no records."""
    services = replace(services, settings=replace(services.settings, bedrock_batch_minimum=21))
    wiring.use(services)
    ids = upload(cloud)
    item = finish(cloud, start(services))
    assert "21 images by batch inference" in item["models"]["placement"]
    assert cloud.bedrock.jobs == {}
    assert cloud.bedrock.invocations == IMAGES
    assert services.table.query(keys.TOKENS_PK).items == ()
    np.testing.assert_array_equal(vectors(services, ids), on_demand(services, ids))


def planned(services: Services, **more: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """PlanRun's answer, and the events that the Distributed Map makes of the manifest."""
    request = {
        "run_id": "holiday-20261122T000000-00000000", "collection": "holiday",
        "config": {**CONFIG, **more}, "trigger": "api",
    }  # fmt: skip
    plan = plan_run.handler(request, None)
    address = plan["embed"]["manifest"]
    rows = parse_json_lines(services.store.read(keys.join_uri(address["bucket"], address["key"])))
    common = {
        "run_id": request["run_id"], "collection": "holiday", "model": plan["embed"]["model"],
        "labeler": "", "parts": plan["embed"]["parts"],
    }  # fmt: skip
    size = plan["embed"]["batch"]
    events = [
        {"BatchInput": common, "Items": rows[at : at + size]} for at in range(0, len(rows), size)
    ]
    return plan, events


def prepare(event: dict[str, Any]) -> dict[str, Any]:
    return embed.handler({**event, "BatchInput": {**event["BatchInput"], "prepare": True}}, None)


def wait(event: dict[str, Any], token: str) -> dict[str, Any]:
    asked = {name: event["BatchInput"][name] for name in ("run_id", "model", "parts")}
    return embed_in_batch.handler({**asked, "token": token}, None)


class Answered:
    """Collects what is given back to waiting tasks."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def succeed(self, token: str, output: Any) -> None:
        self.told.append((token, output))

    def fail(self, token: str, error: str, cause: str) -> None:
        self.told.append((token, f"{error}: {cause}"))


def use_answers(services: Services) -> tuple[Services, Answered]:
    answered = Answered()
    made = replace(services, workflows=answered)  # type: ignore[arg-type]
    wiring.use(made)
    return made, answered


def test_steps_done_twice_submit_one_job_and_double_nothing(
    cloud: Cloud, services: Services
) -> None:
    services, answered = use_answers(services)
    ids = upload(cloud)
    plan, events = planned(services)
    assert plan["embed"]["placement"] == "bedrock_batch"
    assert sum(prepare(event)["records"] for event in events) == IMAGES
    written = list(services.store.list("data", "records/"))
    assert [prepare(event)["records"] for event in events] == [0, 0, 0]
    assert list(services.store.list("data", "records/")) == written
    assert wait(events[0], "token 1")["records"] == IMAGES
    wait(events[0], "token 2")
    assert (len(cloud.bedrock.jobs), cloud.bedrock.creations) == (1, 2)
    while batch_job_event.handler({}, None)["settled"] == 0:
        pass
    batch_job_event.handler({}, None)
    assert [token for token, _ in answered.told] == ["token 2"], "the newest waits"
    first = [embed.handler(event, None) for event in events]
    assert sum(answer["embedded"] for answer in first) == IMAGES
    shards = list(services.store.list("data", "vectors/"))
    again = [embed.handler(event, None) for event in events]
    assert [answer["embedded"] for answer in again] == [0, 0, 0]
    assert list(services.store.list("data", "vectors/")) == shards
    assert cloud.bedrock.invocations == 0
    np.testing.assert_array_equal(vectors(services, ids), on_demand(services, ids))


def test_a_run_that_was_stopped_while_it_waited_goes_on_with_the_same_job(
    cloud: Cloud, services: Services
) -> None:
    cloud.bedrock.batch = BatchPlan(minimum=10, polls=None)
    ids = upload(cloud)
    run_id = start(services)
    until(lambda: bool(cloud.bedrock.jobs))
    cloud.workflows.stop(run_id, "the process was killed")
    until(lambda: not cloud.workflows.running(run_id))
    written = {item.uri: item.etag for item in services.store.list("data", "records/")}

    request = {
        "run_id": run_id, "collection": "holiday", "config": CONFIG, "trigger": "api",
    }  # fmt: skip
    cloud.workflows.start(run_id, request)
    until(lambda: cloud.bedrock.creations == 2)
    (job,) = cloud.bedrock.jobs.values()
    cloud.bedrock.finish(job.request["jobName"])
    finish(cloud, run_id)
    assert cloud.bedrock.invocations == 0
    assert {item.uri: item.etag for item in services.store.list("data", "records/")} == written
    np.testing.assert_array_equal(vectors(services, ids), on_demand(services, ids))


def until(done: Callable[[], bool]) -> None:
    for _ in range(1200):
        if done():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to that")


def test_parts_are_jobs_and_one_that_is_refused_costs_its_own_records_only(
    cloud: Cloud, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BedrockBatchEmbedder, "records_a_job", 12)
    services, answered = use_answers(services)
    ids = upload(cloud)
    settings = replace(services.settings, bedrock_batch_minimum=2, embed_batch=4)
    services = replace(services, settings=settings)
    wiring.use(services)
    cloud.bedrock.batch = BatchPlan(minimum=2)
    plan, events = planned(services)
    assert (plan["embed"]["jobs"], len(plan["embed"]["parts"])) == (2, 2)
    for event in events:
        prepare(event)
    folders = [item.uri.split("/")[5] for item in services.store.list("data", "records/")]
    assert {name: folders.count(name) for name in folders} == {"00": 3, "01": 3, "facts": 6}
    second = job_name("embed", "holiday-20261122T000000-00000000", 1)
    cloud.bedrock.batch.refuse = frozenset({second})
    started = wait(events[0], "token")
    assert len(started["jobs"]) == 1
    assert second not in started["jobs"]
    while batch_job_event.handler({}, None)["settled"] == 0:
        pass
    assert len(answered.told) == 1
    for event in events:
        embed.handler(event, None)
    (job,) = cloud.bedrock.jobs.values()
    assert cloud.bedrock.invocations == IMAGES - job.counts["successRecordCount"]
    assert 0 < cloud.bedrock.invocations < IMAGES
    np.testing.assert_array_equal(vectors(services, ids), on_demand(services, ids))


def test_what_was_never_prepared_is_embedded_on_demand(cloud: Cloud, services: Services) -> None:
    services, _ = use_answers(services)
    ids = upload(cloud)
    _, events = planned(services)
    for event in events[1:]:
        prepare(event)
    wait(events[0], "token")
    while batch_job_event.handler({}, None)["settled"] == 0:
        pass
    for event in events:
        embed.handler(event, None)
    assert cloud.bedrock.invocations in (7, 8)
    np.testing.assert_array_equal(vectors(services, ids), on_demand(services, ids))


def test_a_large_picture_makes_a_light_record(cloud: Cloud, services: Services) -> None:
    services, _ = use_answers(services)
    upload(cloud)
    noise = np.random.default_rng(0).integers(0, 256, (1500, 3000, 3), dtype=np.uint8)
    boto3.client("s3").put_object(Bucket="uploads", Key="holiday/noise.jpg", Body=jpeg(noise))
    _, events = planned(services)
    for event in events:
        prepare(event)
    lines = [
        line
        for item in services.store.list("data", "records/")
        if "/facts/" not in item.uri
        for line in services.store.read(item.uri).splitlines()
    ]
    assert len(lines) == IMAGES + 1
    batch = services.open_batch_embedder(TITAN)
    assert batch is not None
    assert max(map(len, lines)) * batch.records_a_job <= 5_000_000_000


@pytest.mark.parametrize("state", ["CANCELLED", "FAILED"])
def test_the_jobs_of_a_run_that_is_over_are_stopped(
    cloud: Cloud, services: Services, state: RunState
) -> None:
    cloud.bedrock.batch = BatchPlan(minimum=10, polls=None)
    upload(cloud)
    run_id = start(services)
    while not cloud.bedrock.jobs:
        time.sleep(0.05)
    batch_job_event.handler({}, None)
    (job,) = cloud.bedrock.jobs.values()
    assert job.status == "InProgress"
    if state == "CANCELLED":
        runs.cancel_run(services, run_id=run_id, now=datetime.now(UTC))
    else:  # another branch failed, or the execution was aborted by hand and the sweep found it
        runs.finish_run(services, "holiday", run_id, state=state, changes={})
    batch_job_event.handler({}, None)  # by the event of the execution that ended
    assert job.status == "Stopped"
    batch_job_event.handler({}, None)
    assert services.table.query(keys.TOKENS_PK).items == ()


def test_one_run_whose_jobs_cannot_be_looked_at_holds_up_no_other(
    cloud: Cloud, services: Services
) -> None:
    cloud.bedrock.batch = BatchPlan(minimum=10, polls=1)
    upload(cloud)

    def state(job: str) -> str:
        if job == "gone":
            raise StoreUnavailable("Bedrock does not answer")
        return services.state_of_job(job)

    wiring.use(replace(services, state_of_job=state))
    lost = {"pk": keys.TOKENS_PK, "token": "t", "run_id": "a-run", "jobs": ["gone"]}
    now = time.time()
    services.table.put({**lost, "sk": "describe-0", "saved": now})
    services.table.put({**lost, "sk": "describe-1", "saved": now - 100_000})
    run_id = start(services)
    while cloud.workflows.running(run_id):
        time.sleep(0.05)
        with suppress(StoreUnavailable):
            batch_job_event.handler({}, None)
    assert cloud.workflows.wait(run_id).status == "SUCCEEDED"
    # What nobody waits for any more is forgotten.
    assert [item["sk"] for item in services.table.query(keys.TOKENS_PK).items] == ["describe-0"]
