"""Each call that a function makes to AWS, and each address it signs, is one that its role allows.

The roles are the synthesized template's. A call counts for the function whose handler makes it,
also from threads; what the runner reads and writes counts for the state machine.
"""

import contextvars
import importlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import cv2
import numpy as np
import pytest
from botocore.client import BaseClient
from imageclust import batch, keys, wiring
from imageclust.adapters.aws.s3_links import S3Links
from imageclust.models import RunConfig
from imageclust.settings import PROFILE_SCOPES

from functions import batch_job_event, plan_run, start_run
from infra.constructs.handlers import SHAPES, camel
from infra.security import permissions
from local import workflows
from local.demo import FAMILIES
from tests.aws.conftest import Cloud, configure, finish, start
from tests.conftest import jpeg, picture
from tests.functions.test_api import call as call_api
from tests.infra.from_template import template
from tests.standins.fake_bedrock import BatchPlan
from tests.standins.tiny_onnx import make_colour_model

NAMED = {"embedder": "builtin", "clusters": 2, "duplicates": "confirmed"}

# IAM names the right, the API the request.
_PREFIXES = {"bedrock-runtime": "bedrock", "stepfunctions": "states"}
_ACTIONS = {
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:CopyObject": "s3:PutObject",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "bedrock:Converse": "bedrock:InvokeModel",
}
OWN_MODEL = "StorageData/models/tiny_colours.onnx"
_BUCKETS = {"uploads": "StorageUploads", "data": "StorageData"}


@dataclass(frozen=True, order=True)
class Need:
    """A right that ``role`` used, and on what, as the security page names things.

    ``resource`` is empty where only the action is compared.
    """

    role: str
    action: str
    resource: str = ""


def needs(role: str, service: str, operation: str, request: dict[str, Any]) -> Iterator[Need]:
    """What one request to AWS needs of the role; some need a second right."""
    asked = f"{_PREFIXES.get(service, service)}:{operation}"
    action = _ACTIONS.get(asked, asked)
    match service:
        case "s3":
            bucket = _BUCKETS[request["Bucket"]]
            if "Key" in request:
                yield Need(role, action, f"{bucket}/{request['Key']}")
            if operation == "CopyObject":
                source = request["CopySource"]
                yield from needs(role, service, "GetObject", source)
            if action in ("s3:GetObject", "s3:ListBucket"):  # else absent answers 403, not 404
                yield Need(role, "s3:ListBucket", bucket)
        case "dynamodb":
            yield Need(role, action, "StorageTable")
        case "bedrock-runtime":
            yield Need(role, action, _model(request["modelId"]))
        case "bedrock" if operation == "GetFoundationModel":
            yield Need(role, action, _model(request["modelIdentifier"]))
        case "scheduler":
            yield Need(role, action)
            yield Need(role, "iam:PassRole", "UploadEventsTimerRole")
        case _:
            yield Need(role, action)
    if operation == "CreateModelInvocationJob":
        yield Need(role, action, _model(request["modelId"]))
        yield Need(role, "iam:PassRole", "BedrockBatchRole")
        read = request["inputDataConfig"]["s3InputDataConfig"]["s3Uri"]
        written = request["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"]
        yield Need("BedrockBatch", "s3:GetObject", _object(read))
        yield Need("BedrockBatch", "s3:PutObject", _object(written) + "output.jsonl.out")
        yield Need("BedrockBatch", "bedrock:InvokeModel", _model(request["modelId"]))


def refused(used: set[Need]) -> list[Need]:
    """What was used and no statement of the role allows."""
    return sorted(need for need in used if not _allowed(need))


def _allowed(need: Need) -> bool:
    return any(
        need.action in actions
        and (not need.resource or any(fnmatchcase(need.resource, each) for each in resources))
        for actions, resources in _statements().get(need.role, [])
    )


@cache
def _statements() -> dict[str, list[tuple[tuple[str, ...], tuple[str, ...]]]]:
    found: dict[str, list[tuple[tuple[str, ...], tuple[str, ...]]]] = {}
    for row in permissions(template(gpu=True)):
        role = row.role.partition("Role (")[0]
        found.setdefault(role, []).append((row.actions, row.resources))
    return found


def _model(name: str) -> str:
    if name.partition(".")[0] in PROFILE_SCOPES:
        return f"bedrock inference-profile/{name}"
    return f"bedrock foundation-model/{name} in any region"


def _object(uri: str) -> str:
    bucket, key = keys.split_uri(uri)
    return f"{_BUCKETS[bucket]}/{key}"


_role: ContextVar[str] = ContextVar("_role", default="")  # empty: the test itself


def within(role: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """``work`` done under this role."""

    def done(*arguments: Any, **named: Any) -> Any:
        before = _role.set(role)
        try:
            return work(*arguments, **named)
        finally:
            _role.reset(before)

    return done


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> set[Need]:
    """Collects the rights that functions and the state machine use."""
    found: set[Need] = set()
    base: Any = BaseClient
    real_call, real_submit = base._make_api_call, ThreadPoolExecutor.submit
    real_upload, real_download = S3Links.upload, S3Links.download

    def note(action: str, uri: str = "") -> None:
        if _role.get():
            found.add(Need(_role.get(), action, _object(uri) if uri else ""))

    def make_api_call(client: Any, operation: str, request: dict[str, Any]) -> Any:
        if _role.get():
            service = client.meta.service_model.service_name
            found.update(needs(_role.get(), service, operation, request))
        return real_call(client, operation, request)

    def submit(pool: Any, work: Any, /, *arguments: Any, **named: Any) -> Any:
        return real_submit(pool, contextvars.copy_context().run, work, *arguments, **named)

    def upload(links: S3Links, uri: str, **named: Any) -> Any:
        note("s3:PutObject", uri)
        return real_upload(links, uri, **named)

    def download(links: S3Links, uri: str) -> str:
        note("s3:GetObject", uri)
        return real_download(links, uri)

    def bring(models: Any, name: str) -> None:
        real_bring(models, name)
        store, cold = wiring.services().store, tmp_path / "cold" / (_role.get() or "test")
        if models._fetch is not None:  # another function has fetched it here, but not on Lambda
            with models._lock:
                wiring._fetch_models(store, "data", cold, name)

    def read_object(machine: Any, bucket: str, key: str) -> Iterator[bytes]:
        return iter(within("Workflow", lambda: list(real_read(machine, bucket, key)))())

    monkeypatch.setattr(BaseClient, "_make_api_call", make_api_call)
    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)
    monkeypatch.setattr(S3Links, "upload", upload)
    monkeypatch.setattr(S3Links, "download", download)
    real_bring = wiring._Models._bring
    monkeypatch.setattr(wiring._Models, "_bring", bring)
    machine = workflows._Machine
    real_read = machine.read_object
    monkeypatch.setattr(machine, "read_object", read_object)
    monkeypatch.setattr(machine, "write_object", within("Workflow", machine.write_object))
    # Runs that wait for a token have it from the runner, which is no service.
    for name, action in (("succeed", "SendTaskSuccess"), ("fail", "SendTaskFailure")):
        real = getattr(workflows.LocalWorkflows, name)

        def answer(*arguments: Any, real: Any = real, action: str = action) -> None:
            note(f"states:{action}")
            real(*arguments)

        monkeypatch.setattr(workflows.LocalWorkflows, name, answer)
    for name in SHAPES:
        module = importlib.import_module(f"functions.{name}")
        monkeypatch.setattr(module, "handler", within(camel(name), module.handler))
    return found


@pytest.fixture
def own_model(cloud: Cloud, tmp_path: Path) -> None:
    """A model with classes in the data bucket."""
    for path in make_colour_model(tmp_path / "own")[1].parent.iterdir():
        cloud.services.store.write(f"s3://data/{keys.MODELS_PREFIX}{path.name}", path.read_bytes())


def roles(used: set[Need]) -> set[str]:
    return {need.role for need in used}


def test_a_right_that_is_missing_is_found() -> None:
    missing = {
        Need("Cluster", "s3:GetObject", "StorageData/exports/run/gallery.html"),
        Need("Cluster", "s3:DeleteObject", "StorageData/clusters/a/summary.json"),
        Need("Describe", "bedrock:InvokeModel", _model("us.amazon.nova-pro-v1:0")),
        Need("Nobody", "dynamodb:GetItem", "StorageTable"),
    }
    given = {
        Need("Cluster", "s3:GetObject", "StorageData/clusters/a/summary.json"),
        Need("Label", "rekognition:DetectLabels"),
    }
    assert refused(missing | given) == sorted(missing)


def test_from_upload_to_result(
    used: set[Need], cloud: Cloud, make_photos: Callable[..., Path]
) -> None:
    """Rekognition, a confirmed copy, exemplars, Bedrock's names, and the API over the result."""
    photos = make_photos(families=2, each=6)
    first = FAMILIES["city"](np.random.default_rng(0), 384, 288)  # detail tells it from others
    (photos / "large.jpg").write_bytes(jpeg(first))
    small = cv2.resize(first, (192, 144), interpolation=cv2.INTER_AREA)
    (photos / "small.jpg").write_bytes(jpeg(small))
    configure(cloud.services, "holiday", NAMED)
    cloud.upload(photos, "holiday")
    boto3.client("s3").put_object(Bucket="uploads", Key="stray.jpg", Body=b"of no collection")
    cloud.drain()
    run_id = start_run.handler(cloud.due()[0], None)["run_id"]
    boto3.client("s3").put_object(Bucket="uploads", Key="holiday/late.jpg", Body=jpeg(picture(77)))
    cloud.drain()
    start_run.handler({}, None)
    assert cloud.execute(run_id)["counts"]["duplicates"] == 1

    exemplars = RunConfig.from_json({**NAMED, "labels": "exemplars"}).to_json()
    cloud.services.table.update(keys.COLLECTIONS_PK, "holiday", {"config": exemplars})
    boto3.client("s3").delete_object(Bucket="uploads", Key="holiday/late.jpg")
    boto3.client("s3").delete_object(Bucket="uploads", Key="holiday/family 0/0.jpg")
    second = start_run.handler(cloud.due()[0], None)["run_id"]
    assert cloud.execute(second)["labels"]["mode"] == "exemplars"
    call_the_api(second)

    assert refused(used) == []
    # That the parts at stake took place.
    assert {
        Need("Cluster", "rekognition:DetectLabels"),
        Need("Ingest", "events:PutEvents"),
        Need("Publish", "s3vectors:PutVectors"),
        Need("Publish", "s3vectors:DeleteVectors"),
        Need("Publish", "scheduler:UpdateSchedule"),
        Need("Api", "states:StopExecution"),
    } <= used
    assert "s3:DeleteObject" in {need.action for need in used if need.role == "Cluster"}
    assert {("Cluster", "thumbnails"), ("Api", "thumbnails"), ("Workflow", "results")} <= {
        (need.role, need.resource.split("/")[1]) for need in used if "/" in need.resource
    }
    assert roles(used) >= {
        *("Ingest", "StartRun", "Api", "Workflow", "PlanRun", "Embed"),
        *("Label", "Cluster", "Describe", "Publish"),
    }


def call_the_api(run_id: str) -> None:
    """Each kind of question and order: read, sign, start, stop."""
    for target in (
        "/v1/collections/holiday",
        "/v1/collections/holiday/runs",
        f"/v1/runs/{run_id}",
        f"/v1/runs/{run_id}/clusters",
        f"/v1/runs/{run_id}/clusters/c0001",
        f"/v1/runs/{run_id}/outliers",
        f"/v1/runs/{run_id}/files?status=duplicate",
    ):
        assert call_api("GET", target)[0] == 200, target
    members = call_api("GET", f"/v1/runs/{run_id}/clusters/c0001/members")[1]["items"]
    assert call_api("GET", f"/v1/images/{members[0]['image_id']}")[0] == 200
    file = {"name": "a.jpg", "content_type": "image/jpeg", "size": 10}
    assert call_api("POST", "/v1/collections/holiday/uploads", {"files": [file]})[0] == 200
    assert call_api("POST", "/v1/collections", {"name": "other"})[0] == 201
    assert call_api("POST", "/v1/estimate", {"collection": "holiday"})[0] == 200
    status, told, _ = call_api("POST", "/v1/collections/holiday/runs", {})
    assert status == 202, told
    assert call_api("POST", f"/v1/runs/{told['run_id']}/cancel")[0] == 200


@pytest.mark.parametrize("status", ["Completed", "Failed"])
def test_names_from_a_batch_job(
    used: set[Need], cloud: Cloud, make_photos: Callable[..., Path], status: str
) -> None:
    cloud.bedrock.batch = BatchPlan(polls=1, status=status, minimum=1)
    wiring.use(replace(cloud.services, workflows=cloud.workflows))
    configure(cloud.services, "holiday", {})
    cloud.upload(make_photos(families=2, each=4), "holiday")
    run_id = start(cloud, {**NAMED, "describe": "batch", "captions": "all"})
    finish(cloud, run_id)

    assert refused(used) == []
    assert roles(used) >= {"DescribeInBatch", "BatchJobEvent", "BedrockBatch", "Describe"}
    answer = "SendTaskSuccess" if status == "Completed" else "SendTaskFailure"
    assert Need("BatchJobEvent", f"states:{answer}") in used


@pytest.mark.parametrize("status", ["Completed", "Failed"])
def test_vectors_from_batch_jobs(
    used: set[Need], cloud: Cloud, make_photos: Callable[..., Path], status: str
) -> None:
    cloud.bedrock.batch = BatchPlan(polls=1, status=status, minimum=1, processed=0.5)
    settings = replace(cloud.services.settings, bedrock_batch_minimum=8)
    wiring.use(replace(cloud.services, workflows=cloud.workflows, settings=settings))
    configure(cloud.services, "holiday", {})
    cloud.upload(make_photos(families=2, each=6), "holiday")
    config = {**NAMED, "embedder": "amazon.titan-embed-image-v1", "embed": "batch", "labels": "off"}
    run_id = start(cloud, {**config, "describer": "deterministic"})
    finish(cloud, run_id)

    assert refused(used) == []
    assert roles(used) >= {"EmbedInBatch", "BatchJobEvent", "BedrockBatch"}
    answer = "SendTaskSuccess" if status == "Completed" else "SendTaskFailure"
    assert Need("BatchJobEvent", f"states:{answer}") in used
    assert Need("Embed", "bedrock:InvokeModel", _model("amazon.titan-embed-image-v1")) in used
    assert {("Embed", "records"), ("Embed", "bedrock"), ("BedrockBatch", "records")} <= {
        (need.role, need.resource.split("/")[1]) for need in used if "/" in need.resource
    }


def test_batch_jobs_of_a_run_that_is_cancelled(
    used: set[Need], cloud: Cloud, make_photos: Callable[..., Path]
) -> None:
    cloud.bedrock.batch = BatchPlan(polls=None, minimum=1)
    wiring.use(replace(cloud.services, workflows=cloud.workflows))
    configure(cloud.services, "holiday", {})
    cloud.upload(make_photos(families=2, each=4), "holiday")
    run_id = start(cloud, {**NAMED, "labels": "off", "describe": "batch"})
    while not cloud.bedrock.jobs:
        time.sleep(0.05)
    assert call_api("POST", f"/v1/runs/{run_id}/cancel")[0] == 200
    batch_job_event.handler({}, None)
    assert {job.status for job in cloud.bedrock.jobs.values()} == {"Stopped"}
    assert refused(used) == []
    assert Need("BatchJobEvent", "bedrock:StopModelInvocationJob") in used


def test_a_run_that_fails(used: set[Need], cloud: Cloud) -> None:
    wiring.use(replace(cloud.services, workflows=cloud.workflows))
    boto3.client("s3").put_object(Bucket="uploads", Key="holiday/no.jpg", Body=b"not a picture")
    configure(cloud.services, "holiday", {})
    run_id = start(cloud, {**NAMED, "labels": "off", "describer": "deterministic"})
    assert cloud.workflows.wait(run_id).status == "FAILED"
    assert refused(used) == []
    assert Need("RecordFailure", "events:PutEvents") in used


@pytest.mark.usefixtures("own_model")
@pytest.mark.parametrize(
    ("config", "readers"),
    [
        ({"embedder": "tiny_colours", "labeler": "tiny_colours"}, {"PlanRun", "Embed"}),
        ({"embedder": "builtin", "labeler": "tiny_colours"}, {"PlanRun", "Label"}),
        ({"embedder": "amazon.titan-embed-image-v1", "labels": "off"}, set()),
    ],
    ids=["own-model", "own-labeler", "bedrock"],
)
def test_other_models(
    used: set[Need],
    cloud: Cloud,
    make_photos: Callable[..., Path],
    config: dict[str, Any],
    readers: set[str],
) -> None:
    wiring.use(replace(cloud.services, workflows=cloud.workflows))
    cloud.upload(make_photos(families=2, each=4), "holiday")
    configure(cloud.services, "holiday", {})
    run_id = start(cloud, {**NAMED, **config, "describer": "deterministic"})
    execution = cloud.workflows.wait(run_id)
    assert execution.status == "SUCCEEDED", execution.cause
    assert refused(used) == []
    own = {role for role in roles(used) if Need(role, "s3:GetObject", OWN_MODEL) in used}
    assert own == readers


@pytest.mark.usefixtures("own_model")
def test_the_gpu_job(used: set[Need], cloud: Cloud, make_photos: Callable[..., Path]) -> None:
    settings = replace(cloud.services.settings, gpu_enabled=True, gpu_from=1)
    wiring.use(replace(cloud.services, settings=settings))
    cloud.upload(make_photos(families=2, each=4), "holiday")
    configure(cloud.services, "holiday", {})
    request = {
        "run_id": "holiday-20261122T000000-00000000", "collection": "holiday",
        "config": {"embedder": "tiny_colours", "labeler": "tiny_colours"}, "trigger": "api",
    }  # fmt: skip
    embed = plan_run.handler(request, None)["embed"]
    manifest = keys.join_uri(embed["manifest"]["bucket"], embed["manifest"]["key"])
    arguments = ["embed", "--run", request["run_id"], "--collection", "holiday"]
    arguments += ["--model", embed["model"], "--labeler", embed["labeler"], "--manifest", manifest]
    assert within("GpuJob", batch.main)([str(each) for each in arguments]) == 0
    assert refused(used) == []
    (paid,) = cloud.services.table.query(
        keys.usage_pk(request["run_id"]), prefix="EmbedOnGpu"
    ).items
    assert paid["done"] == {"images": 8}
    assert Need("GpuJob", "s3:GetObject", OWN_MODEL) in used
    assert {"vectors", "labels", "thumbnails"} <= {
        need.resource.split("/")[1] for need in used if need.action == "s3:PutObject"
    }
