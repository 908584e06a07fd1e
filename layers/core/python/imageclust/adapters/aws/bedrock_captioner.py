"""Captions of images from a Bedrock model that sees, on demand, through Converse."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from imageclust.adapters.aws.bedrock_conversation import (
    UnusableSubject,
    answer_text,
    ask_all,
    model_key,
    picture_blocks,
)
from imageclust.adapters.aws.clients import Clients
from imageclust.descriptions.captions import (
    CAPTION_VERSION,
    ImageBrief,
    caption_prompt,
    caption_repair,
    read_caption,
)
from imageclust.descriptions.prompts import UnusableAnswer, check_language
from imageclust.models import JSON, digest_of
from imageclust.ports import ObjectStore, never

_MAX_TOKENS = 200


class CaptionConversation:
    """How one picture is put to a model.

    Args:
        model_id: model or inference profile that takes pictures.
        pictures: where thumbnails are read.
        language: of the captions.
    """

    def __init__(self, model_id: str, pictures: ObjectStore, *, language: str = "English") -> None:
        self.model_id = model_id
        self.language = check_language(language)
        self._pictures = pictures

    def record_id(self, image: ImageBrief) -> str:
        return image.image_id

    def request(self, image: ImageBrief) -> JSON:
        """Raises UnusableSubject when there is no thumbnail."""
        prompt = caption_prompt(image.labels, language=self.language)
        shown = list(picture_blocks(self._pictures, [image.thumbnail]))
        if not shown:
            raise UnusableSubject(image.image_id)
        return {
            "system": [{"text": prompt.system}],
            "messages": [{"role": "user", "content": [*shown, {"text": prompt.user}]}],
            # Describing is no place for chance: the same picture should give the same words.
            "inferenceConfig": {"maxTokens": _MAX_TOKENS, "temperature": 0.0},
        }

    def read(self, answer: Mapping[str, Any]) -> str:
        return read_caption(answer_text(answer))

    def repair(self, problem: UnusableAnswer) -> str:
        return caption_repair(problem)


class BedrockCaptioner:
    """Asks the model about each picture; an answer that cannot be used is asked for once more.

    ``key`` covers the model of batch jobs as well: what either of them said of a picture is not
    asked for again.
    """

    def __init__(self, clients: Clients, conversation: CaptionConversation, *, batch: str) -> None:
        self._clients = clients
        self._conversation = conversation
        self.model = conversation.model_id
        settings = digest_of([CAPTION_VERSION, conversation.language, batch])
        self.key = f"{model_key(self.model)}-{settings[:8]}"

    def caption(
        self, images: Sequence[ImageBrief], *, out_of_time: Callable[[], bool] = never
    ) -> list[str | None]:
        """One caption an image, in order; None where the model failed twice or stayed throttled.

        When no image got an answer because Bedrock was throttled or down, that error is raised,
        and so are errors of the account (no access, no such model).
        """
        return ask_all(self._clients, self._conversation, images, out_of_time=out_of_time)
