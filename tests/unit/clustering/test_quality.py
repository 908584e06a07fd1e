import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imageclust.clustering import quality
from imageclust.clustering.choice import knee, measure_choice
from imageclust.clustering.geometry import (
    centred_rows,
    distinct_rows,
    relabel_by_size,
    rotate,
    unit_rows,
)
from imageclust.clustering.kmeans import kmeans
from imageclust.clustering.mixture import mixture
from imageclust.clustering.stability import stability

metrics = pytest.importorskip("sklearn.metrics")


def labelled(n=300, k=7, d=12, seed=0, noise=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1 if noise else 0, k, n).astype(np.int32)
    rows = rng.standard_normal((k + 1, d))[labels] + rng.standard_normal((n, d))
    return unit_rows(rows), labels


@pytest.mark.parametrize("k", [2, 3, 20])
def test_scores_are_scikit_learns(k):
    rows, labels = labelled(k=k)
    ours = quality.cosine_silhouettes(rows, labels)
    theirs = metrics.silhouette_samples(rows, labels, metric="cosine")
    assert np.allclose(ours, theirs, atol=1e-5)
    assert quality.davies_bouldin(rows, labels) == pytest.approx(
        metrics.davies_bouldin_score(rows, labels), rel=1e-4
    )
    assert quality.calinski_harabasz(rows, labels) == pytest.approx(
        metrics.calinski_harabasz_score(rows, labels), rel=1e-3
    )


def test_silhouette_of_zero_rows_singletons_and_noise():
    rows, labels = labelled(n=60, k=4, noise=True)
    rows[5] = 0.0
    labels[labels == 3] = 2
    labels[np.flatnonzero(labels >= 0)[0]] = 3
    ours = quality.cosine_silhouettes(rows, labels)
    inside = labels >= 0
    theirs = metrics.silhouette_samples(rows[inside], labels[inside], metric="cosine")
    assert np.allclose(ours[inside], theirs, atol=1e-5)
    assert (ours[~inside] == 0).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=60))
def test_agreement_scores_are_scikit_learns(pairs):
    first, second = np.array(pairs).T
    assert quality.normalized_mutual_information(first, second) == pytest.approx(
        metrics.normalized_mutual_info_score(first, second), abs=1e-9
    )
    assert quality.adjusted_rand_index(first, second) == pytest.approx(
        metrics.adjusted_rand_score(first, second), abs=1e-9
    )


def test_purity_balance_and_composite():
    assert quality.purity(np.array([0, 0, 1, 1]), np.array([5, 5, 5, 6])) == 0.75
    assert quality.balance(np.array([10, 10, 10])) == 1.0
    assert quality.balance(np.array([10])) == 0.0
    assert quality.balance(np.array([100, 1])) < 0.6
    assert quality.composite_score(1.0, 1.0, 0.0, (0.3, 0.4, 0.3)) == pytest.approx(1.0)
    assert quality.composite_score(0.0, 0.5, 0.5, (2.0, 1.0, 1.0)) == pytest.approx(0.5)


@pytest.mark.parametrize(("n", "d"), [(50, 8), (20, 40), (3, 100)])
def test_rotation_keeps_distances(n, d):
    rows = np.random.default_rng(0).standard_normal((n, d)).astype(np.float32)
    turned, variances = rotate(rows)
    mine = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    theirs = ((turned[:, None] - turned[None]) ** 2).sum(axis=2)
    assert np.allclose(mine, theirs, rtol=1e-3, atol=1e-3)
    assert (np.diff(variances) <= 1e-6).all()


def test_distinct_rows_and_relabelling():
    rows = np.array([[1, 0], [0, 1], [1, 0], [-0.0, 1]], dtype=np.float32)
    first, place = distinct_rows(rows)
    assert first.tolist() == [0, 1]
    assert place.tolist() == [0, 1, 0, 1]
    assert relabel_by_size(np.array([7, 7, 3, -1, 3, 9])).tolist() == [0, 0, 1, -1, 1, 2]


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 40),
    d=st.integers(1, 6),
    kind=st.sampled_from(["spread", "copies", "constant", "zeros", "near"]),
    seed=st.integers(0, 99),
)
def test_rows_without_their_mean_have_length_one_or_zero(n, d, kind, seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, d)).astype(np.float32)
    if kind == "copies":
        rows = rows[rng.integers(0, max(n // 4, 1), n)] if n else rows
    elif kind == "constant":
        rows[:] = rows[:1] if n else rows
    elif kind == "zeros":
        rows[rng.random(n) < 0.5] = 0.0
    elif kind == "near":
        rows = np.tile(rows[:1], (n, 1)) * (1 + 1e-7 * rows)
    before = rows.copy()
    made = centred_rows(rows)
    assert made.dtype == np.float32
    assert made.shape == rows.shape
    assert (rows == before).all()
    length = np.linalg.norm(made.astype(np.float64), axis=1)
    assert np.all((length < 1e-9) | (np.abs(length - 1) < 1e-5))
    if n < 3 or kind in ("constant", "near"):
        assert np.allclose(made, unit_rows(rows), atol=1e-5)


def test_taking_off_the_mean_shows_what_images_do_not_share():
    rng = np.random.default_rng(0)
    groups = np.arange(200) % 4
    shared = np.full(16, 3.0)
    rows = shared + rng.standard_normal((4, 16))[groups] + 0.2 * rng.standard_normal((200, 16))
    plain, centred = unit_rows(rows), centred_rows(rows)
    labels = groups.astype(np.int32)
    assert (plain @ plain.T).min() > 0.8
    within = quality.cosine_silhouettes(centred, labels).mean()
    assert within > quality.cosine_silhouettes(plain, labels).mean()
    off = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    off = off - off.mean(axis=0)
    off /= np.linalg.norm(off, axis=1, keepdims=True)
    assert np.allclose(centred, off, atol=1e-5)


def test_a_row_that_is_the_mean_becomes_zero():
    rows = np.array([[1, 0, 0], [-1, 0, 0], [0, 0, 0], [0, 1, 0], [0, -1, 0]], dtype=np.float32)
    assert centred_rows(rows).tolist() == rows.tolist()


def test_scores_of_exact_copies_have_no_rounding_in_them():
    rows = unit_rows(np.random.default_rng(0).standard_normal((3, 40)))[np.arange(90) % 3]
    labels = (np.arange(90) % 3).astype(np.int32)
    assert quality.davies_bouldin(rows, labels) == 0.0
    assert quality.calinski_harabasz(rows, labels) == 1.0  # as scikit-learn has it


@pytest.mark.parametrize("kind", ["constant", "two contents", "copies in several clusters"])
@pytest.mark.parametrize("seed", range(3))
def test_scores_of_copies_are_scikit_learns(kind, seed):
    rng = np.random.default_rng(seed)
    contents = unit_rows(rng.standard_normal((9, 5)))
    which = {
        "constant": np.zeros(24, dtype=int),
        "two contents": np.arange(24) % 2,
        "copies in several clusters": rng.integers(0, 9, 24),
    }[kind]
    rows = contents[which]
    labels = (rng.permutation(24) % 6).astype(np.int32)
    if kind == "two contents":
        labels = (2 * (np.arange(24) % 2) + np.arange(24) // 23).astype(np.int32)
    exact = rows.astype(np.float64)
    theirs = metrics.silhouette_samples(exact, labels, metric="cosine")
    assert np.allclose(quality.cosine_silhouettes(rows, labels), theirs, atol=1e-5)
    assert quality.davies_bouldin(rows, labels) == pytest.approx(
        metrics.davies_bouldin_score(exact, labels), rel=1e-4
    )
    assert quality.calinski_harabasz(rows, labels) == pytest.approx(
        metrics.calinski_harabasz_score(exact, labels), rel=1e-4
    )


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_centres_that_only_rounding_parts_count_as_one(seed):
    contents = unit_rows(np.random.default_rng(seed).standard_normal((3, 6)))
    rows = contents[[0, 1, 1, 0, 0, 1, 1, 1, 1, 2, 2]]  # the same mixture twice
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2], dtype=np.int32)
    assert quality.davies_bouldin(rows, labels) < 2


def test_many_small_clusters_are_less_sure_than_few_large_ones():
    rng = np.random.default_rng(0)
    silhouettes = rng.standard_normal(1200).astype(np.float32) / 10
    few, many = np.arange(1200) % 3, np.arange(1200) % 300
    assert quality.silhouette_error(silhouettes, few) == pytest.approx(0.1 / 20, rel=0.05)
    assert quality.silhouette_error(silhouettes, many) == pytest.approx(0.1 / 2, rel=0.2)
    with_outliers = np.where(np.arange(1200) < 600, few, -1)
    inside = quality.silhouette_error(silhouettes[:600], few[:600])
    assert quality.silhouette_error(silhouettes, with_outliers) == inside
    assert quality.silhouette_error(silhouettes, np.zeros(1200, dtype=np.int32)) == 0


def test_kmeans_inertia_is_near_scikit_learns():
    cluster = pytest.importorskip("sklearn.cluster")
    rng = np.random.default_rng(0)
    rows = (2 * rng.standard_normal((15, 20))[rng.choice(15, 1500)]).astype(np.float32)
    rows = rotate(rows + rng.standard_normal(rows.shape).astype(np.float32))[0]
    theirs = cluster.KMeans(15, n_init=10, random_state=0).fit(rows).inertia_
    assert kmeans(rows, 15).inertia <= 1.002 * theirs


def test_mixture_separates_spread_from_tight():
    mixture_module = pytest.importorskip("sklearn.mixture")
    rng = np.random.default_rng(0)
    rows = np.concatenate(
        [0.1 * rng.standard_normal((200, 4)), 2.0 * rng.standard_normal((200, 4)) + 1.5]
    ).astype(np.float32)
    truth = np.repeat([0, 1], 200)
    start = kmeans(rows, 2).labels
    fit = mixture(rows, start)
    theirs = mixture_module.GaussianMixture(2, covariance_type="diag", random_state=0)
    agreed = quality.adjusted_rand_index(fit.labels, theirs.fit_predict(rows))
    assert agreed > 0.95
    assert quality.adjusted_rand_index(fit.labels, truth) > 0.85
    assert ((fit.probabilities >= 0.5 - 1e-6) & (fit.probabilities <= 1.0 + 1e-6)).all()


def test_curves_find_the_true_number():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((6, 12))
    rows = unit_rows(centres[rng.integers(0, 6, 400)] + 0.2 * rng.standard_normal((400, 12)))
    choice = measure_choice(rows, (2, 3, 4, 5, 6, 7, 8, 10, 14, 20), seed=0)
    assert choice.best == 6
    assert choice.curves["elbow_k"] == [6.0]
    assert choice.curves["gap_k"] == [6.0]
    assert 6 in choice.window
    assert len(choice.curves["gap"]) == 10


def test_knee_of_a_flat_curve_is_the_first():
    assert knee((2, 4, 8), [1.0, 1.0, 1.0]) == 2


def test_stability_is_high_for_clear_groups_and_low_for_none():
    rng = np.random.default_rng(0)
    clear = unit_rows(rng.standard_normal((4, 8))[np.arange(200) % 4] + 0.05)
    labels = (np.arange(200) % 4).astype(np.int32)
    assert stability(clear, labels, "kmeans", {"clusters": 4}, seed=0) == 1.0
    blur = unit_rows(rng.standard_normal((200, 8)))
    made = kmeans(blur, 12).labels
    assert stability(blur, made, "kmeans", {"clusters": 12}, seed=0) < 0.6
