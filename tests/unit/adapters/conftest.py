from collections.abc import Iterator

import pytest
from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.pacing import Pace
from moto import mock_aws

from tests.standins.account import make_clients


@pytest.fixture(scope="session")
def session_clients() -> Clients:
    return make_clients()


@pytest.fixture
def clients(session_clients: Clients) -> Iterator[Clients]:
    """Clients of an empty account, which has bought nothing and throttled nobody so far."""
    session_clients.meter.take()
    session_clients.converse_pace = Pace(session_clients.converse_per_second)
    with mock_aws():
        yield session_clients
