import pytest
from imageclust.descriptions import ClusterNames, merge_names
from imageclust.errors import InvalidInput
from imageclust.models import ClusterBrief, ClusterName

BRIEFS = [ClusterBrief("c1", 9), ClusterBrief("c2", 5)]


def name(title: str, model: str) -> ClusterName:
    return ClusterName(title, f"phrase of {model}", f"text of {model}", model)


def test_the_first_describer_is_shown_and_all_are_kept() -> None:
    answers = {
        "haiku": {"c1": name("Sofas", "haiku"), "c2": name("Dogs", "haiku")},
        "nova": {"c1": name("Couches", "nova"), "c2": name("Hounds", "nova")},
    }
    first, second = merge_names(BRIEFS, answers)
    assert (first.shown.title, second.shown.title) == ("Sofas", "Dogs")
    assert [answer.title for answer in first.answers] == ["Sofas", "Couches"]
    assert first.to_json()["name"]["model"] == "haiku"
    assert [answer["model"] for answer in first.to_json()["answers"]] == ["haiku", "nova"]
    assert ClusterNames.from_json(first.to_json()) == first


def test_a_missing_answer_comes_from_the_next_and_titles_stay_unique() -> None:
    answers = {
        "haiku": {"c1": name("Dogs", "haiku")},
        "plain": {"c1": name("Spaniels", "plain"), "c2": name("Dogs", "plain")},
    }
    first, second = merge_names(BRIEFS, answers)
    assert first.shown.title == "Dogs"
    assert second.shown.model == "plain"
    assert second.shown.title != "Dogs"
    assert second.answers[0].title == "Dogs"


def test_titles_by_one_and_text_by_another() -> None:
    answers = {
        "haiku": {"c1": name("Sofas", "haiku"), "c2": name("Dogs", "haiku")},
        "sonnet": {"c1": name("Couches", "sonnet")},
    }
    first, second = merge_names(BRIEFS, answers, descriptions_by="sonnet")
    assert (first.shown.title, first.shown.description) == ("Sofas", "text of sonnet")
    assert first.shown.model == "haiku; text by sonnet"
    assert second.shown.description == "text of haiku"
    same = merge_names(BRIEFS, answers, descriptions_by="haiku")
    assert same[0].shown.model == "haiku"


def test_nobody_named_it() -> None:
    with pytest.raises(InvalidInput, match="c2"):
        merge_names(BRIEFS, {"haiku": {"c1": name("Sofas", "haiku")}})
    with pytest.raises(InvalidInput, match="not among"):
        merge_names(BRIEFS, {"haiku": {}}, descriptions_by="sonnet")
    assert merge_names([], {}) == []
