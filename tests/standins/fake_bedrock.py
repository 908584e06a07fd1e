"""Bedrock: Converse, InvokeModel for embeddings, and batch inference with its awkward truths."""

import base64
import json
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import botocore.session
import cv2
import numpy as np
from botocore.validate import ParamValidator
from moto.bedrock.responses import BedrockResponse
from moto.bedrockruntime.responses import BedrockRuntimeResponse
from moto.s3.models import s3_backends

from tests.standins.endpoint import AwsError, check_answer, served

_ACCOUNT = "123456789012"
_RUNTIME = botocore.session.Session().get_service_model("bedrock-runtime")

_SHAPES = botocore.session.Session().get_service_model("bedrock")
_MODEL_ID = re.compile(_SHAPES.shape_for("GetFoundationModelIdentifier").metadata["pattern"])

_TEXT_ONLY = ("amazon.nova-micro-v1:0",)
_SHOWN = (
    "clientRequestToken",
    "inputDataConfig",
    "jobName",
    "modelId",
    "modelInvocationType",
    "outputDataConfig",
    "roleArn",
    "timeoutDurationInHours",
)

JSON = dict[str, Any]


def name_from_facts(request: JSON) -> str:
    """What a well-behaved model says: a name, or a caption, made of the facts in the message."""
    text = next(part["text"] for part in request["messages"][0]["content"] if "text" in part)
    found = re.fullmatch(r"<facts>\n(.*)\n</facts>", text, re.DOTALL)
    assert found, "the message holds one block of facts"
    facts = json.loads(found[1])
    if "pictures" not in facts:
        seen = [label["name"] for label in facts["labels"]] or ["something"]
        return json.dumps({"caption": f"A picture of {seen[0]}"[:150]})
    words = [fact["name"] for fact in (*facts["labels"], *facts["attributes"])] or ["Pictures"]
    return json.dumps(
        {
            "title": words[0][:25],
            "phrase": f"{facts['pictures']} pictures of {', '.join(words[:3])}"[:100],
            "description": f"A group that shows {', '.join(words[:5])}."[:400],
        }
    )


@dataclass
class BatchPlan:
    """How batch jobs go.

    Args:
        polls: looks at a job (List or Get) before it ends; None never ends by itself.
        status: how it ends; a job with fewer records than ``minimum`` always ends as Failed.
        minimum: records that a job needs.
        fail: record ids that the model fails on.
        processed: share of the records that are processed at all before the job ends.
        seed: of the order of the output.
        hidden: looks at the list during which a new job does not show in it yet.
        lose: record ids that the output does not have.
        repeat: record ids that the output has twice.
        torn: the last line of each output file is cut in half, as when a job is stopped.
        refuse: words in the names of jobs that cannot be created.
        weight: bytes of input that a job may have.
    """

    polls: int | None = 1
    status: str = "Completed"
    minimum: int = 100
    fail: frozenset[str] = frozenset()
    processed: float = 1.0
    seed: int = 1
    hidden: int = 0
    lose: frozenset[str] = frozenset()
    repeat: frozenset[str] = frozenset()
    torn: bool = False
    refuse: frozenset[str] = frozenset()
    weight: int = 5_000_000_000


@dataclass
class _Job:
    request: JSON
    arn: str
    submitted: datetime
    status: str = "Submitted"
    looks: int = 0
    counts: JSON = field(default_factory=dict)


class FakeBedrock:
    """One account's Bedrock in one region.

    Args:
        reply: text of the model for a Converse request (on demand or in a batch).
        batch: how batch jobs go.

    ``script`` holds replies or errors for the next Converse calls, used before ``reply``.
    ``batches`` says how the jobs of a model go that go otherwise; the model ``refuse_jobs_of``
    takes no further job. ``events`` collects the EventBridge events of jobs; nothing delivers
    them, as they may come late or never. ``conversations``, ``checked`` and ``jobs`` show
    what was asked. ``not_enabled`` closes the embedding models to the account; ``refuses`` tells
    of a JPEG whether they refuse it. ``lifecycles`` holds what is special in the life of a
    model, None for one that does not exist; ``availability`` what is special in the answer about
    access.
    """

    def __init__(
        self,
        *,
        reply: Callable[[JSON], str] = name_from_facts,
        batch: BatchPlan | None = None,
    ) -> None:
        self.reply = reply
        self.batch = batch or BatchPlan()
        self.batches: dict[str, BatchPlan] = {}
        self.refuse_jobs_of = ""
        self.script: list[str | AwsError] = []
        self.throttle_next = 0
        self.not_enabled = False
        self.refuses: Callable[[bytes], bool] = lambda picture: False
        self.lifecycles: dict[str, JSON | None] = {}
        self.availability: JSON = {}
        self.events: list[JSON] = []
        self.conversations: list[JSON] = []
        self.checked: list[str] = []
        self.jobs: dict[str, _Job] = {}
        self.creations = 0
        self.invocations = 0

    @contextmanager
    def serve(self) -> Iterator["FakeBedrock"]:
        """Answer for bedrock and bedrock-runtime while moto is on."""
        runtime = {"Converse": self._converse, "InvokeModel": self._invoke}
        control = {
            "GetFoundationModel": self._get_model,
            "GetFoundationModelAvailability": self._get_availability,
            "CreateModelInvocationJob": self._create_job,
            "GetModelInvocationJob": self._get_job,
            "ListModelInvocationJobs": self._list_jobs,
            "StopModelInvocationJob": self._stop_job,
        }
        with (
            served(BedrockRuntimeResponse, "bedrock-runtime", runtime),
            served(BedrockResponse, "bedrock", control),
        ):
            yield self

    def _plan(self, job: _Job) -> BatchPlan:
        return self.batches.get(job.request["modelId"], self.batch)

    def finish(self, name: str) -> None:
        """End the newest job of this name now, write its output and note its event."""
        job = [job for job in self.jobs.values() if job.request["jobName"] == name][-1]
        self._end(job)

    # --- Converse and InvokeModel

    def _converse(self, request: JSON) -> JSON:
        self._maybe_throttle()
        self.conversations.append(request)
        self._check_modalities(request)
        if self.script:
            scripted = self.script.pop(0)
            if isinstance(scripted, AwsError):
                raise scripted
            return _answer(scripted)
        return _answer(self.reply(request))

    def _check_modalities(self, request: JSON) -> None:
        shown = any("image" in part for turn in request["messages"] for part in turn["content"])
        if shown and request["modelId"] in _TEXT_ONLY:
            raise AwsError("ValidationException", "This model doesn't support the image content")

    def _invoke(self, request: JSON) -> JSON:
        self._maybe_throttle()
        if self.not_enabled:
            raise AwsError(
                "AccessDeniedException",
                "You don't have access to the model with the specified model ID.",
            )
        answer = self._embed(request["modelId"], json.loads(request["body"]))
        self.invocations += 1
        return {"body": json.dumps(answer).encode(), "contentType": "application/json"}

    def _embed(self, model: str, body: JSON) -> JSON:
        if "titan-embed-image" in model:
            self._refuse(body["inputImage"])
            size = body["embeddingConfig"]["outputEmbeddingLength"]
            answer: JSON = {"embedding": _vector(body["inputImage"], size), "message": None}
        else:
            assert body["schemaVersion"] == "nova-multimodal-embed-v1"
            assert body["taskType"] == "SINGLE_EMBEDDING"
            asked = body["singleEmbeddingParams"]
            assert asked["embeddingPurpose"] == "CLUSTERING"
            picture = asked["image"]["source"]["bytes"]
            self._refuse(picture)
            row = _vector(picture, asked["embeddingDimension"])
            answer = {"embeddings": [{"embeddingType": "IMAGE", "embedding": row}]}
        return answer

    def _refuse(self, picture: str) -> None:
        if self.refuses(base64.b64decode(picture)):
            raise AwsError("ValidationException", "Malformed input request: the image is unusable")

    def _maybe_throttle(self) -> None:
        if self.throttle_next:
            self.throttle_next -= 1
            raise AwsError("ThrottlingException", "Too many requests, please wait")

    # --- models

    def _get_model(self, request: JSON) -> JSON:
        self._maybe_throttle()
        model = request["modelIdentifier"]
        self.checked.append(model)
        if not _MODEL_ID.fullmatch(model):
            raise AwsError("ValidationException", "The provided model identifier is invalid.")
        life = self.lifecycles.get(model, {})
        if life is None:
            raise AwsError("ResourceNotFoundException", "Could not resolve the foundation model")
        arn = f"arn:aws:bedrock:us-east-1::foundation-model/{model}"
        details = {
            "modelArn": arn,
            "modelId": model,
            "inputModalities": ["TEXT"] if model in _TEXT_ONLY else ["TEXT", "IMAGE"],
            "modelLifecycle": {"status": "ACTIVE", **life},
        }
        return {"modelDetails": details}

    def _get_availability(self, request: JSON) -> JSON:
        self._maybe_throttle()
        closed = self.not_enabled and "embed" in request["modelId"]
        return {
            "modelId": request["modelId"],
            "agreementAvailability": {"status": "AVAILABLE"},
            "authorizationStatus": "NOT_AUTHORIZED" if closed else "AUTHORIZED",
            "entitlementAvailability": "AVAILABLE",
            "regionAvailability": "AVAILABLE",
            **self.availability,
        }

    # --- batch inference

    def _create_job(self, request: JSON) -> JSON:
        self._maybe_throttle()
        self.creations += 1
        named = any(word in request["jobName"] for word in self.batch.refuse)
        if named or request["modelId"] == self.refuse_jobs_of:
            raise AwsError("ServiceQuotaExceededException", "Too many jobs of this model")
        for job in self.jobs.values():
            if job.request["clientRequestToken"] == request["clientRequestToken"]:
                if job.request != request:
                    raise AwsError("ConflictException", "Token used with other parameters")
                return {"jobArn": job.arn}
        number = f"{len(self.jobs):012d}"
        arn = f"arn:aws:bedrock:us-east-1:{_ACCOUNT}:model-invocation-job/{number}"
        # Creating a job does not look at its records.
        self.jobs[arn] = _Job(request=request, arn=arn, submitted=datetime.now(UTC))
        return {"jobArn": arn}

    def _get_job(self, request: JSON) -> JSON:
        self._maybe_throttle()
        job = self.jobs.get(request["jobIdentifier"])
        if job is None:
            raise AwsError("ResourceNotFoundException", "No such job")
        self._look(job)
        return self._summary(job)

    def _stop_job(self, request: JSON) -> JSON:
        self._maybe_throttle()
        job = self.jobs[request["jobIdentifier"]]
        if job.status not in ("Submitted", "InProgress"):
            raise AwsError("ConflictException", f"The job is {job.status}")
        job.status = "Stopped"
        return {}

    def _list_jobs(self, request: JSON) -> JSON:
        self._maybe_throttle()
        found = []
        for job in self.jobs.values():
            if request.get("nameContains", "") in job.request["jobName"]:
                if job.looks < self._plan(job).hidden:
                    job.looks += 1
                else:
                    found.append(self._summary(job))
        found.sort(key=lambda summary: summary["jobArn"], reverse=True)
        return {"invocationJobSummaries": found[: request.get("maxResults", 100)]}

    def _summary(self, job: _Job) -> JSON:
        return {
            "jobArn": job.arn,
            "status": job.status,
            "submitTime": job.submitted,
            **{name: job.request[name] for name in _SHOWN},
            **job.counts,
        }

    def _look(self, job: _Job) -> None:
        job.looks += 1
        if job.status in ("Submitted", "InProgress"):
            job.status = "InProgress"
            plan = self._plan(job)
            if plan.polls is not None and job.looks >= plan.polls + plan.hidden:
                self._end(job)

    def _end(self, job: _Job) -> None:
        source = job.request["inputDataConfig"]["s3InputDataConfig"]["s3Uri"]
        files = {uri: _read(uri) for uri in _files(source)}
        assert all(uri.endswith(".jsonl") for uri in files), "only .jsonl files hold records"
        records = {
            uri: [json.loads(line) for line in data.splitlines()] for uri, data in files.items()
        }
        ids = [record["recordId"] for rows in records.values() for record in rows]
        assert len(set(ids)) == len(ids), "record ids are unique"
        weight = sum(len(data) for data in files.values())
        fits = self.batch.minimum <= len(ids) <= 50_000 and weight <= self.batch.weight
        job.status = self.batch.status if fits else "Failed"
        if fits:
            self._write_output(job, records)
        self.events.append(
            {
                "source": "aws.bedrock",
                "detail-type": "Batch Inference Job State Change",
                "account": _ACCOUNT,
                "region": "us-east-1",
                "resources": [job.arn],
                "detail": {
                    "batchJobArn": job.arn,
                    "batchJobName": job.request["jobName"],
                    "status": job.status,
                },
            }
        )

    def _write_output(self, job: _Job, files: dict[str, list[JSON]]) -> None:
        output = job.request["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"].rstrip("/")
        folder = f"{output}/{job.arn.rpartition('/')[2]}"
        plan = self._plan(job)
        total = processed = failed = 0
        for source, records in files.items():
            done = records[: round(len(records) * plan.processed)]
            lines = [self._output(job, record) for record in done]
            total, processed = total + len(records), processed + len(done)
            failed += sum("error" in line for line in lines)
            lines = [line for line in lines if line["recordId"] not in plan.lose]
            lines += [line for line in lines if line["recordId"] in plan.repeat]
            random.Random(plan.seed).shuffle(lines)
            text = "".join(json.dumps(line) + "\n" for line in lines)
            if plan.torn:
                text = text[: len(text) - len(json.dumps(lines[-1])) // 2]
            _write(f"{folder}/{source.rpartition('/')[2]}.out", text.encode())
        job.counts = {
            "totalRecordCount": total,
            "processedRecordCount": processed,
            "successRecordCount": processed - failed,
            "errorRecordCount": failed,
        }
        _write(f"{folder}/manifest.json.out", json.dumps(job.counts).encode())

    def _output(self, job: _Job, record: JSON) -> JSON:
        """One line: the record with what the model said of it, or why it said nothing."""
        model = job.request["modelId"]
        if record["recordId"] in self._plan(job).fail:
            return {**record, "error": {"errorCode": 400, "errorMessage": "content was filtered"}}
        try:
            if job.request["modelInvocationType"] == "InvokeModel":
                answer = self._embed(model, record["modelInput"])
            else:
                answer = self._converse_in_batch(model, record["modelInput"])
        except AwsError as error:
            return {**record, "error": {"errorCode": 400, "errorMessage": str(error)}}
        return {**record, "modelOutput": answer}

    def _converse_in_batch(self, model: str, model_input: JSON) -> JSON:
        asked = _decoded(model_input) | {"modelId": model}
        shape = _RUNTIME.operation_model("Converse").input_shape
        assert shape is not None
        report = ParamValidator().validate(asked, shape)
        assert not report.has_errors(), report.generate_report()
        self._check_modalities(asked)
        return check_answer("bedrock-runtime", "Converse", _answer(self.reply(asked)))


def _answer(text: str) -> JSON:
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 100, "outputTokens": 50, "totalTokens": 150},
        "metrics": {"latencyMs": 300},
    }


def _vector(picture: str, size: int) -> list[float]:
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    assert max(pixels.shape[:2]) <= 2048
    small = cv2.resize(pixels, (8, 8), interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
    mixing = np.random.default_rng(0).normal(size=(size, small.size))
    row: list[float] = (mixing @ (small - 127.5)).tolist()
    return row


def _decoded(model_input: JSON) -> JSON:
    """The record's input with the base64 text of pictures as bytes, as Converse takes them."""
    asked: JSON = json.loads(json.dumps(model_input))
    for message in asked["messages"]:
        for part in message["content"]:
            if "image" in part:
                source = part["image"]["source"]
                source["bytes"] = base64.b64decode(source["bytes"], validate=True)
    return asked


def _files(uri: str) -> list[str]:
    """The object of this address, or those of a folder."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not key.endswith("/"):
        return [uri]
    held = s3_backends[_ACCOUNT]["aws"].buckets[bucket].keys
    return [f"s3://{bucket}/{name}" for name in sorted(held) if name.startswith(key)]


def _read(uri: str) -> bytes:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    found = s3_backends[_ACCOUNT]["aws"].get_object(bucket, key)
    assert found is not None, f"{uri} is not there"
    return bytes(found.value)


def _write(uri: str, data: bytes) -> None:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    s3_backends[_ACCOUNT]["aws"].put_object(bucket, key, BytesIO(data).getvalue())
