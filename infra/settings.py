"""What a person may choose about a deployment: one class, read from ``IMAGECLUST_*`` variables."""

import difflib
import re
from collections.abc import Collection
from typing import Annotated

from imageclust.costs import default_prices, read_overrides
from imageclust.errors import InvalidInput
from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

LOG_DAYS = {
    1: "ONE_DAY",
    3: "THREE_DAYS",
    5: "FIVE_DAYS",
    7: "ONE_WEEK",
    14: "TWO_WEEKS",
    30: "ONE_MONTH",
    60: "TWO_MONTHS",
    90: "THREE_MONTHS",
    180: "SIX_MONTHS",
    365: "ONE_YEAR",
    731: "TWO_YEARS",
}
"""Days that logs can be kept, as the CDK's ``RetentionDays`` names them."""


def _known(days: int) -> int:
    if days not in LOG_DAYS:
        raise ValueError(f"must be one of {', '.join(map(str, LOG_DAYS))}")
    return days


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]{2,31}", text):
        raise ValueError("use 3 to 32 lower-case letters, digits and hyphens, a letter first")
    return text


def _alarms(text: str) -> str:
    topic = r"arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]+"
    if text and not re.fullmatch(rf"on|[^@\s,]+@[^@\s,]+\.[^@\s,]+|{topic}", text):
        raise ValueError("must be 'on', an e-mail address, the ARN of an SNS topic, or empty")
    return text


def _models(text: str) -> str:
    wrong = [m for m in text.split(",") if not re.fullmatch(r"\s*[a-z0-9-]+\.[\w.:-]+\s*", m)]
    if text and wrong:
        raise ValueError(
            f"{wrong[0]!r} is no id of a Bedrock model or inference profile, as in "
            "'us.anthropic.claude-haiku-4-5-20251001-v1:0'"
        )
    return text


def _prices(text: str) -> str:
    try:
        default_prices().with_overrides(read_overrides(text))
    except InvalidInput as refused:
        raise ValueError(str(refused)) from None
    return text


class StackSettings(BaseSettings):
    """Deployment settings. Each field is ``IMAGECLUST_`` and its name in upper case."""

    model_config = SettingsConfigDict(env_prefix="IMAGECLUST_", frozen=True)

    stack_name: Annotated[str, AfterValidator(_name)] = Field(
        default="imageclust",
        description="CloudFormation stack; names of the state machine and functions begin so",
    )
    keep_data: bool = Field(
        default=True, description="Keep buckets, table and vectors when the stack is deleted"
    )
    log_days: Annotated[int, AfterValidator(_known)] = Field(
        default=30, description="Days that logs are kept"
    )
    results_days: int = Field(
        default=30,
        ge=5,  # a run may take three days, and S3 counts from the next midnight
        description="Days that files between states are kept: results of maps, batch inference",
    )
    cluster_memory_mb: int = Field(
        default=10_240,
        ge=1_024,
        le=10_240,
        description="Memory of ClusterImages and PublishRun; new accounts may be limited to 3008",
    )
    quiet_seconds: int = Field(
        default=60, ge=1, description="A run starts this long after the last upload"
    )
    max_upload_bytes: int = Field(
        default=100_000_000, ge=1, description="Largest file that a presigned upload accepts"
    )
    max_megapixels: int = Field(
        default=200,
        ge=1,
        le=400,
        description="Pictures with more pixels are rejected before they are decoded",
    )
    api_requests_per_second: int = Field(
        default=20, ge=1, description="Steady rate of the API; bursts may be twice that"
    )
    api_requests_per_day: int = Field(
        default=100_000, ge=1, description="Requests that an API key may make in a day"
    )
    web_origin: str = Field(
        default="*", description="Origin that may call the API and post uploads from a browser"
    )
    title_model: Annotated[str, AfterValidator(_models)] = Field(
        default="us.anthropic.claude-haiku-4-5-20251001-v1:0",
        description="Bedrock model or inference profile that names clusters on demand",
    )
    batch_model: Annotated[str, AfterValidator(_models)] = Field(
        default="us.anthropic.claude-haiku-4-5-20251001-v1:0",
        description="Bedrock model or inference profile of batch inference jobs",
    )
    more_models: Annotated[str, AfterValidator(_models)] = Field(
        default="us.anthropic.claude-sonnet-4-5-20250929-v1:0,amazon.nova-micro-v1:0",
        description="Further Bedrock models that a run may name as describers, separated by commas",
    )
    map_concurrency: int = Field(
        default=100,
        ge=1,
        description="Functions that embed at once; new AWS accounts may be limited to 10 in all",
    )
    label_concurrency: int = Field(
        default=5, ge=1, description="Functions that label at once; they share the rate below"
    )
    rekognition_per_second: float = Field(
        default=50.0, gt=0, description="Your DetectLabels quota; 5 in small regions"
    )
    bedrock_per_second: float = Field(
        default=50.0,
        gt=0,
        description="Your Converse quota of the describing models; where it is less, runs find out",
    )
    bedrock_embed_per_second: float = Field(
        default=30.0,
        gt=0,
        description="Your InvokeModel quota of the embedding models; less is found out by runs",
    )
    embed_batch_saving_usd: float = Field(
        default=1.0,
        ge=0,
        description="What batch inference must save for a run to wait hours for its embeddings",
    )
    alarms: Annotated[str, AfterValidator(_alarms)] = Field(
        default="",
        description="Alarms and a dashboard: on, or whom alarms tell: an e-mail address or the "
        "ARN of an SNS topic",
    )
    language: str = Field(default="English", description="Language of titles and descriptions")
    prices: Annotated[str, AfterValidator(_prices)] = Field(
        default="",
        description="Your own prices as JSON, in place of figures of costs/prices.json",
    )
    gpu: bool = Field(
        default=False, description="Embed big collections on Spot GPUs with AWS Batch"
    )
    gpu_from: int = Field(
        default=20_000, ge=1, description="New images from which a run embeds on the GPU"
    )
    gpu_instance_type: str = Field(
        default="g6.xlarge", description="Instance type with one GPU, 4 vCPU and 16 GB or more"
    )
    gpu_max_instances: int = Field(default=4, ge=1, description="GPU instances at once, at most")
    gpu_image: str = Field(
        default="",
        description="Container image in a registry; empty builds containers/gpu.Dockerfile "
        "with Docker while deploying",
    )
    build_layers: bool = Field(
        default=True, description="Off synthesizes a template that cannot be deployed, in seconds"
    )


NOT_OURS = frozenset({"IMAGECLUST_HOME", "IMAGECLUST_MODELS", "IMAGECLUST_FUZZ"})
"""Variables of this prefix that mean something to the command line and the tests."""


def refusals(error: ValidationError) -> list[str]:
    """What is wrong with the settings, a line each, in terms of the variables."""
    return [
        f"IMAGECLUST_{str(each['loc'][0]).upper()}={each['input']!r}: "
        + each["msg"].removeprefix("Value error, ")
        for each in error.errors()
    ]


def misspelt(variables: Collection[str]) -> list[str]:
    """A line for each variable that looks like a setting and is none: it would do nothing."""
    known = {f"IMAGECLUST_{name.upper()}" for name in StackSettings.model_fields}
    lines = []
    for name in sorted(variables):
        if name.startswith("IMAGECLUST_") and name not in known | NOT_OURS:
            near = difflib.get_close_matches(name, sorted(known), 1)
            lines.append(f"{name} is no setting" + (f"; do you mean {near[0]}?" if near else ""))
    return lines
