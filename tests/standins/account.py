"""Clients of an account that exists in moto only."""

import time
from types import SimpleNamespace

import botocore.endpoint
import pytest
from botocore.retries.bucket import TokenBucket
from imageclust.adapters.aws.clients import Clients

REGION = "us-east-1"
ACCOUNT = "123456789012"


def make_clients() -> Clients:
    """One set of clients for a whole test session: they are dear to make and hold no state."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        clients = Clients(region=REGION)
        # Made now, while the credentials are set.
        for name in (
            "s3", "dynamodb", "s3vectors", "rekognition", "bedrock", "bedrock_runtime",
            "stepfunctions", "scheduler", "events",
        ):  # fmt: skip
            assert getattr(clients, name)
        return clients


def without_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Make botocore's retries wait no time; returns the seconds that they would have waited.

    Adaptive clients do not slow down either.
    """
    waits: list[float] = []
    stand_in = SimpleNamespace(sleep=waits.append, time=time.time)
    monkeypatch.setattr(botocore.endpoint, "time", stand_in)
    monkeypatch.setattr(TokenBucket, "acquire", lambda *_, **__: True)
    return waits
