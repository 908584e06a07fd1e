"""Cluster names from a Bedrock model, on demand, through Converse."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from imageclust.adapters.aws.bedrock_conversation import (
    answer_text,
    ask_all,
    model_key,
    picture_blocks,
)
from imageclust.adapters.aws.clients import Clients
from imageclust.descriptions.prompts import (
    PROMPT_VERSION,
    UnusableAnswer,
    build_prompt,
    check_language,
    parse_answer,
    repair_request,
)
from imageclust.models import JSON, ClusterBrief, ClusterName, digest_of
from imageclust.ports import ObjectStore, never

_MAX_TOKENS = 600
_MOST_PICTURES = 4


class NamingConversation:
    """How one cluster is put to a model.

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
        self.key = f"{model_key(model_id)}-{settings[:8]}"

    def record_id(self, brief: ClusterBrief) -> str:
        return brief.cluster_id

    def request(self, brief: ClusterBrief) -> JSON:
        prompt = build_prompt(brief, language=self.language)
        content: list[JSON] = [{"text": prompt.user}]
        if self.pictures is not None:
            content += picture_blocks(self.pictures, brief.exemplars[:_MOST_PICTURES])
        return {
            "system": [{"text": prompt.system}],
            "messages": [{"role": "user", "content": content}],
            # Naming is no place for chance: the same facts should give the same words.
            "inferenceConfig": {"maxTokens": _MAX_TOKENS, "temperature": 0.0},
        }

    def read(self, answer: Mapping[str, Any]) -> ClusterName:
        return parse_answer(answer_text(answer)).named(self.model_id)

    def repair(self, problem: UnusableAnswer) -> str:
        return repair_request(problem)


class BedrockDescriber:
    """Asks the model for each cluster; an answer that cannot be used is asked for once more."""

    def __init__(self, clients: Clients, conversation: NamingConversation) -> None:
        self._clients = clients
        self._conversation = conversation
        self.key = conversation.key

    def describe(
        self, briefs: Sequence[ClusterBrief], *, out_of_time: Callable[[], bool] = never
    ) -> list[ClusterName | None]:
        """One name a cluster, in order; None where the model failed twice or stayed throttled.

        When no cluster got an answer because Bedrock was throttled or down, that error is raised,
        and so are errors of the account (no access, no such model).
        """
        return ask_all(self._clients, self._conversation, briefs, out_of_time=out_of_time)
