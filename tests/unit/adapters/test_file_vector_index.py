from pathlib import Path

import numpy as np
import pytest
from imageclust.adapters.local.file_vector_index import FileVectorIndex
from imageclust.errors import CorruptData, StoreUnavailable


def rows(count: int, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(size=(count, 32)).astype(np.float32)


def test_more_rows_than_a_block(tmp_path: Path) -> None:
    index = FileVectorIndex(tmp_path)
    index.create("all", 32)
    data = rows(20_000)
    for start in range(0, 20_000, 5_000):
        part = range(start, start + 5_000)
        metadata = [{"even": n % 2 == 0} for n in part]
        index.put("all", [f"i{n}" for n in part], data[start : start + 5_000], metadata)
    unit = data / np.linalg.norm(data, axis=1, keepdims=True)
    order = np.argsort(-(unit @ unit[19_999]))
    found = index.query("all", data[19_999], top_k=50)
    assert [match.id for match in found] == [f"i{n}" for n in order[:50]]
    even = index.query("all", data[19_999], top_k=50, where={"even": True})
    assert [match.id for match in even] == [f"i{n}" for n in order if n % 2 == 0][:50]


def test_equal_vectors_come_in_the_order_of_their_ids(tmp_path: Path) -> None:
    index = FileVectorIndex(tmp_path)
    index.create("all", 32)
    same = np.tile(rows(1), (30, 1))
    index.put("all", [f"i{29 - n:02d}" for n in range(30)], same, [{}] * 30)
    assert [m.id for m in index.query("all", same[0], top_k=5)] == [f"i{n:02d}" for n in range(5)]


def test_what_a_killed_put_left_is_overwritten(tmp_path: Path) -> None:
    index = FileVectorIndex(tmp_path)
    index.create("all", 32)
    index.put("all", ["a"], rows(1), [{}])
    with (tmp_path / "all" / "vectors.f32").open("ab") as stream:
        stream.write(b"\xff" * 777)  # rows that were never committed
    assert [m.id for m in index.query("all", rows(1)[0], top_k=9)] == ["a"]
    index.put("all", ["b"], rows(1, 1), [{}])
    assert [m.id for m in index.query("all", rows(1, 1)[0], top_k=9)] == ["b", "a"]
    assert (tmp_path / "all" / "vectors.f32").stat().st_size == 2 * 32 * 4


def test_a_vector_put_again_takes_no_more_room(tmp_path: Path) -> None:
    index = FileVectorIndex(tmp_path)
    index.create("all", 32)
    for run in range(3):
        index.put("all", ["a", "b"], rows(2), [{"run": run}, {"run": run}])
    assert (tmp_path / "all" / "vectors.f32").stat().st_size == 2 * 32 * 4
    assert {m.metadata["run"] for m in index.query("all", rows(1)[0], top_k=9)} == {2}


def test_damage_is_told(tmp_path: Path) -> None:
    index = FileVectorIndex(tmp_path)
    index.create("all", 32)
    index.put("all", ["a"], rows(1), [{}])
    (tmp_path / "all" / "vectors.f32").write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="vectors"):
        index.query("all", rows(1)[0], top_k=1)
    (tmp_path / "all" / "rows.db").write_bytes(b"no database" * 500)
    with pytest.raises(CorruptData):
        index.query("all", rows(1)[0], top_k=1)
    with pytest.raises(CorruptData):
        index.keep("all", ["a"])
