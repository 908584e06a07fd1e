import os
import subprocess
import sys
import time

import numpy as np
import pytest
from imageclust.clustering import maps
from imageclust.clustering.geometry import rotate, unit_rows
from imageclust.clustering.maps import FEWEST, tsne_map
from scipy.spatial import cKDTree

NONE = np.arange(0)


def groups(k, each, *, d=32, spread=0.5, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(k), each)
    rows = rng.standard_normal((k, d))[truth] + spread * rng.standard_normal((k * each, d))
    return rows.astype(np.float32), truth


def agreement(flat, truth):
    """Share of the five nearest in the plane that are of the same group."""
    _, near = cKDTree(flat).query(flat, 6)
    return (truth[near[:, 1:]] == truth[:, None]).mean()


def test_neighbours_stay_together_better_than_with_pca():
    rows, truth = groups(12, 25)
    flat = tsne_map(rows, NONE, seed=0)
    assert flat.shape == (300, 2)
    assert flat.dtype == np.float32
    assert np.abs(flat.mean(axis=0)).max() < 1e-3
    assert agreement(flat, truth) > 0.98
    assert agreement(rotate(unit_rows(rows), 2)[0], truth) < 0.8


def test_rows_that_are_not_fitted_are_placed_among_their_likes(monkeypatch):
    monkeypatch.setattr(maps, "FITTED", 150)
    rows, truth = groups(10, 60)
    flat = tsne_map(rows, np.arange(0, 600, 60), seed=0)
    assert agreement(flat, truth) > 0.95


def test_exemplars_are_fitted(monkeypatch):
    monkeypatch.setattr(maps, "FITTED", 40)
    seen = []
    fit = maps._fit
    monkeypatch.setattr(maps, "_fit", lambda rows: seen.append(len(rows)) or fit(rows))
    assert set(maps._drawn(400, np.array([399, 7, 7, 31]), 0)) >= {399, 7, 31}
    assert len(maps._drawn(400, np.arange(300), 0)) == 40
    tsne_map(groups(8, 50)[0], np.arange(3), seed=0)
    assert seen == [40]


@pytest.mark.parametrize("n", range(FEWEST))
def test_too_few_rows_make_no_map(n):
    assert tsne_map(np.random.default_rng(0).standard_normal((n, 4)), NONE, seed=0) is None


@pytest.mark.parametrize(
    "rows",
    [np.ones((50, 6)), np.zeros((50, 6)), np.repeat(np.eye(6), 9, axis=0)],
    ids=["equal", "zero", "few different"],
)
def test_rows_that_hardly_differ_make_no_map(rows):
    assert tsne_map(rows, NONE, seed=0) is None


@pytest.mark.parametrize("d", [1, 2, 3, 200])
@pytest.mark.parametrize("n", [FEWEST, 9, 31])
def test_small_and_flat_data_have_finite_places(n, d):
    rows = np.random.default_rng(n).standard_normal((n, d))
    flat = tsne_map(rows, np.arange(2), seed=0)
    if d == 1:  # two directions only
        assert flat is None
        return
    assert flat.shape == (n, 2)
    assert np.isfinite(flat).all()


def test_equal_rows_have_one_place():
    rows, _ = groups(4, 10)
    flat = tsne_map(np.concatenate([rows, rows[:7], rows[:1]]), NONE, seed=0)
    assert flat[40:47].tolist() == flat[:7].tolist()
    assert flat[47].tolist() == flat[0].tolist()


_DIGEST = """
import hashlib, numpy
from imageclust.clustering import maps
maps.FITTED = 200
rows = numpy.random.default_rng(0).standard_normal((500, 24)).astype(numpy.float32)
print(hashlib.sha256(maps.tsne_map(rows, numpy.arange(9), seed=0).tobytes()).hexdigest())
"""


def test_same_bits_whatever_the_number_of_threads():
    found = set()
    for threads in ("1", "2", "5"):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        done = subprocess.run(
            [sys.executable, "-c", _DIGEST],
            env={**os.environ, **dict.fromkeys(names, threads)},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1


@pytest.mark.slow
def test_fifty_thousand_rows_take_little_more_processor_time_than_ten_thousand():
    """The exemplars take it, as many of them in both; without them it would be 25 times more."""
    spent = []
    for each in (200, 1000):
        rows, truth = groups(50, each, d=64)
        started = time.process_time()
        flat = tsne_map(rows, np.arange(0, len(rows), len(rows) // 400), seed=0)
        spent.append(time.process_time() - started)
        assert agreement(flat, truth) > 0.9
    assert spent[1] < 5 * spent[0]
