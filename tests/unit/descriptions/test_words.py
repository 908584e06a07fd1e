import pytest
from imageclust.descriptions.words import (
    countable,
    counted,
    in_sentence,
    listed,
    plural,
    sentence_case,
    share_in_words,
)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("Couch", "couches"),
        ("Fireplace", "fireplaces"),
        ("Dining Table", "dining tables"),
        ("Person", "people"),
        ("Fireman", "firemen"),
        ("Human", "humans"),
        ("Wolf", "wolves"),
        ("Mongoose", "mongooses"),
        ("Goose", "geese"),
        ("Sheep", "sheep"),
        ("Clownfish", "clownfish"),
        ("Bird Of Prey", "birds of prey"),
        ("Chest Of Drawers", "chests of drawers"),
        ("Volcano", "volcanoes"),
        ("Piano", "pianos"),
        ("Octopus", "octopuses"),
        ("Lens", "lenses"),
        ("Sunglasses", "sunglasses"),
        ("Jeans", "jeans"),
        ("Monarch", "monarchs"),
        ("Daisy", "daisies"),
        ("Jay", "jays"),
        ("T-Shirt", "T-shirts"),
        ("CD Player", "CD players"),
        ("iPod", "iPods"),
        ("German Shepherd Dog", "German shepherd dogs"),
        ("Crane (bird)", "cranes"),
        ("Furniture", "furniture"),
        ("Swimming", "swimming"),
        ("Building", "buildings"),
        ("Earring", "earrings"),
        ("Jack-o'-lantern", "jack-o'-lanterns"),
    ],
)
def test_plurals(label: str, expected: str) -> None:
    assert plural(label) == expected


def test_a_plural_stays_a_plural() -> None:
    assert plural("Cocker Spaniels") == "cocker spaniels"


def test_what_cannot_be_counted() -> None:
    assert not countable("Footwear")
    assert not countable("Walking")
    assert countable("Ring")
    assert countable("Sheep")


def test_sentence_case_keeps_capitals_of_its_own() -> None:
    assert sentence_case("sofas and fireplaces") == "Sofas and fireplaces"
    assert sentence_case("iPods") == "iPods"
    assert sentence_case("") == ""
    assert in_sentence("King Charles Spaniel") == "King Charles spaniel"


def test_lists_counts_and_shares() -> None:
    assert listed([]) == ""
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert counted(1, "picture") == "1 picture"
    assert counted(2000, "picture") == "2,000 pictures"
    assert [share_in_words(s) for s in (1.0, 0.5, 0.05)] == ["all", "half", "some"]
