import itertools
import os
import queue
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from imageclust.errors import Permanent, RejectedImage
from imageclust.images import (
    DecodeLimits,
    DecodePool,
    Processed,
    ProcessOptions,
    pool,
    process,
)

from tests.conftest import PATIENCE
from tests.unit.images.pictures import encode, scene

# A worker whose decoder misbehaves on demand: the process dies as it would in a real codec.
_MISBEHAVING = """
import json, os, signal, sys, time
sys.path[:] = json.loads(sys.argv[1])
from imageclust.images import worker
genuine = worker.process
def process(source, *, options):
    if source == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if source == b"abort":
        os.abort()
    if source == b"loop":
        while True:
            pass
    if source == b"hang":
        time.sleep(10_000)
    if source == b"greedy":
        return bytearray(4 * 2**30)
    if source == b"chatty":
        os.write(1, b"noise on standard output")
        os.write(2, b"noise on standard error")
        source = b"not a picture, either"
    return genuine(source, options=options)
worker.process = process
worker._CLOCK_FACTOR = {clock}
worker.main()
"""
_BUSY_MACHINE = _MISBEHAVING.replace("{clock}", "10_000")
_HANGING_DISK = _MISBEHAVING.replace("{clock}", "1")


def _pictures(count: int) -> list[bytes]:
    return [encode(scene(60 + index, 50, seed=index), "png") for index in range(count)]


@pytest.fixture(scope="module")
def shared_pool() -> Iterator[DecodePool]:
    with DecodePool(workers=2) as workers:
        yield workers


def _equal(first: Processed, second: Processed) -> bool:
    return (
        np.array_equal(first.pixels, second.pixels)
        and first.fingerprint == second.fingerprint
        and first.thumbnail == second.thumbnail
        and (first.width, first.height, first.format, first.frames, first.notes, first.size_bytes)
        == (
            second.width,
            second.height,
            second.format,
            second.frames,
            second.notes,
            second.size_bytes,
        )
    )


def test_a_worker_gives_what_this_process_gives(shared_pool: DecodePool, tmp_path: Path) -> None:
    data = encode(scene(640, 480), "jpg")
    path = tmp_path / "photo \N{SNOWMAN}\n.jpg"
    path.write_bytes(data)
    here = process(data)
    assert here.thumbnail is not None
    assert here.size_bytes == len(data)
    for source in (data, path):
        assert _equal(shared_pool.process(source), here)
        assert _equal(process(source), here)


def test_pixels_can_be_written_to(shared_pool: DecodePool) -> None:
    done = shared_pool.process(_pictures(1)[0])
    done.pixels[0, 0] = 0
    assert done.pixels.flags.c_contiguous


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_order_is_kept(workers: int) -> None:
    pictures = [encode(scene(20 + 7 * (i * 5 % 11), 30), "png") for i in range(25)]
    pictures[7] = b"not a picture at all"
    with DecodePool(workers=workers) as decoders:
        outcomes = list(decoders.map(pictures))
    assert len(outcomes) == 25
    for index, outcome in enumerate(outcomes):
        if index == 7:
            assert isinstance(outcome, RejectedImage)
            assert outcome.kind == "not-an-image"
        else:
            assert isinstance(outcome, Processed)
            assert outcome.width == 20 + 7 * (index * 5 % 11)


def test_results_stream_and_the_source_is_read_only_a_little_ahead(
    shared_pool: DecodePool,
) -> None:
    taken = itertools.count()
    picture = _pictures(1)[0]

    def endless() -> Iterator[bytes]:
        while True:
            next(taken)
            yield picture

    stream = shared_pool.map(endless())
    for _ in range(10):
        assert isinstance(next(stream), Processed)
    stream.close()  # type: ignore[attr-defined]
    assert next(taken) <= 10 + 2 * 2


def test_no_sources(shared_pool: DecodePool) -> None:
    assert list(shared_pool.map([])) == []


def test_used_from_several_threads(shared_pool: DecodePool) -> None:
    pictures = _pictures(6)
    widths: list[int] = []

    def work() -> None:
        widths.extend(shared_pool.process(picture).width for picture in pictures)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(widths) == sorted([60 + i for i in range(6)] * 4)


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (b"crash", "crashed"),
        (b"abort", "crashed"),
        (b"loop", "timeout"),
        (b"greedy", "too-large"),
        (b"chatty", "not-an-image"),
    ],
)
def test_a_misbehaving_decoder_costs_one_picture(
    bad: bytes, kind: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pool, "_START", _BUSY_MACHINE)
    options = ProcessOptions(limits=DecodeLimits(seconds=1.5, memory_mb=512))
    pictures = _pictures(4)
    pictures.insert(2, bad)
    with DecodePool(workers=2, options=options) as decoders:
        outcomes = list(decoders.map(pictures))
    for index, outcome in enumerate(outcomes):
        if index == 2:
            assert isinstance(outcome, RejectedImage)
            assert outcome.kind == kind
        else:
            assert isinstance(outcome, Processed)
    assert capfd.readouterr() == ("", "")


def test_a_file_system_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_START", _HANGING_DISK)
    options = ProcessOptions(limits=DecodeLimits(seconds=0.5))
    with DecodePool(workers=1, options=options) as decoders:
        with pytest.raises(RejectedImage) as rejected:
            decoders.process(b"hang")
        assert rejected.value.kind == "timeout"


def test_a_worker_killed_while_idle_costs_nothing() -> None:
    picture = _pictures(1)[0]
    with DecodePool(workers=1) as decoders:
        assert decoders.process(picture).width == 60
        worker = decoders._idle.get()
        decoders._idle.put(worker)
        assert worker is not None
        os.kill(worker._process.pid, signal.SIGKILL)
        worker._process.wait()
        assert decoders.process(picture).width == 60


def test_codecs_print_nothing_on_the_terminal(
    shared_pool: DecodePool, capfd: pytest.CaptureFixture[str]
) -> None:
    damaged = bytearray(encode(scene(200, 150), "jpg"))
    damaged[len(damaged) // 2 : len(damaged) // 2 + 20] = b"\xff\xd0" * 10
    png = bytearray(encode(scene(200, 150), "png"))
    png[len(png) // 2] ^= 0xFF
    list(shared_pool.map([bytes(damaged), bytes(png)]))
    assert capfd.readouterr() == ("", "")


def test_no_process_is_left_behind() -> None:
    with DecodePool(workers=2) as decoders:
        list(decoders.map(_pictures(6)))
        held = [decoders._idle.get() for _ in range(2)]
        for worker in held:
            decoders._idle.put(worker)
    assert any(held)
    for worker in held:
        assert worker is None or worker._process.returncode is not None
    with pytest.raises(ValueError, match="closed"):
        decoders.process(_pictures(1)[0])
    decoders.close()


def test_closing_wakes_those_who_wait_for_a_worker() -> None:
    """A run that is stopped leaves threads behind; none may wait for ever."""
    decoders = DecodePool(workers=1)
    only, entered = decoders._idle.get(), threading.Semaphore(0)
    genuine = decoders._idle.get

    def get() -> object:
        entered.release()
        return genuine()

    decoders._idle.get = get  # type: ignore[assignment,method-assign]
    outcomes: queue.Queue[str] = queue.Queue()

    def work() -> None:
        try:
            decoders.process(b"no matter what")
        except ValueError as error:
            outcomes.put(str(error))

    for target in (work, work, decoders.close):
        threading.Thread(target=target, daemon=True).start()
        entered.acquire()
    decoders._idle.put(only)
    assert [outcomes.get(timeout=PATIENCE) for _ in range(2)] == ["the pool is closed"] * 2


def test_an_answer_that_was_not_taken_is_not_the_next_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = _pictures(2)
    with DecodePool(workers=1) as decoders:
        assert decoders.process(first).width == 60
        with monkeypatch.context() as patch:

            def interrupted(_stream: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(pool, "receive", interrupted)
            with pytest.raises(KeyboardInterrupt):
                decoders.process(first)
        assert decoders.process(second).width == 61


def test_workers_that_cannot_start_are_reported(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pool, "_START", "raise SystemExit('broken on purpose')")
    with DecodePool(workers=1) as decoders, pytest.raises(Permanent, match="does not start"):
        decoders.process(_pictures(1)[0])
    assert "broken on purpose" in capfd.readouterr().err


def test_options_reach_the_workers() -> None:
    options = ProcessOptions(
        min_side=64, thumbnail_side=None, limits=DecodeLimits(max_pixels=100_000)
    )
    with DecodePool(workers=1, options=options) as decoders:
        small = decoders.process(encode(scene(300, 200), "jpg"))
        assert small.pixels.shape == (64, 96, 3)
        assert small.thumbnail is None
        with pytest.raises(RejectedImage, match="megapixels"):
            decoders.process(encode(scene(400, 300), "png"))


def test_what_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "large").write_bytes(b"\xff" * 2000)
    options = ProcessOptions(limits=DecodeLimits(max_bytes=1000))
    for name, kind in [
        ("missing", "unreadable"),
        ("pipe", "unreadable"),
        ("folder", "unreadable"),
        ("large", "too-large"),
    ]:
        with pytest.raises(RejectedImage) as rejected:
            process(tmp_path / name, options=options)
        assert rejected.value.kind == kind
        assert str(tmp_path) not in rejected.value.reason


def test_worker_count_is_checked() -> None:
    with pytest.raises(ValueError, match="workers"):
        DecodePool(workers=-1)
