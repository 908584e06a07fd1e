import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imageclust.duplicates.candidates import cosine_pairs, hash_pairs, orientations


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def hash_of(picture: np.ndarray) -> int:
    low = cv2.dct(cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA))[:8, :8].ravel()
    bits = low > np.median(low[1:])
    bits[0] = False
    return int("".join("1" if bit else "0" for bit in bits), 2)


@pytest.mark.parametrize("n", [2, 50, 1500])
def test_cosine_pairs_are_all_the_pairs_above_the_floor(n):
    vectors = unit(np.random.default_rng(n).normal(size=(n, 6)))
    pairs, scores, floor = cosine_pairs(vectors, floor=0.95, budget=10**6)
    exact = np.argwhere(np.triu(vectors @ vectors.T, 1) >= 0.95)
    assert floor == 0.95
    assert sorted(map(tuple, pairs.tolist())) == sorted(map(tuple, exact.tolist()))
    assert np.allclose(scores, np.sum(vectors[pairs[:, 0]] * vectors[pairs[:, 1]], axis=1))


def test_principal_directions_and_a_bound_find_the_same_pairs():
    # Energy that falls off, as a network's features have, and enough rows to use it.
    rng = np.random.default_rng(1)
    spectrum = 0.9 ** np.arange(300)
    vectors = unit(rng.normal(size=(4200, 300)) * spectrum)
    pairs, scores, _ = cosine_pairs(vectors, floor=0.8, budget=10**7)
    exact = np.argwhere(np.triu(vectors @ vectors.T, 1) >= 0.8)
    found = {tuple(pair) for pair in pairs.tolist()}
    missed = {tuple(pair) for pair in exact.tolist()} ^ found
    # Only what lies within rounding of the floor may differ.
    assert all(abs(vectors[a] @ vectors[b] - 0.8) < 1e-5 for a, b in missed)
    assert len(found) > 100
    assert scores.min() >= 0.8


def test_too_many_pairs_raise_the_floor_to_the_best_of_them():
    vectors = unit(np.random.default_rng(0).normal(size=(2500, 4)))
    pairs, scores, floor = cosine_pairs(vectors, floor=0.5, budget=1000)
    assert len(pairs) <= 2000
    assert floor > 0.5
    exact = np.triu(vectors @ vectors.T, 1)
    assert len(pairs) == int((exact >= floor).sum())
    assert scores.min() >= floor


def test_a_collection_of_one_picture_over_and_over_stays_bounded():
    vectors = np.tile(unit(np.ones((1, 8))), (3000, 1))
    pairs, _, _ = cosine_pairs(vectors, floor=0.8, budget=1000)
    assert len(pairs) <= 2000
    assert len(hash_pairs(np.full(3000, 12345, np.uint64), budget=5000)) == 2999


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), radius=st.integers(0, 7))
def test_hash_pairs_are_all_the_pairs_within_the_radius(seed, radius):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(1, 2**63, 40, dtype=np.uint64)
    for row in range(20, 40):  # near copies of the first twenty, some turned
        bits = rng.choice(63, rng.integers(0, 10), replace=False).astype(np.uint64)
        turned = orientations(hashes[row - 20 : row - 19])[rng.integers(0, 8), 0]
        hashes[row] = turned ^ np.bitwise_or.reduce(np.uint64(1) << bits, initial=np.uint64(0))
    turned = orientations(hashes)
    away = np.bitwise_count(turned[:, :, None] ^ hashes[None, None, :]).min(axis=0)
    # Beyond seven bits most pairs are found, not all.
    exact = np.argwhere(np.triu(away <= min(radius, 7), 1))
    distinct = exact[hashes[exact[:, 0]] != hashes[exact[:, 1]]].tolist()
    found = {tuple(p) for p in hash_pairs(hashes, radius=radius, budget=10**6).tolist()}
    assert {tuple(p) for p in distinct} <= found
    assert all(away[a, b] <= radius for a, b in found)


@pytest.mark.parametrize("orientation", range(8))
def test_orientations_are_the_hashes_of_the_turned_pictures(orientation):
    soft = np.random.default_rng(3).uniform(0, 255, (7, 7)).astype(np.float32)
    picture = cv2.resize(soft, (96, 96), interpolation=cv2.INTER_CUBIC)
    turned = picture.T if orientation >= 4 else picture
    turned = turned[:, ::-1] if orientation & 2 else turned
    turned = turned[::-1] if orientation & 1 else turned
    derived = int(orientations(np.array([hash_of(picture)], np.uint64))[orientation, 0])
    assert (derived ^ hash_of(np.ascontiguousarray(turned))).bit_count() <= 6


def test_pictures_without_structure_match_nothing_by_hash():
    assert hash_pairs(np.zeros(5, np.uint64), budget=100).shape == (0, 2)


def test_a_radius_that_the_bands_cannot_serve_is_refused():
    with pytest.raises(ValueError, match="radius"):
        hash_pairs(np.ones(2, np.uint64), radius=11, budget=1)
