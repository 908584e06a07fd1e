"""Cluster names from a Bedrock model, on demand, through Converse."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.failures import translated
from imageclust.descriptions.prompts import (
    PROMPT_VERSION,
    ClusterText,
    UnusableAnswer,
    build_prompt,
    check_language,
    distinct_titles,
    parse_answer,
    repair_request,
)
from imageclust.errors import NotFound, Retryable
from imageclust.models import JSON, ClusterBrief, ClusterName, digest_of
from imageclust.ports import Describer, ObjectStore

_THREADS = 8
_MAX_TOKENS = 600
_MOST_PICTURES = 4


class Conversation:
    """How one cluster is put to a model: the Converse request and the reading of its answer.

    Args:
        model_id: model or inference profile.
        language: of the names.
        pictures: where exemplar thumbnails are read, for models that see; None sends facts only.
    """

    def __init__(
        self, model_id: str, *, language: str = "English", pictures: ObjectStore | None = None
    ) -> None:
        self.model_id = model_id
        self.language = check_language(language)
        self.pictures = pictures
        settings = digest_of([PROMPT_VERSION, language, pictures is not None])
        self.key = f"{model_id.lower().replace(':', '-').replace('/', '-')}-{settings[:8]}"

    def request(self, brief: ClusterBrief) -> JSON:
        """The body of a Converse call; pictures as bytes."""
        prompt = build_prompt(brief, language=self.language)
        content: list[JSON] = [{"text": prompt.user}]
        if self.pictures is not None:
            content += _picture_blocks(self.pictures, brief.exemplars[:_MOST_PICTURES])
        return {
            "system": [{"text": prompt.system}],
            "messages": [{"role": "user", "content": content}],
            # Naming is no place for chance: the same facts should give the same words.
            "inferenceConfig": {"maxTokens": _MAX_TOKENS, "temperature": 0.0},
        }

    def read(self, answer: Mapping[str, Any]) -> ClusterText:
        """The texts in a Converse answer. Raises UnusableAnswer."""
        return parse_answer(answer_text(answer))


def _picture_blocks(store: ObjectStore, uris: Sequence[str]) -> Iterator[JSON]:
    for uri in uris:
        try:
            data = store.read(uri)
        except NotFound:
            continue
        yield {"image": {"format": "webp", "source": {"bytes": data}}}


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


class BedrockDescriber:
    """Asks the model for each cluster; an answer that cannot be used is asked for once more.

    Where the model fails twice, or stays throttled, the fallback names the cluster; ``model`` of
    each name says who did. Errors of the account (no access, no such model) are raised.

    Args:
        clients: the AWS clients.
        conversation: the model and how it is asked.
        fallback: the deterministic describer.
    """

    def __init__(
        self, clients: Clients, conversation: Conversation, *, fallback: Describer
    ) -> None:
        self._clients = clients
        self._conversation = conversation
        self._fallback = fallback
        self.key = f"{conversation.key}-{fallback.key}"

    def describe(self, briefs: Sequence[ClusterBrief]) -> list[ClusterName]:
        """One name a cluster, in order; titles unique within the call.

        When no cluster got an answer because Bedrock was throttled or down, that error is raised.
        """
        if not briefs:
            return []
        with ThreadPoolExecutor(min(_THREADS, len(briefs))) as pool:
            answers = list(pool.map(self._describe, briefs))
        failures = [answer for answer in answers if isinstance(answer, Retryable)]
        if len(failures) == len(briefs):
            raise failures[0]
        missing = [brief for brief, a in zip(briefs, answers, strict=True) if not _named(a)]
        spare = iter(self._fallback.describe(missing))
        names = [answer if isinstance(answer, ClusterName) else next(spare) for answer in answers]
        return distinct_titles(names, briefs)

    def _describe(self, brief: ClusterBrief) -> ClusterName | Retryable | None:
        request = self._conversation.request(brief)
        try:
            answer = self._converse(request)
            try:
                text = self._conversation.read(answer)
            except UnusableAnswer as problem:
                text = self._conversation.read(self._converse(_again(request, answer, problem)))
        except Retryable as error:
            return error
        except UnusableAnswer:
            return None
        return text.named(self._conversation.model_id)

    def _converse(self, request: JSON) -> Mapping[str, Any]:
        model = self._conversation.model_id
        with translated(f"Bedrock model {model}"):
            return self._clients.bedrock_runtime.converse(modelId=model, **request)


def _named(answer: object) -> bool:
    return isinstance(answer, ClusterName)


def _again(request: JSON, answer: Mapping[str, Any], problem: UnusableAnswer) -> JSON:
    content = answer.get("output", {}).get("message", {}).get("content") or [{"text": "(nothing)"}]
    turns = [
        {"role": "assistant", "content": content},
        {"role": "user", "content": [{"text": repair_request(problem)}]},
    ]
    return {**request, "messages": [*request["messages"], *turns]}
