import errno
import inspect
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from imageclust.adapters.local.file_store import FileStore
from imageclust.errors import InvalidInput, NotFound, Permanent, StoreUnavailable
from imageclust.keys import NOT_PHOTOS


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "photos").mkdir()
    return tmp_path


@pytest.fixture
def store(home: Path) -> FileStore:
    return FileStore({"uploads": home / "uploads", "data": home / "data"})


def fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def listed(store: FileStore, prefix: str, bucket: str = "uploads") -> list[str]:
    return [found.uri.removeprefix(f"s3://{bucket}/") for found in store.list(bucket, prefix)]


def test_a_collection_may_be_a_link_to_somebodys_photos(home: Path, store: FileStore) -> None:
    fill(home / "photos", "b.jpg", "a/c.jpg")
    (home / "uploads" / "house").symlink_to(home / "photos")
    assert listed(store, "house/") == ["house/a/c.jpg", "house/b.jpg"]
    assert listed(store, "") == ["house/a/c.jpg", "house/b.jpg"]
    assert store.read("s3://uploads/house/a/c.jpg") == b"a/c.jpg"
    assert store.path("s3://uploads/house/b.jpg").read_bytes() == b"b.jpg"


def test_photos_behind_a_link_are_never_changed(home: Path, store: FileStore) -> None:
    fill(home / "photos", "b.jpg")
    (home / "uploads" / "house").symlink_to(home / "photos")
    with pytest.raises(InvalidInput, match="never changed"):
        store.write("s3://uploads/house/b.jpg", b"x")
    with pytest.raises(InvalidInput, match="never changed"):
        store.write("s3://uploads/house/new/n.jpg", b"x")
    with pytest.raises(InvalidInput, match="never changed"):
        store.delete("s3://uploads/house/b.jpg")
    assert (home / "photos" / "b.jpg").read_bytes() == b"b.jpg"
    assert os.listdir(home / "photos") == ["b.jpg"]


def test_the_bucket_itself_may_be_a_link(home: Path) -> None:
    (home / "elsewhere").mkdir()
    (home / "linked").symlink_to(home / "elsewhere")
    store = FileStore({"data": home / "linked"})
    store.write("s3://data/a/b", b"x")
    assert listed(store, "a/", "data") == ["a/b"]


def test_links_inside(home: Path, store: FileStore) -> None:
    photos = home / "photos"
    fill(photos, "real/a.jpg", "z.jpg")
    fill(home / "other", "o.jpg", "deep/d.jpg")
    (photos / "file.jpg").symlink_to(home / "other" / "o.jpg")
    (photos / "folder").symlink_to(home / "other")
    (photos / "again").symlink_to(photos / "real")  # listed at its own place
    (photos / "loop").symlink_to(photos)
    (photos / "up").symlink_to(home)
    (photos / "real" / "self").symlink_to(photos / "real")
    (home / "other" / "deep" / "back").symlink_to(home / "other")
    (photos / "broken.jpg").symlink_to(home / "none.jpg")
    (home / "uploads" / "house").symlink_to(photos)
    expected = ["broken.jpg", "file.jpg", "folder/deep/d.jpg", "folder/o.jpg", "real/a.jpg",
                "z.jpg"]  # fmt: skip
    assert listed(store, "house/") == [f"house/{name}" for name in expected]
    with pytest.raises(InvalidInput, match=r"link to .*/none\.jpg, which does not exist"):
        store.read("s3://uploads/house/broken.jpg")


def test_folders_that_say_they_hold_no_photos_are_not_listed(home: Path, store: FileStore) -> None:
    fill(home, "photos/a.jpg", "state/secret.db")
    fill(home / "photos", "out/index.html", "outside.jpg")
    (home / "photos" / "state").symlink_to(home / "state")
    (home / "uploads" / "house").symlink_to(home / "photos")
    assert "house/out/index.html" in listed(store, "house/")
    for folder in (home / "state", home / "photos" / "out"):
        (folder / NOT_PHOTOS).touch()
    assert listed(store, "house/") == ["house/a.jpg", "house/outside.jpg"]


def test_names_that_are_not_utf8_survive(home: Path, store: FileStore) -> None:
    raw = os.fsencode(home / "uploads") + b"/caf\xe9\xff.jpg"
    with open(raw, "wb") as stream:
        stream.write(b"x")
    (found,) = store.list("uploads", "")
    assert found.uri.encode("utf-8", "surrogateescape") == b"s3://uploads/caf\xe9\xff.jpg"
    assert store.read(found.uri) == b"x"
    Path(os.fsdecode(raw)).unlink()
    with pytest.raises(NotFound, match=r"caf\\xe9\\xff"):
        store.read(found.uri)


def test_pipes_and_folders_are_not_objects(home: Path, store: FileStore) -> None:
    os.mkfifo(home / "uploads" / "pipe")
    fill(home / "uploads", "f/a.jpg")
    assert listed(store, "") == ["f/a.jpg"]
    with pytest.raises(InvalidInput, match="not a regular file"):
        store.read("s3://uploads/pipe")
    with pytest.raises(InvalidInput, match="folder"):
        store.read("s3://uploads/f")
    assert store.size("s3://uploads/f") is None
    with pytest.raises(NotFound):
        store.read("s3://uploads/f/a.jpg/b")
    assert store.size("s3://uploads/f/a.jpg/b") is None


def test_a_deep_tree_needs_no_deep_stack(home: Path, store: FileStore) -> None:
    name = "/".join(["d"] * 150) + "/a.jpg"
    fill(home / "uploads", name)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        assert listed(store, "") == [name]
    finally:
        sys.setrecursionlimit(limit)


def failing(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(owner, name, fail)


@pytest.mark.parametrize(
    "failure",
    [
        (errno.ENOSPC, Permanent, "disk is full"),
        (errno.EDQUOT, Permanent, "disk is full"),
        (errno.EROFS, Permanent, "read-only"),
        (errno.EACCES, Permanent, "Permission denied"),
        (errno.EIO, StoreUnavailable, "Input/output error"),
        (errno.ENAMETOOLONG, InvalidInput, "too long"),
    ],
)
def test_failed_writes_name_the_cause_and_leave_the_old_content(
    home: Path,
    store: FileStore,
    monkeypatch: pytest.MonkeyPatch,
    failure: tuple[int, type[Exception], str],
) -> None:
    number, kind, words = failure
    store.write("s3://data/a", b"old")
    failing(monkeypatch, os, "fsync", number)
    with pytest.raises(kind, match=words) as caught:
        store.write("s3://data/a", b"new")
    assert str(home / "data" / "a") in str(caught.value)
    monkeypatch.undo()
    assert store.read("s3://data/a") == b"old"
    assert os.listdir(home / "data") == ["a"]


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.EACCES, InvalidInput), (errno.EIO, InvalidInput), (errno.EMFILE, StoreUnavailable)],
)
def test_unreadable_files(
    home: Path,
    store: FileStore,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[Exception],
) -> None:
    fill(home / "uploads", "a.jpg")
    failing(monkeypatch, Path, "read_bytes", number)
    with pytest.raises(kind, match=os.strerror(number)):
        store.read("s3://uploads/a.jpg")


def test_an_unreadable_folder_is_accounted_for(
    home: Path, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(home / "uploads", "a.jpg", "lost/b.jpg")
    scan, stat = os.scandir, os.stat
    closed = PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def refuse(folder: Path) -> Any:
        if Path(folder).name == "lost":
            raise closed
        return scan(folder)

    def refuse_inside(path: Path, **options: Any) -> Any:
        if Path(path).parent.name == "lost":
            raise closed
        return stat(path, **options)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "stat", refuse_inside)
    assert listed(store, "") == ["a.jpg", "lost"]
    with pytest.raises(InvalidInput, match="folder that cannot be read"):
        store.read("s3://uploads/lost")
    with pytest.raises(InvalidInput, match="Permission denied"):
        listed(store, "lost/")


def test_a_read_only_place(home: Path) -> None:
    # A file where a folder should be: nobody, not even root, can write below it.
    (home / "data").write_bytes(b"")
    store = FileStore({"data": home / "data"})
    with pytest.raises(Permanent, match="cannot be written"):
        store.write("s3://data/a", b"x")
    assert listed(store, "", "data") == []


def test_etag_follows_the_file(home: Path, store: FileStore) -> None:
    fill(home / "uploads", "a.jpg")
    (before,) = store.list("uploads", "")
    os.utime(home / "uploads" / "a.jpg", ns=(1, 1))
    (after,) = store.list("uploads", "")
    assert before.etag != after.etag


def test_own_temporary_files_are_hidden(home: Path, store: FileStore) -> None:
    fill(home / "uploads", ".imageclust-tmp-1-0", ".hidden.jpg")
    assert listed(store, "") == [".hidden.jpg"]
    with pytest.raises(InvalidInput):
        store.write("s3://uploads/.imageclust-tmp-x", b"")


def test_what_a_killed_writer_left_stops_no_other(home: Path) -> None:
    """A container has the same process number each time, and two stores may share a process."""
    names = set()

    class Killed(BaseException):
        pass

    def replace(temporary: Path, _target: Path) -> None:
        names.add(temporary.name)
        raise Killed

    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            patch.setattr(Path, "unlink", lambda *_, **__: None)
            with pytest.raises(Killed):
                FileStore({"data": home / "data"}).write("s3://data/a", b"x")
    assert len(names) == 2
    assert names == set(os.listdir(home / "data"))
    FileStore({"data": home / "data"}).write("s3://data/a", b"y")
    assert (home / "data" / "a").read_bytes() == b"y"


def _write_for_ever(folder: Path) -> None:
    store = FileStore({"data": folder})
    number = 0
    while True:
        store.write(f"s3://data/{number % 3}", bytes([number % 251]) * 200_000)
        number += 1


def test_a_killed_writer_leaves_whole_files(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_write_for_ever, args=(tmp_path / "data",))
    process.start()
    store = FileStore({"data": tmp_path / "data"})
    while store.size("s3://data/2") is None:
        process.join(0.01)
        assert process.is_alive()
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    names = listed(store, "", "data")
    assert names == ["0", "1", "2"]
    for name in names:
        data = store.read(f"s3://data/{name}")
        assert len(data) == 200_000
        assert len(set(data)) == 1
