import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imageclust.clustering import (
    ClusteringConfig,
    ClusteringResult,
    Paused,
    adjusted_rand_index,
    check_bounds,
    cluster_vectors,
    feasible_clusters,
    parallel,
    search,
)
from imageclust.clustering.methods import SharedWork
from imageclust.errors import InfeasibleBounds, InvalidInput

METHODS = ["auto", "ward", "kmeans", "gmm", "hdbscan", "dbscan"]


def blobs(sizes, d=16, seed=0, spread=0.25):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((len(sizes), d))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    rows = centres[truth] + spread * rng.standard_normal((len(truth), d)) / np.sqrt(d)
    order = rng.permutation(len(truth))
    return rows[order].astype(np.float32), truth[order]


def assert_whole(result: ClusteringResult, n: int, config: ClusteringConfig) -> None:
    """Every law that a result obeys, whatever was asked."""
    assert result.labels.shape == (n,)
    assert result.labels.dtype == np.int32
    k = len(result.clusters)
    sizes = np.bincount(result.labels[result.labels >= 0], minlength=k)
    assert [cluster.size for cluster in result.clusters] == sizes.tolist()
    assert [cluster.id for cluster in result.clusters] == list(range(k))
    assert (np.diff(sizes) <= 0).all()
    if n:
        assert k >= 1
        assert sizes.min() >= (config.min_size or 1)
        assert sizes.max() <= (config.max_size or n)
        low, high = feasible_clusters(n, config)
        assert k <= high
        if config.clusters is not None:
            assert k == config.clusters
        if config.target_size is not None and config.clusters is None:
            assert k == low
    if config.outliers == "assign":
        assert (result.labels >= 0).all()
    for label in np.unique(result.labels):
        ranks = np.sort(result.ranks[result.labels == label])
        assert ranks.tolist() == list(range(len(ranks)))
    for cluster in result.clusters:
        members = set(np.flatnonzero(result.labels == cluster.id).tolist())
        assert cluster.exemplars[0] == cluster.medoid
        assert result.ranks[cluster.medoid] == 0
        assert len(set(cluster.exemplars)) == len(cluster.exemplars)
        assert set(cluster.exemplars) <= members
        assert 0.0 <= cluster.cohesion <= 1.0
        assert -1.0 <= cluster.silhouette <= 1.0
    assert result.margins.shape == result.silhouettes.shape == (n,)
    assert np.isfinite(result.margins).all()
    assert result.map2d.shape == (n, 2)
    assert np.isfinite(result.map2d).all()
    assert all(np.isfinite(value) for value in result.metrics.values())
    if k >= 2:
        assert len(result.merges) == k - 1
        assert result.merges[-1].size == sizes.sum()
    else:
        assert result.merges is None
    json.dumps(result.to_json(), allow_nan=False)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_images(method, n):
    config = ClusteringConfig(method=method)
    rows = np.random.default_rng(n).standard_normal((n, 5)).astype(np.float32)
    assert_whole(cluster_vectors(rows, config=config), n, config)


@pytest.mark.parametrize("method", ["auto", "ward", "kmeans", "gmm"])
def test_exact_number_of_clusters_is_found(method):
    rows, truth = blobs([40, 30, 20, 10])
    config = ClusteringConfig(method=method, clusters=4)
    result = cluster_vectors(rows, config=config)
    assert_whole(result, 100, config)
    assert adjusted_rand_index(result.labels, truth) == 1.0
    assert [cluster.size for cluster in result.clusters] == [40, 30, 20, 10]


def test_auto_finds_the_number_of_clusters():
    rows, truth = blobs([60, 50, 40, 40, 30, 30])
    config = ClusteringConfig()
    result = cluster_vectors(rows, config=config)
    assert_whole(result, 250, config)
    assert adjusted_rand_index(result.labels, truth) > 0.95
    assert result.curves["silhouette_k"]
    assert result.search[0].method == result.method
    scored = [entry for entry in result.search if not entry.error]
    keys = [(entry.metrics["near_best"], entry.composite) for entry in scored]
    assert keys == sorted(keys, reverse=True)
    assert len(scored) == 10
    assert result.tried >= 24
    assert {entry.method for entry in scored} <= set(METHODS)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_bounds_always_hold(data):
    n = data.draw(st.integers(1, 60), label="n")
    k = data.draw(st.integers(1, n), label="k")
    d = data.draw(st.integers(1, 6), label="d")
    kind = data.draw(st.sampled_from(["spread", "duplicates", "constant", "zeros"]), label="kind")
    method = data.draw(st.sampled_from(METHODS), label="method")
    rng = np.random.default_rng(data.draw(st.integers(0, 99), label="seed"))
    rows = rng.standard_normal((n, d)).astype(np.float32)
    if kind == "duplicates":
        rows = rows[rng.integers(0, max(n // 4, 1), n)]
    elif kind == "constant":
        rows[:] = rows[0]
    elif kind == "zeros":
        rows[rng.random(n) < 0.5] = 0.0
    min_size = data.draw(st.integers(1, n // k), label="min")
    max_size = data.draw(st.integers(-(-n // k), n), label="max")
    asked = {
        "exact": {"clusters": k},
        "free": {},
        "target": {"target_size": max(n // k, 1)},
    }[data.draw(st.sampled_from(["exact", "free", "target"]), label="asked")]
    outliers = data.draw(st.sampled_from(["keep", "assign"]), label="outliers")
    config = ClusteringConfig(
        method=method, min_size=min_size, max_size=max_size, outliers=outliers, **asked
    )
    assert_whole(cluster_vectors(rows, config=config), n, config)


@pytest.mark.parametrize("most_searched", [256, 3])
def test_kmeans_keeps_the_bounds_with_few_and_with_many_clusters(monkeypatch, most_searched):
    monkeypatch.setattr(search, "_MOST_SEARCHED", most_searched)
    rows, _ = blobs([80, 50, 30, 20, 10, 10])
    config = ClusteringConfig(method="kmeans", clusters=8, min_size=20, max_size=30)
    assert_whole(cluster_vectors(rows, config=config), 200, config)


@pytest.mark.parametrize("n", [12, 30])
def test_equal_sizes_when_both_bounds_agree(n):
    rows, _ = blobs([n // 2, n // 3, n - n // 2 - n // 3])
    config = ClusteringConfig(min_size=6, max_size=6)
    result = cluster_vectors(rows, config=config)
    assert_whole(result, n, config)
    assert {cluster.size for cluster in result.clusters} == {6}


@pytest.mark.parametrize(
    ("n", "asked", "said"),
    [
        (10, {"clusters": 11}, "1 to 10 clusters"),
        (10, {"min_size": 4, "clusters": 3}, "1 to 2 clusters"),
        (10, {"max_size": 3, "clusters": 2}, "4 to 10 clusters"),
        (10, {"min_size": 11}, "min_size 1 to 10"),
        (1, {"clusters": 3}, "1 image cannot form 3 clusters; feasible: 1 to 1 cluster$"),
        (7, {"min_size": 4, "max_size": 5}, "max_size of at least 7, or min_size of at most 3"),
    ],
)
def test_impossible_bounds_name_the_feasible_range(n, asked, said):
    config = ClusteringConfig(**asked)
    with pytest.raises(InfeasibleBounds, match=said):
        check_bounds(n, config)
    with pytest.raises(InfeasibleBounds, match=said):
        cluster_vectors(np.eye(n, dtype=np.float32), config=config)


@pytest.mark.parametrize(
    "asked",
    [
        {"clusters": 0},
        {"min_size": 0},
        {"max_size": -1},
        {"target_size": 0},
        {"min_size": 5, "max_size": 4},
        {"method": "magic"},
        {"mode": "slow"},
        {"outliers": "drop"},
        {"seed": -1},
        {"time_budget_s": 0.0},
        {"weights": (0.0, 0.0, 0.0)},
        {"weights": (1.0, -1.0, 1.0)},
        {"weights": (1.0, 1.0)},
    ],
)
def test_nonsense_is_refused(asked):
    with pytest.raises(InvalidInput):
        check_bounds(10, ClusteringConfig(**asked))


@pytest.mark.parametrize(
    "vectors",
    [
        np.array([[1.0, np.nan], [0.0, 1.0]]),
        np.array([[1.0, np.inf], [0.0, 1.0]]),
        np.zeros(4),
        np.zeros((2, 2, 2)),
        np.array([["a", "b"]]),
    ],
)
def test_bad_vectors_are_refused(vectors):
    with pytest.raises(InvalidInput):
        cluster_vectors(vectors, config=ClusteringConfig())


def test_length_of_vectors_does_not_matter():
    rows, _ = blobs([20, 20])
    scale = np.random.default_rng(1).uniform(1e-25, 1e25, size=(40, 1)).astype(np.float32)
    config = ClusteringConfig(clusters=2)
    one = cluster_vectors(rows, config=config)
    other = cluster_vectors(rows * scale, config=config)
    assert one.labels.tolist() == other.labels.tolist()


def test_same_bits_on_every_run():
    rows, _ = blobs([30, 20, 10], spread=1.0)
    first, second = (cluster_vectors(rows, config=ClusteringConfig(seed=3)) for _ in range(2))
    assert json.dumps(first.to_json()) == json.dumps(second.to_json())


def test_result_does_not_depend_on_the_number_of_threads(monkeypatch):
    rows, _ = blobs([1200, 600, 300, 200], d=24, spread=1.0)
    texts = []
    for workers in (1, 2, 5):
        monkeypatch.setattr(parallel, "worker_count", lambda workers=workers: workers)
        texts.append(json.dumps(cluster_vectors(rows, config=ClusteringConfig()).to_json()))
    assert texts[0] == texts[1] == texts[2]


def told(result: ClusteringResult) -> str:
    labels = [entry.labels.tolist() for entry in result.search if entry.labels is not None]
    return json.dumps([result.to_json(), labels])


@pytest.mark.parametrize("kill_after", [1, 2, 8, 20])
@pytest.mark.parametrize("method", ["auto", "hdbscan", "gmm"])
def test_a_killed_search_goes_on_where_it_was(kill_after, method):
    rows, _ = blobs([30, 20, 10], spread=1.0)
    config = ClusteringConfig(method=method)

    class Killed(Exception):
        pass

    class Killing(dict):
        def __setitem__(self, key, value):
            if len(self) == kill_after:
                raise Killed
            super().__setitem__(key, value)

    checkpoint = Killing()
    whole = cluster_vectors(rows, config=config)
    if kill_after <= whole.tried:
        with pytest.raises(Killed):
            cluster_vectors(rows, config=config, checkpoint=checkpoint)
    assert told(cluster_vectors(rows, config=config, checkpoint=dict(checkpoint))) == told(whole)


def test_a_search_in_turns_tries_each_setting_once(monkeypatch):
    rows, _ = blobs([30, 20, 10])
    rows = np.concatenate([rows, np.eye(16, dtype=np.float32)])
    whole = cluster_vectors(rows, config=ClusteringConfig())
    runs = []
    run = SharedWork.run

    def counted(self, method, settings):
        runs.append((method, str(settings)))
        return run(self, method, settings)

    monkeypatch.setattr(search, "measure_choice", once(search.measure_choice))
    monkeypatch.setattr(search.SharedWork, "run", counted)
    checkpoint, turns = {}, []
    while True:
        try:
            result = cluster_vectors(
                rows, config=ClusteringConfig(), checkpoint=checkpoint, pause=lambda: True
            )
            break
        except Paused as paused:
            turns.append((paused.done, paused.total))
    assert turns == [(done, whole.tried) for done in range(1, whole.tried)]
    searched = runs[: whole.tried]
    assert len(set(searched)) == whole.tried  # stability runs the winner again
    assert told(result) == told(whole)


def once(function):
    calls = []

    def call(*arguments, **named):
        assert not calls, "a second time"
        calls.append(1)
        return function(*arguments, **named)

    return call


def test_a_pause_never_comes_before_something_new():
    rows, _ = blobs([30, 20, 10])
    config = ClusteringConfig(clusters=3, method="ward")
    result = cluster_vectors(rows, config=config, checkpoint={}, pause=lambda: True)
    assert result.tried == 1


def test_the_time_budget_counts_over_all_turns(monkeypatch):
    rows, _ = blobs([30, 20, 10])
    config = ClusteringConfig(time_budget_s=1000.0)
    now = [0.0]

    def clock():
        now[0] += 30.0
        return now[0]

    monkeypatch.setattr(search.time, "monotonic", clock)
    checkpoint, turns = {}, 0
    while True:
        try:
            result = cluster_vectors(rows, config=config, checkpoint=checkpoint, pause=lambda: True)
            break
        except Paused:
            turns += 1
    assert 3 < turns < 24
    assert result.tried == turns + 1
    assert result.skipped > 0


def test_a_checkpoint_of_another_configuration_is_not_used():
    rows, _ = blobs([30, 20, 10])
    checkpoint = {}
    cluster_vectors(rows, config=ClusteringConfig(), checkpoint=checkpoint)
    for other in ({"weights": (1.0, 0.0, 0.0)}, {"seed": 1}, {"max_size": 20}):
        config = ClusteringConfig(**other)
        again = cluster_vectors(rows, config=config, checkpoint=dict(checkpoint))
        assert told(again) == told(cluster_vectors(rows, config=config))


def test_time_budget_stops_the_search_and_says_so():
    rows, _ = blobs([30, 20, 10])
    result = cluster_vectors(rows, config=ClusteringConfig(time_budget_s=1e-9))
    assert result.tried == 1
    assert result.skipped >= 23


@pytest.mark.parametrize(("mode", "least"), [("fast", 24), ("balanced", 60)])
def test_modes_try_enough_settings_of_every_method(mode, least):
    rows, _ = blobs([60, 50, 40, 40, 30, 30], spread=0.6)
    result = cluster_vectors(rows, config=ClusteringConfig(mode=mode))
    assert result.tried >= least


@pytest.mark.slow
def test_comprehensive_tries_two_hundred_settings():
    rows, _ = blobs([60, 50, 40, 40, 30, 30], spread=0.6)
    assert cluster_vectors(rows, config=ClusteringConfig(mode="comprehensive")).tried >= 200


def test_a_setting_that_fails_is_reported_as_failed():
    rows = np.eye(40, dtype=np.float32)
    result = cluster_vectors(rows, config=ClusteringConfig(method="hdbscan"))
    failed = [entry for entry in result.search if entry.error]
    assert failed
    assert all("noise" in entry.error for entry in failed)
    assert result.settings["fallback"]
    assert len(result.clusters) == 1


def test_outliers_are_kept_or_assigned():
    rows, _ = blobs([60, 50, 40], spread=0.3)
    rows = np.concatenate([rows, np.random.default_rng(5).standard_normal((15, 16)) * 0.9])
    kept = cluster_vectors(rows, config=ClusteringConfig(method="hdbscan"))
    assert (kept.labels < 0).any()
    assert kept.metrics["noise_share"] > 0
    assert kept.strengths is not None
    given_ = cluster_vectors(rows, config=ClusteringConfig(method="hdbscan", outliers="assign"))
    assert (given_.labels >= 0).all()


def test_copies_count_once_for_structure_and_all_for_bounds():
    rows, _ = blobs([10, 10, 10])
    copied = np.concatenate([rows, np.repeat(rows[:1], 50, axis=0)])
    config = ClusteringConfig(method="kmeans", clusters=3)
    plain, more = (cluster_vectors(x, config=config) for x in (rows, copied))
    assert adjusted_rand_index(plain.labels, more.labels[:30]) == 1.0
    assert len(set(more.labels[30:])) == 1
    bounded = ClusteringConfig(clusters=3, max_size=30)
    assert_whole(cluster_vectors(copied, config=bounded), 80, bounded)


def test_progress_rises_to_one():
    rows, _ = blobs([30, 20])
    shares = []
    cluster_vectors(rows, config=ClusteringConfig(), progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
