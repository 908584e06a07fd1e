"""What a Bedrock model says of many subjects, as one batch inference job."""

import base64
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic

from imageclust.adapters.aws.bedrock_conversation import A, Conversation, S, UnusableSubject
from imageclust.adapters.aws.bedrock_jobs import (
    MAX_RECORDS,
    BedrockJobs,
    answered,
    check_job,
    record_line,
)
from imageclust.adapters.aws.clients import Clients
from imageclust.descriptions.prompts import UnusableAnswer
from imageclust.errors import InvalidInput
from imageclust.keys import split_uri
from imageclust.ports import ObjectStore

_READERS = 16


class BedrockBatch(Generic[S, A]):
    """One ``CreateModelInvocationJob`` of type Converse; ``recordId`` names the subject.

    Args:
        clients: the AWS clients.
        store: where input is written and output read; must be S3.
        conversation: the model and how it is asked.
        jobs: starts jobs.
    """

    def __init__(
        self,
        clients: Clients,
        store: ObjectStore,
        conversation: Conversation[S, A],
        jobs: BedrockJobs,
    ) -> None:
        self._meter = clients.meter
        self._jobs = jobs
        self._store = store
        self._conversation = conversation
        self.model = conversation.model_id

    def submit(self, *, job: str, subjects: Sequence[S], folder: str) -> None:
        """Start the job; it writes below ``{folder}/output/``. Idempotent by name."""
        check_job(job, folder)
        if not 1 <= len(subjects) <= MAX_RECORDS:
            raise InvalidInput(f"A batch job has 1 to {MAX_RECORDS} records, not {len(subjects)}.")
        source = f"{folder.rstrip('/')}/input/{job}.jsonl"
        self._store.write(source, self._records(subjects), content_type="application/jsonl")
        model = self._conversation.model_id
        self._jobs.submit(
            job=job, model=model, kind="Converse", source=source, output=_output(folder)
        )

    def collect(self, *, job: str, folder: str) -> dict[str, A]:
        """Answers by record id of the records that succeeded and can be used.

        Records come in any order and over several files; failed ones carry ``error``. What a job
        wrote before it failed or expired counts too.
        """
        check_job(job, folder)
        bucket, prefix = split_uri(_output(folder))
        answers: dict[str, A] = {}
        for found in self._store.list(bucket, prefix):
            if found.uri.endswith(f"/{job}.jsonl.out"):
                answers |= self._answers(found.uri)
        return answers

    def _records(self, subjects: Sequence[S]) -> bytes:
        """The job's input; a subject that cannot be put to a model has no record."""
        # A request may read pictures from S3, which waits more than it works.
        with ThreadPoolExecutor(_READERS) as pool:
            return b"".join(pool.map(self._record, subjects))

    def _record(self, subject: S) -> bytes:
        try:
            request = self._conversation.request(subject)
        except UnusableSubject:
            return b""
        return record_line(self._conversation.record_id(subject), request, default=_base64)

    def _answers(self, uri: str) -> dict[str, A]:
        answers = {}
        for record_id, answer in answered(self._store.read(uri)):
            if not isinstance(answer, Mapping):
                continue
            self._meter.count_tokens(self._conversation.model_id, answer, batch=True)
            try:
                answers[record_id] = self._conversation.read(answer)
            except UnusableAnswer:
                continue
        return answers


def _output(folder: str) -> str:
    return f"{folder.rstrip('/')}/output/"


def _base64(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} is not JSON")
