import pytest
from imageclust.descriptions import make_briefs
from imageclust.errors import InvalidInput
from imageclust.labels import Label
from imageclust.models import ClusterBrief


def labels_of(*names: str, sure: float = 90.0) -> list[Label]:
    parents = {
        "Couch": ("Furniture",), "Bed": ("Furniture",), "Beagle": ("Dog", "Animal"),
        "Pug": ("Dog", "Animal"), "Dog": ("Animal",),
    }  # fmt: skip
    return [Label(name, sure, parents.get(name, ())) for name in names]


def briefs(groups: list[list[list[Label]]]) -> list[ClusterBrief]:
    members = [[f"{c}-{i}" for i in range(len(group))] for c, group in enumerate(groups)]
    found = {f"{c}-{i}": labels for c, g in enumerate(groups) for i, labels in enumerate(g)}
    ids = [f"c{c:04d}" for c in range(len(groups))]
    return make_briefs(ids, members, labels=found, attributes={}, exemplars=[()] * len(ids))


def test_shares_lifts_and_parents() -> None:
    first, second = briefs([[labels_of("Couch", "Furniture", sure=80)] * 4, [labels_of("Pug")] * 2])
    assert first.size == 4
    assert first.labels[0] == ("Couch", 0.8, 2.0)
    assert dict(first.parents)["Couch"] == ("Furniture",)
    assert second.labels == (("Pug", 0.9, 2.0),)


def test_a_label_comes_before_its_own_parents() -> None:
    dogs = [labels_of("Beagle", "Dog", "Animal")] * 3
    brief, _ = briefs([dogs, [labels_of("Couch")] * 3])
    assert [name for name, _, _ in brief.labels] == ["Beagle", "Dog", "Animal"]


def test_scattered_leaves_give_way_to_the_parent() -> None:
    scattered = [labels_of(leaf, "Dog", "Animal") for leaf in ("Beagle", "Pug", "Boxer", "Husky")]
    brief, _ = briefs([scattered, [labels_of("Couch", "Furniture")] * 3])
    assert brief.labels[0][0] == "Dog"


def test_what_says_something_new_comes_before_what_repeats() -> None:
    pictures = [labels_of("Beagle", "Dog", "Animal", "Ball")] * 3
    brief, _ = briefs([pictures, [labels_of("Couch", "Ball")] * 3])
    names = [name for name, _, _ in brief.labels]
    assert names[0] == "Beagle"
    assert names.index("Ball") < names.index("Dog")


def test_a_label_given_twice_counts_once() -> None:
    (brief,) = briefs([[labels_of("Pug", "Pug")] * 2])
    assert brief.labels == (("Pug", 0.9, 1.0),)


def test_images_without_labels_lower_the_share() -> None:
    (brief,) = briefs([[labels_of("Pug", sure=100), []]])
    assert brief.labels[0][1] == 0.5


def test_no_clusters_and_mismatched_input() -> None:
    assert make_briefs([], [], labels={}, attributes={}, exemplars=[]) == []
    with pytest.raises(InvalidInput, match="1 clusters"):
        make_briefs(["c1"], [], labels={}, attributes={}, exemplars=[])


def test_a_brief_survives_json() -> None:
    brief, _ = briefs([[labels_of("Couch", "Furniture")], [labels_of("Pug")]])
    assert ClusterBrief.from_json(brief.to_json()) == brief
