"""Both sides of each port: this machine, and AWS as moto and the stand-ins play it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.dynamo_table import DynamoTable
from imageclust.adapters.aws.s3_store import S3Store
from imageclust.adapters.aws.s3_vectors_index import S3VectorsIndex
from imageclust.adapters.local.file_store import FileStore
from imageclust.adapters.local.file_vector_index import FileVectorIndex
from imageclust.adapters.local.sqlite_table import SqliteTable
from imageclust.ports import ObjectStore, Table, VectorIndex
from moto import mock_aws

from tests.standins.account import make_clients
from tests.standins.fake_s3vectors import FakeS3Vectors
from tests.standins.table import table_definition


@dataclass(frozen=True)
class Side:
    """The ports under test, all on one side."""

    store: ObjectStore
    table: Table
    index: VectorIndex


@pytest.fixture(scope="session")
def clients() -> Clients:
    return make_clients()


@pytest.fixture(params=["local", "aws"])
def side(request: pytest.FixtureRequest, tmp_path: Path, clients: Clients) -> Iterator[Side]:
    if request.param == "local":
        table = SqliteTable(tmp_path / "state" / "table.db")
        yield Side(
            store=FileStore({"data": tmp_path / "data"}),
            table=table,
            index=FileVectorIndex(tmp_path / "index"),
        )
        table.close()
        return
    with mock_aws(), FakeS3Vectors().serve():
        clients.s3.create_bucket(Bucket="data")
        clients.dynamodb.create_table(**table_definition())
        clients.s3vectors.create_vector_bucket(vectorBucketName="vectors")
        yield Side(
            store=S3Store(clients, cache=tmp_path / "cache"),
            table=DynamoTable(clients, "imageclust", sleep=lambda _: None),
            index=S3VectorsIndex(clients, "vectors"),
        )


@pytest.fixture
def store(side: Side) -> ObjectStore:
    return side.store


@pytest.fixture
def table(side: Side) -> Table:
    return side.table


@pytest.fixture
def index(side: Side) -> VectorIndex:
    return side.index
