import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imageclust.clustering import parallel
from imageclust.clustering.bounded import bounded_kmeans, bounded_start
from imageclust.clustering.bounds import bounded_assignment, fit_bounds
from imageclust.clustering.geometry import cluster_means, rotate
from imageclust.clustering.kmeans import inertia_of
from imageclust.clustering.prices import settle
from imageclust.errors import InfeasibleBounds
from scipy.optimize import linear_sum_assignment


def cheapest(cost, min_size, max_size):
    """The exact optimum by an assignment problem: each cluster has places, some of them forced."""
    n, k = cost.shape
    places = np.repeat(np.arange(k), max_size)
    forced = np.tile(np.arange(max_size) < min_size, k)
    table = cost[:, places].astype(np.float64)
    # Rows that stand for nobody may only take places that need not be filled.
    spare = np.where(forced, 1e9, 0.0)
    table = np.vstack([table, np.tile(spare, (len(places) - n, 1))])
    rows, columns = linear_sum_assignment(table)
    return table[rows, columns].sum()


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 40),
    k=st.integers(1, 6),
    slack=st.integers(0, 4),
    how=st.tuples(st.sampled_from(["spread", "equal", "ties"]), st.booleans()),
    seed=st.integers(0, 99),
)
def test_assignment_is_the_cheapest_within_bounds(n, k, slack, how, seed):
    kind, warm = how
    k = min(k, n)
    rng = np.random.default_rng(seed)
    cost = rng.random((n, k)).astype(np.float32)
    cost[:, 0] *= 0.3
    if kind == "equal":
        cost[:] = 1.0
    elif kind == "ties":
        cost = np.round(cost, 1)
    low, high = max(n // k - slack, 0), -(-n // k) + slack
    start = None if warm else cost.argmin(axis=1).astype(np.int32)
    labels = bounded_assignment(cost, min_size=low, max_size=high, labels=start)
    sizes = np.bincount(labels, minlength=k)
    assert sizes.min() >= low
    assert sizes.max() <= high
    total = cost[np.arange(n), labels].sum(dtype=np.float64)
    assert total == pytest.approx(cheapest(cost, low, high), abs=1e-4)


def test_no_room_is_refused():
    with pytest.raises(InfeasibleBounds, match="3 to 3 clusters"):
        bounded_assignment(np.zeros((10, 2), dtype=np.float32), min_size=3, max_size=4)


def test_a_labelling_within_bounds_is_left_alone():
    rows = np.random.default_rng(0).standard_normal((30, 3)).astype(np.float32)
    labels = np.repeat(np.arange(3), 10).astype(np.int32)
    fitted = fit_bounds(rows, labels, clusters=(1, 30), min_size=10, max_size=10)
    assert fitted.tolist() == labels.tolist()


def test_outliers_fill_clusters_only_when_needed():
    rows = np.random.default_rng(0).standard_normal((30, 3)).astype(np.float32)
    labels = np.full(30, -1, dtype=np.int32)
    labels[:12] = 0
    free = fit_bounds(rows, labels, clusters=(1, 30), min_size=1, max_size=30)
    assert (free < 0).sum() == 18
    tight = fit_bounds(rows, labels, clusters=(2, 2), min_size=10, max_size=15)
    assert np.bincount(tight[tight >= 0]).tolist() == [10, 10]
    assert (tight < 0).sum() == 10


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 40),
    k=st.integers(1, 6),
    slack=st.integers(0, 4),
    ties=st.booleans(),
    seed=st.integers(0, 99),
)
def test_prices_bound_the_cheapest_assignment_from_below(n, k, slack, ties, seed):
    k = min(k, n)
    rng = np.random.default_rng(seed)
    cost = rng.random((n, k)).astype(np.float32)
    cost[:, 0] *= 0.3
    if ties:
        cost = np.round(cost, 1)
    low, high = max(n // k - slack, 0), -(-n // k) + slack
    least = cheapest(cost, low, high)
    bounds = {"min_size": low, "max_size": high}
    duals = [settle(cost, np.zeros(k), steps=steps, **bounds).dual for steps in (1, 3, 10, 40)]
    assert duals == sorted(duals)
    assert duals[-1] <= least + 1e-4
    last = settle(cost, np.zeros(k), steps=40, **bounds)
    sizes = np.bincount(last.labels, minlength=k)
    assert last.wrong == np.maximum(sizes - high, 0).sum() + np.maximum(low - sizes, 0).sum()


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 60),
    k=st.integers(1, 9),
    slack=st.integers(0, 4),
    kind=st.sampled_from(["spread", "copies", "constant"]),
    seed=st.integers(0, 99),
)
def test_bounded_kmeans_from_its_own_start_keeps_the_bounds(n, k, slack, kind, seed):
    k = min(k, n)
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, 3)).astype(np.float32)
    if kind == "copies":
        rows = rows[rng.integers(0, max(n // 4, 1), n)]
    elif kind == "constant":
        rows[:] = 1.0
    bounds = {"min_size": max(n // k - slack, 1), "max_size": -(-n // k) + slack}
    start = bounded_start(rows, k, seed=seed, **bounds)
    assert np.bincount(start, minlength=k).min() >= 1
    labels = bounded_kmeans(rows, start, **bounds)
    sizes = np.bincount(labels, minlength=k)
    assert len(sizes) == k
    assert sizes.min() >= bounds["min_size"]
    assert sizes.max() <= bounds["max_size"]


def test_bounded_kmeans_does_not_depend_on_the_number_of_threads(monkeypatch):
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((9000, 60)).astype(np.float32)
    found = []
    for workers in (1, 2, 5):
        monkeypatch.setattr(parallel, "worker_count", lambda workers=workers: workers)
        start = bounded_start(rows, 8, min_size=1100, max_size=1150)
        found.append(bounded_kmeans(rows, start, min_size=1100, max_size=1150, rounds=3).tolist())
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_bounded_kmeans_is_as_good_as_the_reference(seed):
    reference = pytest.importorskip("k_means_constrained")
    rng = np.random.default_rng(seed)
    rows = (rng.standard_normal((12, 10))[rng.choice(12, 600)] * 2).astype(np.float32)
    rows = rotate(rows + rng.standard_normal(rows.shape).astype(np.float32))[0]
    start = bounded_start(rows, 12, min_size=40, max_size=60)
    labels = bounded_kmeans(rows, start, min_size=40, max_size=60)
    sizes = np.bincount(labels)
    assert sizes.min() >= 40
    assert sizes.max() <= 60
    theirs = reference.KMeansConstrained(12, size_min=40, size_max=60, random_state=0).fit(rows)
    ours = inertia_of(rows, labels, cluster_means(rows, labels, 12))
    assert ours <= 1.005 * theirs.inertia_
