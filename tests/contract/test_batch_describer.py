"""One behaviour of batch describers, inline and on Bedrock."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from imageclust.adapters.aws.bedrock_batch import BedrockBatch
from imageclust.adapters.aws.bedrock_describer import NamingConversation
from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.s3_store import S3Store
from imageclust.adapters.local.file_store import FileStore
from imageclust.adapters.local.inline_batch_describer import InlineBatchDescriber
from imageclust.adapters.local.sqlite_table import SqliteTable
from imageclust.descriptions import DeterministicDescriber
from imageclust.models import ClusterBrief
from imageclust.ports import BatchDescriber
from moto import mock_aws

from tests.standins.fake_bedrock import FakeBedrock

FOLDER = "s3://data/bedrock/r1/"
MODEL = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
ROLE = "arn:aws:iam::123456789012:role/bedrock-batch"


def briefs(count: int) -> list[ClusterBrief]:
    return [
        ClusterBrief(
            cluster_id=f"c{n:04d}", size=10 + n, labels=((f"Label {n}", 0.9, 5.0), ("Room", 1, 1))
        )
        for n in range(count)
    ]


@pytest.fixture(params=["local", "aws"])
def describer(
    request: pytest.FixtureRequest, tmp_path: Path, clients: Clients
) -> Iterator[BatchDescriber]:
    if request.param == "local":
        table = SqliteTable(tmp_path / "table.db")
        store = FileStore({"data": tmp_path / "data"})
        yield InlineBatchDescriber(DeterministicDescriber(), store, table)
        table.close()
        return
    with mock_aws(), FakeBedrock().serve():
        clients.s3.create_bucket(Bucket="data")
        store_ = S3Store(clients, cache=tmp_path / "cache")
        yield BedrockBatch(clients, store_, NamingConversation(MODEL), role_arn=ROLE)


def settled(describer: BatchDescriber, job: str) -> str:
    for _ in range(5):
        status = describer.status(job=job)
        if status != "running":
            return status
    return "running"


def test_a_job_from_start_to_names(describer: BatchDescriber) -> None:
    assert describer.status(job="describe-1") == "unknown"
    describer.submit(job="describe-1", subjects=briefs(120), folder=FOLDER)
    assert settled(describer, "describe-1") == "done"
    names = describer.collect(job="describe-1", folder=FOLDER)
    assert set(names) == {f"c{n:04d}" for n in range(120)}
    for n in (0, 57, 119):
        name = names[f"c{n:04d}"]
        assert f"Label {n}" in name.title
        assert 0 < len(name.title) <= 25
        assert 0 < len(name.phrase) <= 100
        assert 0 < len(name.description) <= 400
        assert name.model


def test_submitting_twice_is_one_job(describer: BatchDescriber) -> None:
    describer.submit(job="describe-1", subjects=briefs(100), folder=FOLDER)
    describer.submit(job="describe-1", subjects=briefs(100), folder=FOLDER)
    assert settled(describer, "describe-1") == "done"
    describer.submit(job="describe-1", subjects=briefs(100), folder=FOLDER)
    assert settled(describer, "describe-1") == "done"
    assert len(describer.collect(job="describe-1", folder=FOLDER)) == 100


def test_jobs_do_not_mix(describer: BatchDescriber) -> None:
    describer.submit(job="describe-1", subjects=briefs(100), folder=FOLDER)
    assert describer.status(job="describe") == "unknown"
    assert describer.collect(job="describe-2", folder=FOLDER) == {}
