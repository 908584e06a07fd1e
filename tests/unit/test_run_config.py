"""The describers and keepers of a run's configuration."""

import json

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


def test_keepers_are_a_list_of_paths_and_patterns() -> None:
    config = RunConfig.from_json({"keepers": ["album/a.jpg", "best/*"]})
    assert config.keepers == ("album/a.jpg", "best/*")
    assert config.to_json()["keepers"] == ["album/a.jpg", "best/*"]
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize("wrong", ["a.jpg", [1], {"a": 1}, None, [None]])
def test_keepers_of_another_type(wrong: object) -> None:
    with pytest.raises(InvalidInput, match="keepers must be a list of text"):
        RunConfig.from_json({"keepers": wrong})


@pytest.mark.parametrize("wrong", [[""], ["a"] * 1001])
def test_keepers_that_no_run_can_have(wrong: list[str]) -> None:
    with pytest.raises(InvalidInput, match="at most 1,000 paths or patterns, none of them empty"):
        RunConfig.from_json({"keepers": wrong})


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"clusters": 3, "target_size": 10}, "give one of them"),
        ({"target_size": 10, "max_size": 8}, "between min_size and max_size"),
        ({"target_size": 4, "min_size": 5}, "between min_size and max_size"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(config: dict[str, int], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        RunConfig.from_json(config)
    assert RunConfig(target_size=10, min_size=10, max_size=10).target_size == 10


def test_keepers_that_would_not_fit_into_a_state() -> None:
    with pytest.raises(InvalidInput, match="name several files with one pattern"):
        RunConfig.from_json({"keepers": [f"{'folder ' * 20}{n}.jpg" for n in range(600)]})
