"""One behaviour of vector indexes, over memory-mapped files and over S3 Vectors."""

import numpy as np
import pytest
from imageclust.errors import InvalidInput, NotFound
from imageclust.ports import VectorIndex
from numpy.typing import NDArray


def vectors(count: int, dimension: int = 8, *, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


def filled(index: VectorIndex, count: int = 250) -> NDArray[np.float32]:
    rows = vectors(count)
    index.create("house-x", 8)
    index.put(
        "house-x",
        [f"i{n:04d}" for n in range(count)],
        rows,
        [
            {"cluster": f"c{n % 3}", "labels": ["Sofa", f"L{n % 5}"], "n": n % 7, "odd": n % 2 == 1}
            for n in range(count)
        ],
    )
    return rows


def distances(rows: NDArray[np.float32], aim: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    cosine = wide @ aim / np.linalg.norm(wide, axis=1) / np.linalg.norm(aim.astype(np.float64))
    return np.asarray(1 - cosine)


@pytest.mark.parametrize("top_k", [1, 7, 100, 230, 1000])
def test_nearest_first(index: VectorIndex, top_k: int) -> None:
    rows = filled(index)
    aim = vectors(1, seed=1)[0] * 3
    found = index.query("house-x", aim, top_k=top_k)
    expected = distances(rows, aim)
    order = np.argsort(expected)[:top_k]
    assert [match.id for match in found] == [f"i{n:04d}" for n in order]
    np.testing.assert_allclose([m.distance for m in found], expected[order], atol=1e-6)
    assert found[0].metadata["cluster"] == f"c{order[0] % 3}"
    assert "Sofa" in found[0].metadata["labels"]


@pytest.mark.parametrize(
    ("where", "keep"),
    [
        ({"cluster": "c1"}, lambda n: n % 3 == 1),
        ({"labels": "L2"}, lambda n: n % 5 == 2),
        ({"labels": "Sofa"}, lambda n: True),
        ({"cluster": "c0", "labels": "L4"}, lambda n: n % 3 == 0 and n % 5 == 4),
        ({"n": 3}, lambda n: n % 7 == 3),
        ({"odd": True}, lambda n: n % 2 == 1),
        ({"odd": False, "n": 0}, lambda n: n % 14 == 0),
        ({"cluster": "none"}, lambda n: False),
        ({"absent": "x"}, lambda n: False),
        ({"n": "3"}, lambda n: False),
    ],
)
def test_filters(index: VectorIndex, where: dict[str, object], keep: object) -> None:
    rows = filled(index)
    aim = vectors(1, seed=2)[0]
    found = index.query("house-x", aim, top_k=20, where=where)
    kept = [n for n in range(len(rows)) if keep(n)]  # type: ignore[operator]
    order = sorted(kept, key=lambda n: distances(rows[[n]], aim)[0])[:20]
    assert [match.id for match in found] == [f"i{n:04d}" for n in order]


def test_put_replaces(index: VectorIndex) -> None:
    rows = filled(index, 40)
    index.put("house-x", ["i0003"], -rows[[3]], [{"cluster": "new"}])
    index.put("house-x", ["i0004"], rows[[4]], [{"cluster": "new"}])
    nearest = index.query("house-x", -rows[3], top_k=1)[0]
    assert (nearest.id, nearest.metadata) == ("i0003", {"cluster": "new"})
    assert nearest.distance == pytest.approx(0, abs=1e-6)
    everything = index.query("house-x", rows[0], top_k=100)
    assert sorted(match.id for match in everything) == [f"i{n:04d}" for n in range(40)]
    changed = index.query("house-x", rows[0], top_k=100, where={"cluster": "new"})
    assert sorted(match.id for match in changed) == ["i0003", "i0004"]


def test_of_two_vectors_with_one_id_the_last_stays(index: VectorIndex) -> None:
    index.create("house-x", 8)
    rows = vectors(2)
    index.put("house-x", ["a", "a"], rows, [{"n": 1}, {"n": 2}])
    found = index.query("house-x", rows[0], top_k=5)
    assert [(m.id, m.metadata) for m in found] == [("a", {"n": 2})]
    assert found[0].distance == pytest.approx(distances(rows[[1]], rows[0])[0], abs=1e-6)


def test_create_again(index: VectorIndex) -> None:
    filled(index, 5)
    index.create("house-x", 8)
    assert len(index.query("house-x", vectors(1)[0], top_k=10)) == 5
    with pytest.raises(InvalidInput, match="dimension 8"):
        index.create("house-x", 16)


def test_what_is_not_kept_is_found_no_more(index: VectorIndex) -> None:
    rows = filled(index, 40)
    names = [f"i{n:04d}" for n in range(40)]
    index.keep("house-x", names)
    assert len(index.query("house-x", rows[7], top_k=100)) == 40
    stay = [name for n, name in enumerate(names) if n % 4]
    for _ in range(2):
        index.keep("house-x", [*stay, "never-put"])
        found = index.query("house-x", rows[8], top_k=100)
        assert sorted(match.id for match in found) == stay
        some = index.query("house-x", rows[8], top_k=100, where={"cluster": "c2"})
        assert sorted(match.id for match in some) == [s for s in stay if int(s[1:]) % 3 == 2]
    index.put("house-x", ["i0008", "new"], -rows[[8, 9]], [{}, {}])
    (nearest,) = index.query("house-x", -rows[8], top_k=1)
    assert (nearest.id, nearest.distance) == ("i0008", pytest.approx(0, abs=1e-6))
    assert len(index.query("house-x", rows[8], top_k=100)) == len(stay) + 2


def test_keep_nothing(index: VectorIndex) -> None:
    rows = filled(index, 5)
    index.keep("house-x", [])
    assert index.query("house-x", rows[0], top_k=10) == ()
    index.put("house-x", ["a"], rows[:1], [{}])
    assert [match.id for match in index.query("house-x", rows[0], top_k=10)] == ["a"]


def test_keep_over_pages_of_the_list(index: VectorIndex) -> None:
    rows = filled(index, 2_300)
    index.keep("house-x", ["i0000", "i2299"])
    assert {m.id for m in index.query("house-x", rows[5], top_k=10)} == {"i0000", "i2299"}


def test_an_index_that_is_not_there(index: VectorIndex) -> None:
    with pytest.raises(NotFound):
        index.put("none-x", ["a"], vectors(1), [{}])
    with pytest.raises(NotFound):
        index.query("none-x", vectors(1)[0], top_k=1)
    with pytest.raises(NotFound):
        index.keep("none-x", [])


@pytest.mark.parametrize("bad", [np.zeros(8), np.full(8, np.nan), np.full(8, np.inf), np.ones(9)])
def test_vectors_without_direction_are_refused(
    index: VectorIndex, bad: NDArray[np.float64]
) -> None:
    index.create("house-x", 8)
    with pytest.raises(InvalidInput):
        index.put("house-x", ["a"], bad[None].astype(np.float32), [{}])
    with pytest.raises(InvalidInput):
        index.query("house-x", bad.astype(np.float32), top_k=1)


def test_arguments(index: VectorIndex) -> None:
    index.create("house-x", 8)
    index.put("house-x", [], vectors(0), [])
    aim = vectors(1)[0]
    assert index.query("house-x", aim, top_k=3) == ()
    with pytest.raises(InvalidInput):
        index.put("house-x", ["a"], vectors(2), [{}, {}])
    with pytest.raises(InvalidInput):
        index.put("house-x", ["a"], vectors(1), [{"nested": {"a": 1}}])
    with pytest.raises(InvalidInput):
        index.put("house-x", ["a"], vectors(1), [{"long": "x" * 3000}])
    for top_k in (0, 10_001):
        with pytest.raises(InvalidInput):
            index.query("house-x", aim, top_k=top_k)
    with pytest.raises(InvalidInput):
        index.query("house-x", aim, top_k=1, where={"a": None})
    with pytest.raises(InvalidInput):
        index.create("No_Good", 8)
    with pytest.raises(InvalidInput):
        index.create("house-x", 5000)
