"""Batch inference jobs of Bedrock by name: started once, looked up, their answers read."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.failures import translated
from imageclust.errors import Conflict, InvalidInput, NotFound
from imageclust.models import JSON

if TYPE_CHECKING:
    from mypy_boto3_bedrock.literals import ModelInvocationTypeType
    from mypy_boto3_bedrock.type_defs import ModelInvocationJobSummaryTypeDef

MAX_RECORDS = 50_000  # of a job, over all of its files
MAX_BYTES = 5_000_000_000  # of a job, over all of its files

_TIMEOUT_HOURS = 24  # the least; a job that waits longer expires

_JOB = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]{0,61}[a-zA-Z0-9])?")
# What Bedrock takes as an s3:// address: no '=', no spaces, no empty parts.
_FOLDER = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[-!_*'().a-z0-9A-Z]+)*/?")
_DONE = {"Completed", "PartiallyCompleted"}
_FAILED = {"Failed", "Stopped", "Expired"}


class BedrockJobs:
    """The job's name is its identity: creating it again with the same name and input gives the
    same job (``clientRequestToken`` is derived from the name), and its state is looked up by name.

    Args:
        clients: the AWS clients.
        role_arn: role that Bedrock takes to read the records and write the answers.
    """

    def __init__(self, clients: Clients, *, role_arn: str) -> None:
        self._clients = clients
        self._role_arn = role_arn

    def submit(
        self, *, job: str, model: str, kind: "ModelInvocationTypeType", source: str, output: str
    ) -> None:
        """Start the job over ``source``, a file of records or a folder of them."""
        check_job(job, source)
        try:
            with translated(f"Batch job {job}"):
                self._clients.bedrock.create_model_invocation_job(
                    jobName=job,
                    clientRequestToken=hashlib.sha256(job.encode()).hexdigest(),
                    roleArn=self._role_arn,
                    modelId=model,
                    modelInvocationType=kind,
                    inputDataConfig={"s3InputDataConfig": {"s3Uri": source}},
                    outputDataConfig={"s3OutputDataConfig": {"s3Uri": output}},
                    timeoutDurationInHours=_TIMEOUT_HOURS,
                )
        except Conflict:
            # Another attempt created it under this name.
            if self._find(job) is None:
                raise

    def status(self, job: str) -> str:
        """``running``, ``done`` (maybe partly), ``failed`` or ``unknown``."""
        found = self._find(job)
        if found is None:
            return "unknown"
        # The list may lag behind; the job itself does not.
        with translated(f"Batch job {job}"):
            answer = self._clients.bedrock.get_model_invocation_job(jobIdentifier=found["jobArn"])
        state = answer.get("status", "")
        return "done" if state in _DONE else "failed" if state in _FAILED else "running"

    def stop(self, job: str) -> None:
        """Stop the job; one that is over, or was never made, is no error."""
        found = self._find(job)
        if found is None:
            return
        with suppress(Conflict, NotFound), translated(f"Batch job {job}"):
            self._clients.bedrock.stop_model_invocation_job(jobIdentifier=found["jobArn"])

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


def check_job(job: str, folder: str) -> None:
    """Raise InvalidInput for a name or an address that Bedrock does not take."""
    if not _JOB.fullmatch(job):
        raise InvalidInput(
            f"{job!r} cannot name a batch job: use 1 to 63 letters, digits, dots and hyphens."
        )
    if not _FOLDER.fullmatch(folder):
        raise InvalidInput(f"Bedrock does not take the folder {folder!r}: no '=' and no spaces.")


def record_line(record_id: str, model_input: JSON, *, default: Any = None) -> bytes:
    """One line of a job's input."""
    record = {"recordId": record_id, "modelInput": model_input}
    return json.dumps(record, default=default, separators=(",", ":")).encode() + b"\n"


def answered(data: bytes) -> Iterator[tuple[str, Any]]:
    """``(recordId, modelOutput)`` of each record of an output file that was answered.

    Records come in any order. Those with an ``error`` are left out, and so is a line that is no
    record: a job that was stopped or expired may leave half of one.
    """
    for line in data.splitlines():
        try:
            record = json.loads(line)
            found = str(record["recordId"]), record["modelOutput"]
        except (KeyError, TypeError, ValueError):
            continue
        if not record.get("error"):
            yield found
