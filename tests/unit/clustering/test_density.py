import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imageclust.clustering.density import dbscan_labels, hdbscan_labels, single_linkage
from imageclust.clustering.geometry import rotate, unit_rows
from imageclust.clustering.neighbours import neighbour_graph
from imageclust.clustering.quality import adjusted_rand_index
from imageclust.clustering.spanning import spanning_tree


def clumps(n, d=24, groups=12, seed=0):
    """Tight and loose groups far apart, with background."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((groups, d))
    spread = rng.uniform(0.05, 0.5, groups)
    truth = rng.choice(groups, n, p=(w := rng.random(groups) ** 2 + 0.05) / w.sum())
    rows = centres[truth] + spread[truth, None] * rng.standard_normal((n, d))
    lost = rng.random(n) < 0.1
    rows[lost] = rng.standard_normal((int(lost.sum()), d))
    return unit_rows(rows)


def graph_of(rows, k):
    return neighbour_graph(rows, k, cheap=rotate(rows, 16)[0])


def prim_weights(reach):
    """Sorted weights of a minimum spanning tree of a full matrix."""
    n = len(reach)
    left = np.arange(1, n)
    best = reach[0, 1:].copy()
    weights = []
    while len(left):
        at = int(best.argmin())
        node = left[at]
        weights.append(best[at])
        left, best = np.delete(left, at), np.delete(best, at)
        best = np.minimum(best, reach[node, left])
    return np.sort(weights)


@pytest.mark.parametrize("n", [2, 3, 40, 2500, 5000])
def test_neighbour_graph_is_exact(n):
    rows = clumps(n)
    graph = graph_of(rows, 8)
    apart = 1.0 - rows.astype(np.float64) @ rows.T.astype(np.float64)
    np.fill_diagonal(apart, np.inf)
    k = min(8, n - 1)
    assert np.allclose(graph.distances, np.sort(apart, axis=1)[:, :k], atol=2e-6)
    assert np.allclose(graph.distances, np.take_along_axis(apart, graph.indices, 1), atol=2e-6)
    assert (graph.indices != np.arange(n)[:, None]).all()


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(2, 300),
    k=st.integers(1, 12),
    neighbours=st.integers(0, 12),
    kind=st.sampled_from(["spread", "line", "duplicates"]),
    seed=st.integers(0, 50),
)
def test_spanning_tree_weighs_as_much_as_the_dense_one(n, k, neighbours, kind, seed):
    rows = clumps(n, d=3 if kind == "line" else 10, seed=seed)
    if kind == "duplicates":
        rows = np.unique(np.round(rows, 1), axis=0)
        rows = unit_rows(rows)
    n = len(rows)
    if n < 2:
        return
    neighbours = min(neighbours, k, n - 1)
    graph = graph_of(rows, k)
    tree = spanning_tree(graph, neighbours)
    apart = np.maximum(1.0 - rows.astype(np.float64) @ rows.T, 0.0)
    reach = np.maximum(apart, np.maximum(tree.core[:, None], tree.core[None, :]))
    assert len(tree.edges) == n - 1
    assert np.allclose(tree.edges.weight, prim_weights(reach), atol=4e-6)


def test_spanning_tree_over_many_tiles():
    rows = clumps(5000, d=16, groups=40)
    tree = spanning_tree(graph_of(rows, 10), 5)
    apart = np.maximum(1.0 - rows.astype(np.float64) @ rows.T, 0.0)
    reach = np.maximum(apart, np.maximum(tree.core[:, None], tree.core[None, :]))
    assert np.allclose(tree.edges.weight, prim_weights(reach), atol=4e-6)


@pytest.mark.parametrize("min_samples", [1, 2, 5, 9])
@pytest.mark.parametrize("eps", [0.02, 0.1, 0.2, 0.5])
def test_dbscan_labels_are_scikit_learns(eps, min_samples):
    cluster = pytest.importorskip("sklearn.cluster")
    rows = clumps(1500)
    graph = graph_of(rows, 8)
    labels = dbscan_labels(graph, spanning_tree(graph, min_samples - 1), eps=eps)
    theirs = cluster.DBSCAN(eps=eps, min_samples=min_samples, metric="cosine").fit_predict(rows)
    assert labels.tolist() == theirs.tolist()


@pytest.mark.parametrize("size", [5, 15, 40])
@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_hdbscan_labels_are_the_packages(size, samples, seed):
    """Also where a row joins two clusters at once, and in strength where a cluster splits."""
    hdbscan = pytest.importorskip("hdbscan")
    rows = clumps(1500, seed=seed)
    graph = graph_of(rows, 16)
    linkage = single_linkage(graph, spanning_tree(graph, samples))
    fit = hdbscan_labels(linkage, min_cluster_size=size)
    # What the package takes by itself above 60 columns.
    peer = hdbscan.HDBSCAN(
        min_cluster_size=size, min_samples=samples, algorithm="prims_kdtree"
    ).fit(rows)
    assert adjusted_rand_index(fit.labels, peer.labels_) == 1.0
    assert np.abs(fit.strengths - peer.probabilities_).max() < 1e-3
