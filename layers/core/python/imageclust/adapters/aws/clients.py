"""boto3 clients, made at their first use, with the retries and time-outs that suit each service."""

import threading
from functools import cached_property
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from imageclust.adapters.aws.metering import Meter
from imageclust.adapters.aws.pacing import Pace

if TYPE_CHECKING:
    from mypy_boto3_bedrock import BedrockClient
    from mypy_boto3_bedrock_runtime import BedrockRuntimeClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_rekognition import RekognitionClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3vectors import S3VectorsClient
    from mypy_boto3_scheduler import EventBridgeSchedulerClient
    from mypy_boto3_stepfunctions import SFNClient


class Clients:
    """One session and at most one client a service, shared by all adapters and threads.

    ``meter`` counts what their calls buy.

    Args:
        region: the region; None takes it from the environment.
        converse_per_second: requests a second to models of text, over all threads.
        retry_attempts: calls that botocore makes at most for one request (Rekognition and the
            models of Bedrock have their own, paced retries).
    """

    def __init__(
        self,
        *,
        region: str | None = None,
        retry_attempts: int = 8,
        converse_per_second: float = 50.0,
    ) -> None:
        self.meter = Meter()
        self._session = boto3.Session(region_name=region)
        self.meter.watch(self._session)
        self._attempts = retry_attempts
        self.converse_per_second = converse_per_second
        self.converse_pace = Pace(converse_per_second)
        # A session may be shared, but making clients from it is not thread-safe.
        self._lock = threading.Lock()

    @cached_property
    def s3(self) -> "S3Client":
        # Version 4 for presigned addresses too: version 2, the default in some regions, does not
        # reach objects under KMS keys.
        with self._lock:
            return self._session.client("s3", config=self._config(read=60, signature="s3v4"))

    @cached_property
    def dynamodb(self) -> "DynamoDBClient":
        with self._lock:
            return self._session.client("dynamodb", config=self._config(read=10))

    @cached_property
    def s3vectors(self) -> "S3VectorsClient":
        with self._lock:
            return self._session.client("s3vectors", config=self._config(read=60, adaptive=True))

    @cached_property
    def rekognition(self) -> "RekognitionClient":
        # One attempt: RekognitionLabeler retries at its own pace, which counts every request.
        with self._lock:
            return self._session.client("rekognition", config=self._config(read=30, attempts=1))

    @cached_property
    def bedrock(self) -> "BedrockClient":
        with self._lock:
            return self._session.client("bedrock", config=self._config(read=30))

    @cached_property
    def bedrock_runtime(self) -> "BedrockRuntimeClient":
        # One attempt: paces retry in their own turns, which count every request.
        with self._lock:
            config = self._config(read=120, attempts=1, connections=64)
            return self._session.client("bedrock-runtime", config=config)

    @cached_property
    def stepfunctions(self) -> "SFNClient":
        with self._lock:
            return self._session.client("stepfunctions", config=self._config(read=30))

    @cached_property
    def scheduler(self) -> "EventBridgeSchedulerClient":
        with self._lock:
            return self._session.client("scheduler", config=self._config(read=30))

    @cached_property
    def events(self) -> "EventBridgeClient":
        with self._lock:
            return self._session.client("events", config=self._config(read=30))

    def _config(
        self,
        *,
        read: int,
        attempts: int | None = None,
        adaptive: bool = False,
        signature: str | None = None,
        connections: int = 32,
    ) -> Config:
        return Config(
            signature_version=signature,
            # Presigned addresses then name the region; the global one answers with a redirect
            # outside us-east-1, which browsers do not follow on a POST.
            s3={"addressing_style": "virtual", "us_east_1_regional_endpoint": "regional"},
            connect_timeout=5,
            read_timeout=read,
            max_pool_connections=connections,
            retries={
                "mode": "adaptive" if adaptive else "standard",
                "total_max_attempts": attempts or self._attempts,
            },
        )
