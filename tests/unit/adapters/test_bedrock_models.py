"""Whether a model can be used is known before it is needed."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from imageclust.adapters.aws.bedrock_models import check_model
from imageclust.adapters.aws.clients import Clients
from imageclust.errors import Permanent, Throttled, UnknownModel

from tests.standins.account import without_waiting
from tests.standins.endpoint import AwsError
from tests.standins.fake_bedrock import FakeBedrock

TITAN = "amazon.titan-embed-image-v1"
HAIKU = "anthropic.claude-haiku-4-5-20251001-v1:0"


@pytest.fixture
def bedrock(clients: Clients) -> Iterator[FakeBedrock]:
    assert clients
    with FakeBedrock().serve() as made:
        yield made


@pytest.mark.usefixtures("bedrock")
@pytest.mark.parametrize("model", [TITAN, HAIKU, f"us.{HAIKU}", f"global.{HAIKU}"])
def test_a_model_in_the_prime_of_life_needs_no_word(clients: Clients, model: str) -> None:
    assert check_model(clients, model) == ()


def test_an_old_model_is_used_with_a_note(clients: Clients, bedrock: FakeBedrock) -> None:
    bedrock.lifecycles[TITAN] = {"status": "LEGACY"}
    assert check_model(clients, TITAN) == (
        f"the Bedrock model {TITAN} is going out of use: plan for another",
    )
    bedrock.lifecycles[HAIKU] = {
        "status": "LEGACY", "endOfLifeTime": datetime(2199, 3, 1, tzinfo=UTC),
    }  # fmt: skip
    (note,) = check_model(clients, f"us.{HAIKU}")
    assert f"us.{HAIKU} will be withdrawn on 2199-03-01" in note


def test_a_model_that_was_withdrawn(clients: Clients, bedrock: FakeBedrock) -> None:
    bedrock.lifecycles[TITAN] = {
        "status": "LEGACY", "endOfLifeTime": datetime(2020, 3, 1, tzinfo=UTC),
    }  # fmt: skip
    with pytest.raises(UnknownModel, match="withdrawn on 2020-03-01: choose another"):
        check_model(clients, TITAN)


def test_a_model_that_never_was(clients: Clients, bedrock: FakeBedrock) -> None:
    bedrock.lifecycles["amazon.titan-embed-image-v9"] = None
    with pytest.raises(UnknownModel, match="does not exist in this region"):
        check_model(clients, "amazon.titan-embed-image-v9")
    with pytest.raises(UnknownModel, match="does not exist"):
        check_model(clients, "no model at all")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"authorizationStatus": "NOT_AUTHORIZED"}, "not open to this account.*ask for access"),
        ({"entitlementAvailability": "NOT_AVAILABLE"}, "not open to this account.*ask for access"),
        ({"regionAvailability": "NOT_AVAILABLE"}, "not offered in this region"),
    ],
)
def test_a_model_that_is_closed(
    clients: Clients, bedrock: FakeBedrock, answer: dict[str, str], said: str
) -> None:
    bedrock.availability = answer
    with pytest.raises(UnknownModel, match=said) as told:
        check_model(clients, TITAN)
    assert TITAN in str(told.value)


def test_a_busy_service_is_no_verdict(
    clients: Clients, monkeypatch: pytest.MonkeyPatch, bedrock: FakeBedrock
) -> None:
    without_waiting(monkeypatch)
    bedrock.throttle_next = 100
    with pytest.raises(Throttled):
        check_model(clients, TITAN)


def test_a_right_that_is_missing_is_no_verdict(
    clients: Clients, monkeypatch: pytest.MonkeyPatch, bedrock: FakeBedrock
) -> None:
    def denied(request: object) -> dict[str, object]:
        raise AwsError("AccessDeniedException", "not authorized to perform GetFoundationModel")

    monkeypatch.setattr(bedrock, "_get_model", denied)
    with bedrock.serve(), pytest.raises(Permanent, match="GetFoundationModel"):
        check_model(clients, TITAN)
