"""What a deployment decides, read from the environment in one place (``wiring``)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

from imageclust.errors import InvalidInput

PROFILE_SCOPES = frozenset({"us", "eu", "apac", "jp", "au", "ca", "us-gov", "global"})
"""What the id of a cross-region inference profile of Bedrock begins with, before its model's."""

# What one function decodes in a second, with something to spare.
_EMBEDDED_A_SECOND = 3


@dataclass(frozen=True)
class Settings:
    """Settings of one deployment; each field is the environment variable in upper case.

    Sizes are bytes, times are seconds, counts are images unless named otherwise.
    Files above ``max_upload_bytes`` are rejected unread, pictures above ``max_megapixels``
    undecoded. ``paid`` is off on one machine.
    ``device`` is cpu or cuda. ``decode_workers`` are processes that decode; 0 decodes in this
    process, for a Lambda function, whose own process is the guard.
    ``plan_seconds``, ``cluster_seconds`` and ``publish_seconds`` are when PlanRun, ClusterImages
    and PublishRun leave the rest to another call.
    ``bedrock_models`` are the models that a run may name as describers beside the title and the
    batch model, separated by commas.
    ``describe_seconds`` is how long one function asks for names and captions on demand.
    ``bedrock_per_second`` are requests for names and captions, ``bedrock_embed_per_second`` those
    for embeddings, over all functions.
    ``bedrock_batch_minimum`` is the fewest records of a batch inference job; 0 means never.
    ``embed_batch_saving_usd`` is what batch inference must save for a run to wait for it.
    ``prices`` is a JSON object of figures that replace those of the price file.
    ``cluster_memory_mb`` is the memory of ClusterImages; 0: this machine's, whatever it is.
    ``aws_lambda_function_memory_size``, in MB, is set by Lambda itself; 0 elsewhere.
    """

    uploads_bucket: str = "uploads"
    data_bucket: str = "data"
    table_name: str = "imageclust"
    vector_bucket: str = ""
    state_machine_arn: str = ""
    event_bus: str = "default"
    schedule_group: str = "default"
    schedule_role_arn: str = ""
    start_function_arn: str = ""
    quiet_seconds: int = 60
    max_upload_bytes: int = 100_000_000
    max_megapixels: int = 200
    aws_region: str = "us-east-1"
    paid: bool = True
    embed_batch: int = 64
    label_batch: int = 500
    gpu_enabled: bool = False
    gpu_from: int = 20_000
    gpu_images_a_job: int = 100_000
    device: str = "cpu"
    decode_workers: int = 0
    cluster_memory_mb: int = 0
    map_concurrency: int = 100
    label_concurrency: int = 5
    plan_seconds: int = 600
    cluster_seconds: int = 600
    publish_seconds: int = 450
    rekognition_per_second: float = 50.0
    rekognition_min_confidence: float = 55.0
    rekognition_max_labels: int = 25
    bedrock_title_model: str = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
    bedrock_batch_model: str = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
    bedrock_models: str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0,amazon.nova-micro-v1:0"
    bedrock_batch_role_arn: str = ""
    bedrock_per_second: float = 50.0
    bedrock_embed_per_second: float = 30.0
    bedrock_batch_minimum: int = 100
    embed_batch_saving_usd: float = 1.0
    language: str = "English"
    prices: str = ""
    aws_lambda_function_memory_size: int = 0
    describe_seconds: int = 600

    @property
    def describers(self) -> tuple[str, ...]:
        """Every Bedrock model that may describe clusters, each once."""
        more = (name.strip() for name in self.bedrock_models.split(","))
        names = (self.bedrock_title_model, self.bedrock_batch_model, *more)
        return tuple(dict.fromkeys(name for name in names if name))

    @property
    def bedrock_embed_functions(self) -> int:
        """Functions that share ``bedrock_embed_per_second``: few, as each decodes meanwhile."""
        wanted = math.ceil(self.bedrock_embed_per_second / _EMBEDDED_A_SECOND)
        return max(1, min(self.map_concurrency, wanted))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read ``NAME`` for each field that is set; a value of the wrong kind is InvalidInput."""
        values: dict[str, object] = {}
        for field in fields(cls):
            text = environment.get(field.name.upper())
            if text is None:
                continue
            kind: type[str | int | float] = type(getattr(cls, field.name))
            if kind is bool:
                values[field.name] = text.lower() in ("1", "true", "yes", "on")
                continue
            try:
                values[field.name] = kind(text)
            except ValueError:
                raise InvalidInput(
                    f"{field.name.upper()} must be a {kind.__name__}, not {text!r}"
                ) from None
        return cls(**values)  # type: ignore[arg-type]
