import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imageclust.errors import InvalidInput
from imageclust.labels import LabelSet, classify

SHARED = Path(__file__).parents[4] / "shared"

PETS = [
    {"name": "tabby cat", "hypernyms": ["cat", "domestic animal", "mammal", "organism"]},
    {"name": "Siamese cat", "hypernyms": ["cat", "domestic animal", "mammal", "organism"]},
    {"name": "beagle", "hypernyms": ["hound", "dog", "domestic animal", "mammal", "organism"]},
    {"name": "couch", "hypernyms": ["convertible", "sofa", "seat", "furniture", "artifact"]},
    {"name": "traffic light", "hypernyms": ["light", "visual signal"]},
    {"name": "fountain", "hypernyms": ["structure", "artifact"]},
    {"name": "sawmill", "hypernyms": ["factory", "plant", "structure"]},
    {"name": "newt", "hypernyms": ["amphibian"]},
    {"name": "smooth newt", "hypernyms": ["newt", "amphibian"]},
]


@pytest.fixture(scope="module")
def pets() -> LabelSet:
    return LabelSet.from_entries(PETS)


def logits_of(*shares: float) -> np.ndarray:
    """One row whose softmax at temperature 1 is ``shares`` (the rest is nearly 0)."""
    row = np.full(len(PETS), 1e-9)
    row[: len(shares)] += shares
    return np.log(row / row.sum())[None].astype(np.float32)


def test_a_sure_class_is_answered_with_its_parents_nearest_first(pets):
    (labels,) = classify(logits_of(0, 0, 0, 1), pets)
    assert [label.name for label in labels] == ["Couch", "Furniture", "Seat", "Sofa"]
    assert set(labels[0].parents) == {"Sofa", "Seat", "Furniture"}
    assert labels[0].confidence == pytest.approx(100, abs=0.01)
    assert labels[0].categories == ("Furniture and Furnishings",)


def test_the_parent_is_sure_where_the_class_is_not(pets):
    (labels,) = classify(logits_of(0.5, 0.5), pets, temperature=1, min_confidence=60)
    assert [label.name for label in labels] == ["Cat", "Domestic Animal", "Mammal"]
    assert labels[0].confidence == pytest.approx(100, abs=0.01)
    assert labels[0].parents == ("Domestic Animal", "Mammal")


def test_general_technical_and_misleading_hypernyms_are_left_out(pets):
    assert not {"Organism", "Artifact", "Convertible", "Plant"} & set(pets.names)


def test_categories(pets):
    category = dict(zip(pets.names, pets.categories, strict=True))
    assert category["Beagle"] == ("Animals and Pets",)
    assert category["Fountain"] == ("Buildings and Architecture",)
    assert category["Traffic Light"] == ("Everyday Objects",)


def test_a_class_and_a_parent_of_the_same_name_are_one_label(pets):
    (labels,) = classify(logits_of(0, 0, 0, 0, 0, 0, 0, 0.5, 0.5), pets, temperature=1)
    assert [label.name for label in labels].count("Newt") == 1


def test_names_are_title_case_and_keep_capitals_of_their_own():
    labels = LabelSet.from_entries([{"name": "iPod"}, {"name": "CRT screen"}, {"name": "T-shirt"}])
    assert labels.names == ("iPod", "CRT Screen", "T-shirt")


def test_parents_given_by_the_file_are_taken_as_they_are():
    labels = LabelSet.from_entries(
        [{"name": "rose", "parents": ["bloom"]}, {"name": "tulip", "parents": ["bloom"]}]
    )
    assert labels.names == ("Rose", "Tulip", "Bloom")
    assert labels.parents[0] == ("Bloom",)


def test_at_most_max_labels(pets):
    (labels,) = classify(logits_of(0.4, 0.3, 0.3), pets, max_labels=2, min_confidence=0)
    assert len(labels) == 2


def test_a_row_that_is_not_finite_gets_no_labels_and_spoils_no_other(pets):
    rows = np.concatenate([logits_of(1.0), logits_of(0, 1.0)])
    rows[0, 3] = np.nan
    broken, fine = classify(rows, pets)
    assert broken == ()
    assert fine == classify(logits_of(0, 1.0), pets)[0]


def test_no_images_no_labels(pets):
    assert classify(np.empty((0, len(PETS)), np.float32), pets) == []


@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(0.01, 100),
    floor=st.floats(0, 100),
    most=st.integers(1, 20),
)
def test_answers_are_always_well_formed(seed, scale, floor, most):
    pets = LabelSet.from_entries(PETS)
    logits = (np.random.default_rng(seed).normal(size=(4, len(PETS))) * scale).astype(np.float32)
    for labels in classify(logits, pets, max_labels=most, min_confidence=floor):
        names = [label.name for label in labels]
        assert len(names) == len(set(names)) <= most
        assert all(floor <= label.confidence <= 100 for label in labels)
        for label in labels:
            assert label.name not in label.parents
            for other in labels:  # a parent is at least as sure as its child
                if other.name in label.parents:
                    assert other.confidence >= label.confidence - 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_labels": 0}, "max_labels"),
        ({"min_confidence": 101}, "min_confidence"),
        ({"temperature": 0}, "temperature"),
    ],
)
def test_impossible_options_are_refused(pets, options, message):
    with pytest.raises(InvalidInput, match=message):
        classify(logits_of(1.0), pets, **options)


def test_the_wrong_number_of_classes_is_refused(pets):
    with pytest.raises(InvalidInput, match="9 classes"):
        classify(np.zeros((1, 1000), np.float32), pets)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "not JSON"),
        ("{}", "JSON list"),
        ("[]", "JSON list"),
        ('[{"wnid": "n1"}]', "class 0 of the label file has no name"),
        ('[{"name": "a"}, {"name": "b", "index": 7}]', "class 1 of the label file has index 7"),
    ],
)
def test_a_broken_label_file_says_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        LabelSet.from_file(path)


def test_a_text_file_has_a_class_a_line(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("tench\ngoldfish\ngreat white shark\n")
    labels = LabelSet.from_file(path)
    assert labels.names == ("Tench", "Goldfish", "Great White Shark")
    assert labels.parents == ((), (), ())
    path.write_text("")
    with pytest.raises(InvalidInput, match="list of classes"):
        LabelSet.from_file(path)
    path.write_text("tench\n\ngoldfish")
    with pytest.raises(InvalidInput, match="class 1 of the label file has no name"):
        LabelSet.from_file(path)


def test_an_absent_label_file_is_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"gone\.json cannot be read"):
        LabelSet.from_file(tmp_path / "gone.json")


@pytest.mark.shared
def test_the_imagenet_file_gives_plain_parents():
    path = SHARED / "models" / "imagenet1k_labels.json"
    if not path.exists():
        pytest.skip("needs ../shared/models")
    labels = LabelSet.from_file(path)
    assert labels.classes == 1000
    retriever = labels.parents[labels.names.index("Golden Retriever")]
    assert retriever[0] == "Retriever"
    assert "Dog" in retriever
    assert retriever[-1] == "Animal"
    assert labels.parents[labels.names.index("Couch")][0] == "Sofa"
    raw = json.loads(path.read_text())
    bare = [e["name"] for e, p in zip(raw, labels.parents, strict=False) if not p]
    assert len(bare) < 150
