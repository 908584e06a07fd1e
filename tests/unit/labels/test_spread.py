import numpy as np
import pytest
from imageclust.errors import InvalidInput
from imageclust.labels import Label
from imageclust.labels.spread import Agreement, agreement, spread_labels

DOG = Label("Dog", 90, ("Animal",), ("Animals and Pets",))
COUCH = Label("Couch", 60, ("Furniture",))


def around(*centres: int, each: int, noise: float = 0.05) -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = [np.eye(8)[c] + noise * rng.normal(size=8) for c in centres for _ in range(each)]
    vectors = np.array(rows)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_images_get_the_labels_of_the_exemplar_they_are_like():
    spread = spread_labels(around(0, 1, each=5), [0, 5], [[DOG], [COUCH]])
    assert [[label.name for label in labels] for labels in spread] == [["Dog"]] * 5 + [
        ["Couch"]
    ] * 5
    assert spread[3][0].parents == ("Animal",)
    assert spread[3][0].categories == ("Animals and Pets",)


def test_exemplars_keep_their_own_and_others_are_less_sure():
    spread = spread_labels(around(0, each=4), [0], [[DOG]])
    assert spread[0] == (DOG,)
    assert all(0 < labels[0].confidence < 90 for labels in spread[1:])


def test_what_is_far_from_every_exemplar_gets_nothing():
    spread = spread_labels(around(0, 1, each=2), [0], [[DOG]])
    assert spread[2:] == [(), ()]


def test_exemplars_that_disagree_share_the_confidence():
    vectors = around(0, each=3, noise=0)
    (mixed,) = spread_labels(vectors, [0, 1], [[DOG], [COUCH]])[2:]
    assert [(label.name, round(label.confidence)) for label in mixed] == [
        ("Dog", 45),
        ("Couch", 30),
    ]


def test_bounds():
    vectors = around(0, each=3, noise=0)
    both = [[DOG, COUCH]]
    assert len(spread_labels(vectors, [0], both, max_labels=1)[1]) == 1
    assert len(spread_labels(vectors, [0], both, min_confidence=80)[1]) == 1


def test_no_exemplars_no_labels():
    assert spread_labels(around(0, each=2), [], []) == [(), ()]


@pytest.mark.parametrize(("rows", "message"), [([0], "labels of 2"), ([0, 99], "exemplars must")])
def test_exemplars_that_do_not_fit_are_refused(rows, message):
    with pytest.raises(InvalidInput, match=message):
        spread_labels(around(0, each=3), rows, [[DOG], [COUCH]])


def test_agreement_counts_names():
    spread = [[DOG], [DOG, COUCH], []]
    real = [[DOG], [COUCH], [COUCH]]
    assert agreement(spread, real) == Agreement(
        images=3,
        precision=pytest.approx(2 / 3),
        recall=pytest.approx(2 / 3),
        stated=pytest.approx((0.9 + 0.9 + 0.6) / 3),
        real=pytest.approx((0.9 + 0.6) / 3),
    )


def test_agreement_of_nothing_is_zero_not_an_error():
    assert agreement([], []) == Agreement(0, 0.0, 0.0, 0.0, 0.0)


def test_agreement_needs_the_same_images():
    with pytest.raises(InvalidInput, match="1 images"):
        agreement([[DOG]], [])
