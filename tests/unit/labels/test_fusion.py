import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imageclust.errors import InvalidInput
from imageclust.labels import Label
from imageclust.labels.fusion import fuse, label_block, project
from scipy import sparse

BEAGLE = Label("Beagle", 90, ("Dog", "Animal"))
POODLE = Label("Poodle", 80, ("Dog", "Animal"))
COUCH = Label("Couch", 70, ("Furniture",))


def unit(n: int, d: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, d))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def random_labels(n: int, words: int, seed: int) -> list[list[Label]]:
    rng = np.random.default_rng(seed)
    return [
        [Label(f"w{w}", float(rng.uniform(1, 100))) for w in rng.choice(words, rng.integers(0, 5))]
        for _ in range(n)
    ]


def test_rows_have_length_one_and_parents_bring_kinds_together():
    block = label_block([[BEAGLE], [POODLE], [COUCH], []])
    assert sparse.issparse(block)
    likeness = (block @ block.T).toarray()
    assert np.allclose(np.diag(likeness), [1, 1, 1, 0], atol=1e-6)
    assert likeness[0, 1] > 0.2
    assert likeness[0, 2] == 0


def test_what_every_image_shows_says_nothing():
    block = label_block([[Label("Sky", 99), BEAGLE], [Label("Sky", 99), COUCH]])
    assert (block @ block.T).toarray()[0, 1] == 0


def test_a_parent_is_at_least_as_sure_as_its_child():
    alone = label_block([[BEAGLE], [COUCH]]).toarray()
    both = label_block([[BEAGLE, Label("Dog", 20)], [COUCH]]).toarray()
    assert np.allclose(alone, both)


def test_weight_0_is_exactly_no_labels():
    vectors = unit(4, 8)
    assert np.array_equal(fuse(vectors, label_block([[BEAGLE]] * 4), weight=0), vectors)


def test_the_weight_divides_the_say():
    vectors = unit(3, 8)
    block = label_block([[BEAGLE], [POODLE], [COUCH]])
    fused = fuse(vectors, block, weight=0.3)
    exact = 0.7 * vectors @ vectors.T + 0.3 * (block @ block.T).toarray()
    assert np.allclose(fused @ fused.T, exact, atol=1e-5)


def test_weight_1_is_labels_alone():
    vectors = unit(3, 8)
    block = label_block([[BEAGLE], [POODLE], [COUCH]])
    fused = fuse(vectors, block, weight=1)
    assert np.allclose(fused @ fused.T, (block @ block.T).toarray(), atol=1e-5)


@given(seed=st.integers(0, 1000), weight=st.floats(0.01, 1))
def test_rows_stay_finite_and_of_length_one(seed, weight):
    vectors = unit(6, 5, seed)
    fused = fuse(vectors, label_block(random_labels(6, 9, seed)), weight=weight, dimensions=4)
    assert fused.shape[1] <= 5 + 4
    assert fused.dtype == np.float32
    assert np.allclose(np.linalg.norm(fused, axis=1), 1, atol=1e-5)


def test_an_image_without_labels_keeps_its_vector():
    vectors = unit(3, 8)
    fused = fuse(vectors, label_block([[BEAGLE], [], [COUCH]]), weight=0.4)
    assert np.allclose(fused[1, :8], vectors[1])
    assert not fused[1, 8:].any()


def test_a_large_vocabulary_is_projected_nearly_as_well_as_can_be():
    block = label_block(random_labels(300, 200, 1))
    shown = project(block, dimensions=40, seed=0)
    assert shown.shape == (300, 40)
    assert np.array_equal(shown, project(block, dimensions=40, seed=0))
    values = np.linalg.svd(block.toarray(), compute_uv=False)
    assert (shown**2).sum() >= 0.98 * (values[:40] ** 2).sum()


def test_no_labels_anywhere():
    vectors = unit(3, 4)
    assert np.allclose(fuse(vectors, label_block([[], [], []]), weight=0.5), vectors)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (3, {}, "do not fit"),
        (2, {"weight": 1.5}, "weight"),
        (2, {"dimensions": 0}, "dimensions"),
    ],
)
def test_impossible_input_is_refused(rows, options, message):
    with pytest.raises(InvalidInput, match=message):
        fuse(unit(rows, 4), label_block([[BEAGLE], [COUCH]]), **options)
