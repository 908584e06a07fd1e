"""What a Bedrock model says of many subjects, as one batch inference job."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic

from imageclust.adapters.aws.bedrock_conversation import A, Conversation, S
from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.failures import translated
from imageclust.descriptions.prompts import UnusableAnswer
from imageclust.errors import Conflict, CorruptData, InvalidInput
from imageclust.keys import split_uri
from imageclust.models import JSON
from imageclust.ports import ObjectStore

if TYPE_CHECKING:
    from mypy_boto3_bedrock.type_defs import ModelInvocationJobSummaryTypeDef

_JOB = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]{0,61}[a-zA-Z0-9])?")
# What Bedrock takes as an s3:// address: no '=', no spaces, no empty parts.
_FOLDER = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[-!_*'().a-z0-9A-Z]+)*/?")
_MAX_RECORDS = 50_000
_DONE = {"Completed", "PartiallyCompleted"}
_FAILED = {"Failed", "Stopped", "Expired"}


class BedrockBatch(Generic[S, A]):
    """One ``CreateModelInvocationJob`` of type Converse; ``recordId`` names the subject.

    The job's name is its identity: creating it again with the same name and input gives the same
    job (``clientRequestToken`` is derived from the name), and its state is looked up by name.

    Args:
        clients: the AWS clients.
        store: where input is written and output read; must be S3.
        conversation: the model and how it is asked.
        role_arn: role that Bedrock takes to read and write the folder.
        timeout_hours: 24 to 168; a job that waits longer expires.
    """

    def __init__(
        self,
        clients: Clients,
        store: ObjectStore,
        conversation: Conversation[S, A],
        *,
        role_arn: str,
        timeout_hours: int = 24,
    ) -> None:
        self._clients = clients
        self._store = store
        self._conversation = conversation
        self._role_arn = role_arn
        self._timeout_hours = timeout_hours

    def submit(self, *, job: str, subjects: Sequence[S], folder: str) -> None:
        """Start the job; it writes below ``{folder}/output/``. Idempotent by name."""
        _check(job, folder)
        if not 1 <= len(subjects) <= _MAX_RECORDS:
            raise InvalidInput(f"A batch job has 1 to {_MAX_RECORDS} records, not {len(subjects)}.")
        source = f"{folder.rstrip('/')}/input/{job}.jsonl"
        self._store.write(source, self._records(subjects), content_type="application/jsonl")
        try:
            with translated(f"Batch job {job}"):
                self._clients.bedrock.create_model_invocation_job(
                    jobName=job,
                    clientRequestToken=hashlib.sha256(job.encode()).hexdigest(),
                    roleArn=self._role_arn,
                    modelId=self._conversation.model_id,
                    modelInvocationType="Converse",
                    inputDataConfig={"s3InputDataConfig": {"s3Uri": source}},
                    outputDataConfig={"s3OutputDataConfig": {"s3Uri": _output(folder)}},
                    timeoutDurationInHours=self._timeout_hours,
                )
        except Conflict:
            # Another attempt created it under this name.
            if self._find(job) is None:
                raise

    def status(self, *, job: str) -> str:
        """``running``, ``done`` (maybe partly), ``failed`` or ``unknown``."""
        found = self._find(job)
        if found is None:
            return "unknown"
        # The list may lag behind; the job itself does not.
        with translated(f"Batch job {job}"):
            answer = self._clients.bedrock.get_model_invocation_job(jobIdentifier=found["jobArn"])
        state = answer.get("status", "")
        return "done" if state in _DONE else "failed" if state in _FAILED else "running"

    def collect(self, *, job: str, folder: str) -> dict[str, A]:
        """Answers by record id of the records that succeeded and can be used.

        Records come in any order and over several files; failed ones carry ``error``. What a job
        wrote before it failed or expired counts too.
        """
        _check(job, folder)
        bucket, prefix = split_uri(_output(folder))
        answers: dict[str, A] = {}
        for found in self._store.list(bucket, prefix):
            if found.uri.endswith(f"/{job}.jsonl.out"):
                answers |= self._answers(found.uri)
        return answers

    def _records(self, subjects: Sequence[S]) -> bytes:
        lines = [
            json.dumps(
                {
                    "recordId": self._conversation.record_id(subject),
                    "modelInput": self._conversation.request(subject),
                },
                default=_base64,
                separators=(",", ":"),
            )
            for subject in subjects
        ]
        return "\n".join(lines).encode() + b"\n"

    def _answers(self, uri: str) -> dict[str, A]:
        answers = {}
        for line in self._store.read(uri).splitlines():
            if not line.strip():
                continue
            try:
                record: JSON = json.loads(line)
                record_id = str(record["recordId"])
            except (KeyError, TypeError, ValueError) as error:
                raise CorruptData(f"{uri} holds a line that is not a record.") from error
            answer = record.get("modelOutput")
            if record.get("error") or not isinstance(answer, Mapping):
                continue
            try:
                answers[record_id] = self._conversation.read(answer)
            except UnusableAnswer:
                continue
        return answers

    def _find(self, job: str) -> "ModelInvocationJobSummaryTypeDef | None":
        """The newest job of this name. Jobs are listed by name, got by ARN only."""
        extra: dict[str, Any] = {}
        while True:
            with translated(f"Batch job {job}"):
                answer = self._clients.bedrock.list_model_invocation_jobs(
                    nameContains=job,
                    sortBy="CreationTime",
                    sortOrder="Descending",
                    maxResults=100,
                    **extra,
                )
            for found in answer.get("invocationJobSummaries", ()):
                if found["jobName"] == job:
                    return found
            if not answer.get("nextToken"):
                return None
            extra["nextToken"] = answer["nextToken"]


def _check(job: str, folder: str) -> None:
    if not _JOB.fullmatch(job):
        raise InvalidInput(
            f"{job!r} cannot name a batch job: use 1 to 63 letters, digits, dots and hyphens."
        )
    if not _FOLDER.fullmatch(folder):
        raise InvalidInput(f"Bedrock does not take the folder {folder!r}: no '=' and no spaces.")


def _output(folder: str) -> str:
    return f"{folder.rstrip('/')}/output/"


def _base64(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} is not JSON")
