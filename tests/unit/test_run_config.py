"""The describers of a run's configuration."""

import pytest
from imageclust.errors import InvalidInput
from imageclust.models import RunConfig


def test_the_describers_of_a_setting() -> None:
    assert RunConfig().describers == ("auto",)
    both = RunConfig(describer="auto, amazon.nova-micro-v1:0", descriptions_by="auto")
    assert both.describers == ("auto", "amazon.nova-micro-v1:0")
    assert RunConfig.from_json(both.to_json()) == both


@pytest.mark.parametrize("wrong", ["", "auto,", "auto,auto", "a,b,c,d,e"])
def test_describers_that_no_run_can_have(wrong: str) -> None:
    with pytest.raises(InvalidInput, match="one to 4"):
        RunConfig(describer=wrong)


def test_the_descriptions_come_from_a_describer_of_the_run() -> None:
    with pytest.raises(InvalidInput, match=r"one of the describers \(auto\)"):
        RunConfig(descriptions_by="amazon.nova-micro-v1:0")
