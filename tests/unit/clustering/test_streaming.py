import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imageclust.clustering import ClusteringConfig, adjusted_rand_index
from imageclust.clustering.streaming import cluster_shards, micro_clusters
from imageclust.errors import InvalidInput


def shards_of(n, groups=10, parts=3, seed=0, d=16):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((groups, d)) * 3
    truth = rng.integers(0, groups, n)
    rows = (centres[truth] + 0.5 * rng.standard_normal((n, d))).astype(np.float16)
    return np.array_split(rows, parts), truth


def test_micro_clusters_then_the_true_groups():
    shards, truth = shards_of(6000)
    micro = micro_clusters(shards, 40)
    assert micro.sizes.sum() == 6000
    assert np.bincount(micro.labels, minlength=40).tolist() == micro.sizes.tolist()
    labels = cluster_shards(shards, config=ClusteringConfig(clusters=10), micro=40)
    assert adjusted_rand_index(labels, truth) > 0.99


def test_result_does_not_depend_on_the_cut_into_shards():
    rows = np.concatenate(shards_of(3000)[0])
    config = ClusteringConfig(clusters=7, min_size=300, max_size=500)
    whole = cluster_shards([rows], config=config, micro=30)
    cut = cluster_shards(np.array_split(rows, 5), config=config, micro=30)
    assert adjusted_rand_index(whole, cut) > 0.99


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 120),
    k=st.integers(1, 12),
    slack=st.integers(0, 5),
    copies=st.booleans(),
    seed=st.integers(0, 20),
)
def test_bounds_always_hold(n, k, slack, copies, seed):
    k = min(k, n)
    shards, _ = shards_of(n, groups=3, parts=min(3, n), seed=seed, d=4)
    if copies:
        shards = [np.ones_like(shard) for shard in shards]
    low, high = max(n // k - slack, 1), -(-n // k) + slack
    config = ClusteringConfig(clusters=k, min_size=low, max_size=high)
    labels = cluster_shards(shards, config=config, micro=20)
    sizes = np.bincount(labels, minlength=k)
    assert len(labels) == n
    assert labels.min() >= 0
    assert len(sizes) == k
    assert sizes.min() >= low
    assert sizes.max() <= high


def test_shards_must_fit_together():
    with pytest.raises(InvalidInput):
        micro_clusters([np.zeros((2, 3)), np.zeros((2, 4))], 2)
    with pytest.raises(InvalidInput):
        micro_clusters([], 2)
