import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imageclust.clustering import adjusted_rand_index, ward
from imageclust.clustering.geometry import unit_rows
from imageclust.clustering.ward import WardTree, ward_tree
from scipy.cluster.hierarchy import fcluster, linkage


def greedy_capped(rows, cap):
    """The definition: again and again the closest feasible pair, by centres and sizes."""
    means = [row.astype(np.float64) for row in rows]
    sizes, nodes = [1] * len(rows), list(range(len(rows)))
    merges = []
    while len(means) > 1:
        x, s = np.array(means), np.array(sizes, dtype=float)
        cost = ((x[:, None] - x[None]) ** 2).sum(axis=2) * s[:, None] * s / (s[:, None] + s)
        cost[s[:, None] + s > cap] = np.inf
        np.fill_diagonal(cost, np.inf)
        i, j = sorted(np.unravel_index(cost.argmin(), cost.shape))
        if cost[i, j] == np.inf:
            break
        merges.append((frozenset((nodes[i], nodes[j])), math.sqrt(2 * cost[i, j])))
        means[i] = (sizes[i] * means[i] + sizes[j] * means[j]) / (sizes[i] + sizes[j])
        sizes[i] += sizes[j]
        nodes[i] = len(rows) + len(merges) - 1
        del means[j], sizes[j], nodes[j]
    return merges


def as_list(tree: WardTree):
    return [
        (frozenset(pair), height)
        for pair, height in zip(tree.pairs.tolist(), tree.heights.tolist(), strict=True)
    ]


def spread_rows(n, d=8, seed=0, unit=False):
    rows = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return unit_rows(rows) if unit else rows


@pytest.fixture(params=["dense", "rounds"])
def path(request, monkeypatch):
    """Both ways to merge: the full matrix, and rounds over candidate lists."""
    if request.param == "rounds":
        monkeypatch.setattr(ward, "DENSE_LIMIT", 4)
    return request.param


@pytest.mark.parametrize("cap", [1, 2, 3, 7, 20, 60])
@pytest.mark.parametrize("unit", [True, False])
def test_capped_merges_are_the_greedy_ones(path, cap, unit):
    rows = spread_rows(60, unit=unit)
    tree, expected = as_list(ward_tree(rows, max_size=cap)), greedy_capped(rows, cap)
    assert [pair for pair, _ in tree] == [pair for pair, _ in expected]
    assert np.allclose([h for _, h in tree], [h for _, h in expected], rtol=1e-5)


@pytest.mark.parametrize("unit", [True, False])
def test_heights_and_cuts_are_scipys(path, unit):
    rows = spread_rows(400, d=20, unit=unit)
    tree = ward_tree(rows)
    theirs = linkage(rows.astype(np.float64), "ward")
    assert np.allclose(tree.heights, theirs[:, 2], rtol=1e-5)
    assert tree.sizes.tolist() == theirs[:, 3].tolist()
    for k in (1, 2, 7, 50, 399, 400):
        labels = tree.cut(k)
        assert len(np.unique(labels)) == k
        assert adjusted_rand_index(labels, fcluster(theirs, k, "maxclust")) == 1.0


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 80),
    cap=st.integers(1, 30),
    copies=st.integers(1, 8),
    limit=st.sampled_from([3, 3000]),
    seed=st.integers(0, 99),
)
def test_cap_holds_with_duplicates(n, cap, copies, limit, seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, 3)).astype(np.float32)[rng.integers(0, -(-n // copies), n)]
    before, ward.DENSE_LIMIT = ward.DENSE_LIMIT, limit
    try:
        tree = ward_tree(rows, max_size=cap)
    finally:
        ward.DENSE_LIMIT = before
    for k in {1, tree.fewest, n}:
        sizes = np.bincount(tree.cut(k))
        assert sizes.sum() == n
        assert sizes.max() <= cap
        assert len(sizes) == max(k, tree.fewest)
    assert (np.diff(tree.heights) >= 0).all()


def test_weights_count_as_copies():
    rows = spread_rows(30)
    sizes = np.random.default_rng(1).integers(1, 5, 30)
    whole = np.repeat(rows, sizes, axis=0)
    weighted, plain = ward_tree(rows, sizes=sizes), ward_tree(whole)
    assert np.allclose(weighted.heights, plain.heights[-29:], rtol=1e-4)


def test_rounds_agree_with_the_full_matrix(monkeypatch):
    rows = spread_rows(1200, d=12, unit=True)
    whole = ward_tree(rows, max_size=40)
    monkeypatch.setattr(ward, "DENSE_LIMIT", 100)
    assert adjusted_rand_index(whole.cut(60), ward_tree(rows, max_size=40).cut(60)) == 1.0


@pytest.mark.parametrize("cap", [5, 40])
def test_few_feasible_partners_are_all_found(cap, monkeypatch):
    """Fewer than a list holds, far down in the order of the slots."""
    monkeypatch.setattr(ward, "DENSE_LIMIT", 4)
    monkeypatch.setattr(ward, "_FEW", 1.0)
    rows = spread_rows(70, d=5, seed=3)
    tree, expected = as_list(ward_tree(rows, max_size=cap)), greedy_capped(rows, cap)
    assert [pair for pair, _ in tree] == [pair for pair, _ in expected]


@pytest.mark.parametrize("limit", [4, 100, 3000])
def test_heights_of_near_copies_are_scipys(limit, monkeypatch):
    """Costs far below the rounding of an inner product of unit rows."""
    monkeypatch.setattr(ward, "DENSE_LIMIT", limit)
    rng = np.random.default_rng(5)
    rows = np.repeat(spread_rows(150, d=16), 2, axis=0)
    rows = unit_rows(rows + 1e-3 * rng.standard_normal(rows.shape))
    theirs = linkage(rows.astype(np.float64), "ward")
    assert np.allclose(ward_tree(rows).heights, theirs[:, 2], rtol=1e-4)
