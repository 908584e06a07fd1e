import numpy as np
import pytest
from imageclust.clustering import ClusteringConfig, adjusted_rand_index, cluster_vectors
from imageclust.clustering.choice import cloud_curve, measure_choice
from imageclust.clustering.geometry import unit_rows

GRID = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 17, 20)


def spread_groups(sizes, *, long=0.0, noise=0.8, d=48, seed=0):
    """Groups at right angles, and one direction along which all rows spread alike."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.zeros((len(truth), d))
    rows[np.arange(len(truth)), truth] = 1.0
    rows += noise * rng.standard_normal(rows.shape) / np.sqrt(d)
    rows[:, -1] += long * rng.standard_normal(len(truth))
    return unit_rows(rows), truth


def test_a_long_cloud_cut_in_two_is_no_better_than_what_a_cloud_scores():
    rows, truth = spread_groups([40] * 8, long=0.8, noise=1.7)
    choice = measure_choice(rows, GRID, seed=0)
    silhouette = choice.curves["silhouette"]
    assert silhouette[0] == max(silhouette)  # alone it would choose two halves
    assert 6 <= choice.best <= 12
    result = cluster_vectors(rows, config=ClusteringConfig())
    assert len(result.clusters) >= 6
    assert adjusted_rand_index(result.labels, truth) > 0.5


@pytest.mark.parametrize("sizes", [[60, 60], [90, 30], [50, 50, 50], [90, 40, 20]])
@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_two_or_three_real_groups_are_found(sizes, noise):
    rows, truth = spread_groups(sizes, noise=noise)
    for seed in range(3):
        result = cluster_vectors(rows, config=ClusteringConfig(seed=seed))
        assert len(result.clusters) == len(sizes)
        assert adjusted_rand_index(result.labels, truth) > 0.95


def families(groups, each, family, *, d=64, seed=0):
    """Wide groups, in which each few rows are a little alike, as photos of one shop are."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(groups), each)
    rows = 0.55 * np.eye(d)[truth]
    likeness = rng.standard_normal((len(truth) // family, d))
    rows += 0.1 * likeness[np.arange(len(truth)) // family]
    return unit_rows(rows + 0.15 * rng.standard_normal(rows.shape)), truth


@pytest.mark.parametrize("seed", range(3))
def test_few_rows_that_happen_to_be_alike_are_no_clusters(seed):
    rows, truth = families(3, 60, 4, seed=seed)
    result = cluster_vectors(rows, config=ClusteringConfig(seed=seed))
    curves = {name: np.array(values) for name, values in result.curves.items()}
    excess = curves["silhouette"] - curves["cloud"]
    assert excess[-3:].max() > 0.9 * excess[:3].max()  # alone it could as well choose forty
    assert len(result.clusters) == 3
    assert adjusted_rand_index(result.labels, truth) > 0.8


@pytest.mark.parametrize("n", [3, 4, 5, 6, 7])
def test_each_image_by_itself_is_no_grouping(n):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        alike = np.eye(9)[np.arange(n) % 2] + rng.standard_normal((n, 9)) / 6
        for rows in (alike, rng.standard_normal((n, 9))):
            result = cluster_vectors(rows, config=ClusteringConfig(seed=seed))
            assert len(result.clusters) < n
    asked = cluster_vectors(rows, config=ClusteringConfig(clusters=n))
    assert len(asked.clusters) == n


def test_a_cloud_exceeds_no_cloud():
    scale = np.geomspace(1, 0.05, 40)
    rows = np.random.default_rng(1).standard_normal((600, 40)) * scale + 0.5
    choice = measure_choice(unit_rows(rows), GRID, seed=0)
    own, cloud = np.array(choice.curves["silhouette"]), np.array(choice.curves["cloud"])
    assert own.max() > 0.1
    assert np.abs(own - cloud).max() < 0.03


def test_what_a_cloud_scores_is_read_between_the_measured_numbers():
    rows, _ = spread_groups([30] * 4)
    choice = measure_choice(rows, (2, 4, 8), seed=0)
    two, four, eight = choice.curves["cloud"]
    assert choice.cloud_silhouette(2) == pytest.approx(two)
    assert min(two, four) <= choice.cloud_silhouette(3) <= max(two, four)
    assert choice.cloud_silhouette(100) == pytest.approx(eight)
    assert choice.cloud_silhouette(1) == 0


@pytest.mark.parametrize("rows", [np.eye(3), np.ones((4, 5)), np.zeros((3, 2))])
def test_clouds_of_hardly_any_rows(rows):
    curve = cloud_curve(unit_rows(rows), (2, 3), seed=0, references=2)
    assert np.isfinite(curve).all()
