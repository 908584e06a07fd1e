"""One behaviour of object stores, on files and on S3."""

import os

import pytest
from imageclust.errors import InvalidInput, NotFound
from imageclust.ports import ObjectStore


def keys_of(store: ObjectStore, prefix: str) -> list[str]:
    return [found.uri.removeprefix("s3://data/") for found in store.list("data", prefix)]


def test_what_is_written_reads_back(store: ObjectStore) -> None:
    store.write("s3://data/a/b.json", b"one", content_type="application/json")
    assert store.read("s3://data/a/b.json") == b"one"
    assert store.size("s3://data/a/b.json") == 3
    assert store.path("s3://data/a/b.json").read_bytes() == b"one"
    store.write("s3://data/a/b.json", b"")
    assert store.read("s3://data/a/b.json") == b""
    assert store.size("s3://data/a/b.json") == 0
    assert store.path("s3://data/a/b.json").read_bytes() == b""


def test_a_copy_has_the_content_of_its_source(store: ObjectStore) -> None:
    store.write("s3://data/été — 1.npy", b"one")
    store.copy("s3://data/été — 1.npy", "s3://data/b/two", content_type="application/json")
    store.write("s3://data/été — 1.npy", b"another")
    assert store.read("s3://data/b/two") == b"one"
    store.copy("s3://data/été — 1.npy", "s3://data/b/two")
    assert store.read("s3://data/b/two") == b"another"
    with pytest.raises(NotFound):
        store.copy("s3://data/none", "s3://data/b/two")
    assert store.read("s3://data/b/two") == b"another"


def test_what_is_absent(store: ObjectStore) -> None:
    assert store.size("s3://data/none") is None
    store.delete("s3://data/none")
    assert keys_of(store, "none/") == []
    for look in (store.read, store.path):
        with pytest.raises(NotFound):
            look("s3://data/none")
    with pytest.raises(NotFound):
        store.read("s3://elsewhere/none")


def test_delete(store: ObjectStore) -> None:
    store.write("s3://data/a", b"one")
    store.delete("s3://data/a")
    assert store.size("s3://data/a") is None
    assert keys_of(store, "") == []


AWKWARD = [
    "house/a b.jpg",
    "house/été — 写真.jpg",
    'house/it\'s "quoted" & <odd> +1%20.jpg',
    "house/-rf.jpg",
    "house/.hidden.jpg",
    "house/back\\slash.jpg",
    "house/line\nbreak.jpg",
    "house/a.b/c.jpg",
    "house/a/b.jpg",
    "house/a-b.jpg",
    "house/Z.jpg",
    "house/𝄞.jpg",
    "house/\ue000.jpg",
    "housing.jpg",
]


def test_listing_is_in_bytewise_key_order(store: ObjectStore) -> None:
    for number, key in enumerate(AWKWARD):
        store.write(f"s3://data/{key}", b"x" * number)
    in_house = [key for key in AWKWARD if key.startswith("house/")]
    assert keys_of(store, "house/") == sorted(in_house, key=str.encode)
    assert keys_of(store, "") == sorted(AWKWARD, key=str.encode)
    assert keys_of(store, "hous") == sorted(AWKWARD, key=str.encode)
    assert keys_of(store, "house/a") == ["house/a b.jpg", "house/a-b.jpg", "house/a.b/c.jpg",
                                         "house/a/b.jpg"]  # fmt: skip
    for found in store.list("data", ""):
        assert len(store.read(found.uri)) == found.size


def test_etag_changes_with_the_content(store: ObjectStore) -> None:
    def etag() -> str:
        (found,) = store.list("data", "")
        return found.etag

    store.write("s3://data/a", b"one")
    first = etag()
    assert etag() == first
    store.write("s3://data/a", b"two")
    assert etag() != first


def test_path_follows_the_newest_version(store: ObjectStore) -> None:
    store.write("s3://data/m.onnx", b"one")
    assert store.path("s3://data/m.onnx").read_bytes() == b"one"
    again = store.path("s3://data/m.onnx")
    assert again == store.path("s3://data/m.onnx")
    assert again.suffix == ".onnx"
    store.write("s3://data/m.onnx", b"two")
    assert store.path("s3://data/m.onnx").read_bytes() == b"two"


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/x", "a//b", "a/./b", "", "a/", "a\0b"])
def test_keys_that_could_leave_the_bucket_are_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(InvalidInput):
        store.write(f"s3://data/{key}", b"x")


def test_large_objects(store: ObjectStore) -> None:
    data = os.urandom(9_000_000)
    store.write("s3://data/large.npy", data)
    assert store.read("s3://data/large.npy") == data
