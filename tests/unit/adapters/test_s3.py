import base64
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from imageclust.adapters.aws import s3_store
from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.s3_links import S3Links
from imageclust.adapters.aws.s3_store import S3Store
from imageclust.errors import InvalidInput, NotFound, Permanent
from moto.s3.models import s3_backends

from tests.standins.account import ACCOUNT


@pytest.fixture
def store(clients: Clients, tmp_path: Path) -> S3Store:
    clients.s3.create_bucket(Bucket="data")
    return S3Store(clients, cache=tmp_path / "cache")


def test_a_listing_of_several_pages(store: S3Store) -> None:
    names = [f"n/{number:05d}" for number in range(2_345)]
    for name in names:
        s3_backends[ACCOUNT]["aws"].put_object("data", name, b"")
    assert [found.uri for found in store.list("data", "n/")] == [f"s3://data/{n}" for n in names]


def test_folder_markers_are_not_objects(store: S3Store, clients: Clients) -> None:
    for key, body in (("a/", b""), ("a/b.jpg", b"x"), ("odd/", b"content"), ("a//c.jpg", b"y")):
        clients.s3.put_object(Bucket="data", Key=key, Body=body)
    keys = [found.uri.removeprefix("s3://data/") for found in store.list("data", "")]
    assert keys == ["a//c.jpg", "a/b.jpg", "odd/"]
    # What others put under odd keys can still be read.
    assert store.read("s3://data/a//c.jpg") == b"y"


def test_content_types_are_kept(store: S3Store, clients: Clients) -> None:
    store.write("s3://data/a.webp", b"x", content_type="image/webp")
    assert clients.s3.head_object(Bucket="data", Key="a.webp")["ContentType"] == "image/webp"


def test_a_full_disk_loses_its_oldest_copies(
    store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = []
    for number in range(4):
        store.write(f"s3://data/{number}.npy", b"x" * 1000)
        paths.append(store.path(f"s3://data/{number}.npy"))
        os.utime(paths[-1], (number, number))

    def usage(folder: Path) -> SimpleNamespace:
        """A disk with room for three copies and what is to be spared."""
        return SimpleNamespace(free=64_000_000 + 3000 - 1000 * len(list(folder.iterdir())))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    store.write("s3://data/new.npy", b"y" * 1000)
    assert store.path("s3://data/new.npy").read_bytes() == b"y" * 1000
    assert [path.exists() for path in paths] == [False, False, True, True]
    assert store.path("s3://data/0.npy").read_bytes() == b"x" * 1000


@pytest.mark.parametrize("free", [10**12, 0])
def test_a_file_that_another_thread_moves_away_stops_no_download(
    free: int, store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "tmp0").symlink_to(tmp_path / "moved")  # listed, but not to be found
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    store.write("s3://data/a.npy", b"x")
    assert store.path("s3://data/a.npy").read_bytes() == b"x"


def test_a_copy_stays_until_its_thread_asks_for_another(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the disk is full, and when a newer version of the object is fetched."""
    for name in ("a", "b", "c"):
        store.write(f"s3://data/{name}.npy", name.encode())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        held = first.submit(store.path, "s3://data/a.npy").result()
        passed = second.submit(store.path, "s3://data/b.npy").result()
        store.write("s3://data/a.npy", b"newer")
        assert second.submit(store.path, "s3://data/a.npy").result().read_bytes() == b"newer"
        assert (held.exists(), passed.exists()) == (True, False)
        first.submit(store.path, "s3://data/b.npy").result()
        second.submit(store.path, "s3://data/c.npy").result()
        assert not held.exists()


def test_a_download_that_is_under_way_is_not_removed(
    store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("s3://data/slow.npy", b"slow")
    store.write("s3://data/other.npy", b"other")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "tmp0").touch()  # a killed download left it
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    others = ["s3://data/other.npy"]
    with ThreadPoolExecutor(1) as meanwhile:

        def fdopen(*arguments: Any) -> Any:
            while others:
                meanwhile.submit(store.path, others.pop()).result()
            return os.fdopen(*arguments)

        monkeypatch.setattr(s3_store, "os", SimpleNamespace(fdopen=fdopen))
        assert store.path("s3://data/slow.npy").read_bytes() == b"slow"
    assert not (tmp_path / "cache" / "tmp0").exists()


def test_a_download_happens_once(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("s3://data/m.onnx", b"weights")
    first = store.path("s3://data/m.onnx")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("downloaded twice")

    monkeypatch.setattr(store._clients.s3, "get_object", refuse)
    assert store.path("s3://data/m.onnx") == first
    assert [path.name for path in first.parent.iterdir()] == [first.name]
    monkeypatch.undo()
    store.write("s3://data/m.onnx", b"other weights")
    second = store.path("s3://data/m.onnx")
    assert second.read_bytes() == b"other weights"
    assert [path.name for path in first.parent.iterdir()] == [second.name]


def test_a_bucket_that_is_not_there(store: S3Store) -> None:
    with pytest.raises(NotFound):
        list(store.list("none", ""))
    with pytest.raises(NotFound):
        store.write("s3://none/a", b"")


def test_missing_credentials_are_told(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(Permanent, match="credentials"):
        S3Store(Clients(region="us-east-1")).read("s3://data/a")


def test_an_upload_is_bound_to_its_key_type_and_size(clients: Clients) -> None:
    upload = S3Links(clients, seconds=600).upload(
        "s3://uploads/house/été 1.jpg", content_type="image/jpeg", max_bytes=1000
    )
    assert upload.url.startswith("https://")
    assert upload.fields["key"] == "house/été 1.jpg"
    assert upload.fields["Content-Type"] == "image/jpeg"
    policy = json.loads(base64.b64decode(upload.fields["policy"]))
    assert ["content-length-range", 0, 1000] in policy["conditions"]
    assert {"Content-Type": "image/jpeg"} in policy["conditions"]
    assert {"key": "house/été 1.jpg"} in policy["conditions"]
    assert {"bucket": "uploads"} in policy["conditions"]


def test_a_key_with_a_placeholder_is_refused(clients: Clients) -> None:
    with pytest.raises(InvalidInput):
        S3Links(clients).upload(
            "s3://uploads/house/${filename}", content_type="image/jpeg", max_bytes=1
        )


def test_a_download_address(clients: Clients) -> None:
    address = urlsplit(S3Links(clients, seconds=60).download("s3://data/exports/r1/a b.csv"))
    assert address.path.endswith("/exports/r1/a%20b.csv")
    query = parse_qs(address.query)
    assert query["X-Amz-Expires"] == ["60"]
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_addresses_name_their_region(region: str) -> None:
    links = S3Links(Clients(region=region))
    host = f"uploads.s3.{region}.amazonaws.com"
    assert urlsplit(links.download("s3://uploads/a")).netloc == host
    upload = links.upload("s3://uploads/a", content_type="x/y", max_bytes=1)
    assert urlsplit(upload.url).netloc == host
