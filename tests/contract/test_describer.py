"""One behaviour of describers, the deterministic one and Bedrock."""

from collections.abc import Iterator

import pytest
from imageclust.adapters.aws.bedrock_describer import BedrockDescriber, NamingConversation
from imageclust.adapters.aws.clients import Clients
from imageclust.descriptions import DeterministicDescriber, merge_names
from imageclust.models import ClusterBrief, ClusterName
from imageclust.ports import Describer
from moto import mock_aws

from tests.standins.fake_bedrock import FakeBedrock


@pytest.fixture(params=["local", "aws"])
def describer(request: pytest.FixtureRequest, clients: Clients) -> Iterator[Describer]:
    if request.param == "local":
        yield DeterministicDescriber()
        return
    with mock_aws(), FakeBedrock().serve():
        conversation = NamingConversation("amazon.nova-micro-v1:0")
        yield BedrockDescriber(clients, conversation)


def named(describer: Describer, briefs: list[ClusterBrief]) -> list[ClusterName]:
    return [name for name in describer.describe(briefs) if name is not None]


def test_one_name_a_cluster_in_order(describer: Describer) -> None:
    briefs = [
        ClusterBrief(f"c{n:04d}", size=5, labels=((word, 0.8, 3.0),))
        for n, word in enumerate(["Sofa", "Lamp", "Bridge"])
    ]
    names = named(describer, briefs)
    # One side says "Sofa", the other "Sofas".
    assert [name.title.split()[0].rstrip("s") for name in names] == ["Sofa", "Lamp", "Bridge"]
    assert describer.describe([]) == []


def test_titles_are_unique_and_within_limits(describer: Describer) -> None:
    label = "A Label That Is Much Longer Than Any Title May Be"
    briefs = [
        ClusterBrief(f"c{n:04d}", size=5 + n, labels=((word, 0.8, 3.0),))
        for n, word in enumerate(["Sofa", "Sofa", "sofa", label, label, label])
    ] + [ClusterBrief("c9", size=1), ClusterBrief("c10", size=2)]
    answers = {
        brief.cluster_id: name for brief, name in zip(briefs, named(describer, briefs), strict=True)
    }
    names = [names.shown for names in merge_names(briefs, {"": answers})]
    assert len({name.title.casefold() for name in names}) == len(briefs)
    for name in names:
        assert 0 < len(name.title) <= 25
        assert 0 < len(name.phrase) <= 100
        assert 0 < len(name.description) <= 400
        assert name.model
