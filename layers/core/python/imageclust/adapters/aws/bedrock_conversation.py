"""Putting many subjects to a Bedrock model through Converse: each asked, read, repaired once."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.failures import translated
from imageclust.descriptions.prompts import UnusableAnswer
from imageclust.errors import NotFound, Permanent, Retryable, Throttled
from imageclust.models import JSON
from imageclust.ports import ObjectStore, never

# Answers take about a second; so many requests under way reach the rate.
_SECONDS_A_CALL = 1.2
_MAX_THREADS = 64
_ATTEMPTS = 8

S = TypeVar("S")
A = TypeVar("A")
_S_contra = TypeVar("_S_contra", contravariant=True)
_A_co = TypeVar("_A_co", covariant=True)


class UnusableSubject(Exception):
    """There is nothing to ask about a subject: its picture is gone."""


class Conversation(Protocol[_S_contra, _A_co]):
    """How one subject is put to a model: the Converse request and the reading of its answer."""

    model_id: str

    def record_id(self, subject: _S_contra, /) -> str:
        """Names the subject within a job."""
        ...

    def request(self, subject: _S_contra, /) -> JSON:
        """The body of a Converse call; pictures as bytes. Raises UnusableSubject."""
        ...

    def read(self, answer: Mapping[str, Any], /) -> _A_co:
        """What a Converse answer says. Raises UnusableAnswer."""
        ...

    def repair(self, problem: UnusableAnswer, /) -> str:
        """The message that asks once more after an answer that could not be used."""
        ...


def ask_all(
    clients: Clients,
    conversation: Conversation[S, A],
    subjects: Sequence[S],
    *,
    out_of_time: Callable[[], bool] = never,
) -> list[A | None]:
    """An answer a subject, in order; None where the model failed twice, stayed throttled, does
    not take this subject or where ``out_of_time`` came first.

    When no subject got an answer because Bedrock was throttled or down or takes none of them, that
    error is raised. Errors of the account (no access, no such model) are raised at once.
    """
    if not subjects:
        return []

    def attempt(subject: S) -> A | Retryable | _Refused | None:
        if out_of_time():
            return Throttled("the time of one function was up")
        try:
            return _ask(clients, conversation, subject, out_of_time)
        except (Retryable, _Refused) as error:
            return error
        except (UnusableAnswer, UnusableSubject):
            return None

    threads = min(_MAX_THREADS, math.ceil(clients.converse_per_second * _SECONDS_A_CALL))
    with ThreadPoolExecutor(min(max(1, threads), len(subjects))) as pool:
        answers = list(pool.map(attempt, subjects))
    failures = [answer for answer in answers if isinstance(answer, Retryable | _Refused)]
    if len(failures) == len(subjects):
        raise failures[0]
    return [None if isinstance(answer, Retryable | _Refused) else answer for answer in answers]


class _Refused(Permanent):
    """Bedrock finds fault with what was asked about one subject."""


def _ask(
    clients: Clients, conversation: Conversation[S, A], subject: S, out_of_time: Callable[[], bool]
) -> A:
    """The model's answer; one that cannot be used is asked for once more."""

    def converse(request: JSON) -> Mapping[str, Any]:
        def once() -> Mapping[str, Any]:
            with translated(f"Bedrock model {conversation.model_id}", invalid=_Refused):
                return clients.bedrock_runtime.converse(modelId=conversation.model_id, **request)

        return clients.converse_pace.call(once, attempts=_ATTEMPTS, out_of_time=out_of_time)

    request = conversation.request(subject)
    answer = converse(request)
    try:
        return conversation.read(answer)
    except UnusableAnswer as problem:
        return conversation.read(converse(_again(request, answer, conversation.repair(problem))))


def _again(request: JSON, answer: Mapping[str, Any], repair: str) -> JSON:
    content = answer.get("output", {}).get("message", {}).get("content") or [{"text": "(nothing)"}]
    turns = [
        {"role": "assistant", "content": content},
        {"role": "user", "content": [{"text": repair}]},
    ]
    return {**request, "messages": [*request["messages"], *turns]}


def answer_text(answer: Mapping[str, Any]) -> str:
    """The text of a Converse answer. Raises UnusableAnswer when the model did not finish it."""
    try:
        reason = answer["stopReason"]
        parts = answer["output"]["message"]["content"]
        text = "".join(part["text"] for part in parts if "text" in part)
    except (KeyError, TypeError):
        raise UnusableAnswer("it has no message") from None
    if reason not in ("end_turn", "stop_sequence"):
        raise UnusableAnswer(f"it stopped early ({reason})")
    return text


def picture_blocks(store: ObjectStore, uris: Sequence[str]) -> Iterator[JSON]:
    """Thumbnails as content blocks; one that is gone is left out."""
    for uri in uris:
        try:
            data = store.read(uri)
        except NotFound:
            continue
        yield {"image": {"format": "webp", "source": {"bytes": data}}}


def model_key(model_id: str) -> str:
    """The model's id as part of a key, in ``[a-z0-9.-]``."""
    return model_id.lower().replace(":", "-").replace("/", "-")
