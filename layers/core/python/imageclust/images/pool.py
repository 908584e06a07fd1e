"""Many pictures, side by side, none of which can harm the run."""

import io
import json
import os
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import cast

from imageclust.errors import Permanent, RejectedImage
from imageclust.images.messages import options_to_json, processed_from_message, receive, send
from imageclust.images.process import Processed, ProcessOptions, Source, process

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from imageclust.images.worker import main; main()"
)
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_AHEAD = 2


class DecodePool:
    """Decodes in guarded worker processes; a codec's crash, loop or greed costs one picture.

    ::

        with DecodePool() as pool:
            for outcome in pool.map(paths):          # Processed or RejectedImage, in order
                ...

    Workers are fresh interpreters that are reused from picture to picture and replaced when they
    die. A picture whose worker died is rejected as ``crashed``, one that took too long as
    ``timeout``, one that needed too much memory as ``too-large``. The pool is safe to use from
    threads. On Linux memory is limited per process; elsewhere only the estimate from the header
    limits it.

    Args:
        workers: processes; None for one a core, 0 to decode in this process (in a Lambda function,
            where the function's own process is the guard and the batch is retried one by one).
        options: what to make of each picture.
    """

    def __init__(
        self, *, workers: int | None = None, options: ProcessOptions | None = None
    ) -> None:
        if workers is not None and workers < 0:
            raise ValueError(f"workers must be at least 0, not {workers}")
        self._count = _cores() if workers is None else workers
        self._options = options or ProcessOptions()
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(self._count):
            self._idle.put(None)
        self._closed = False

    def __enter__(self) -> "DecodePool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; the pool cannot be used afterwards."""
        if self._closed:
            return
        self._closed = True
        for _ in range(self._count):
            worker = self._idle.get()
            if worker is not None:
                worker.end()
        for _ in range(self._count):
            self._idle.put(None)  # wakes those who wait for a worker

    def process(self, source: Source) -> Processed:
        """One picture; waits for a free worker.

        Raises:
            RejectedImage: also when the picture crashed, timed out or outgrew its worker.
            Permanent: worker processes cannot be started here.
            ValueError: the pool is closed, or was closed before a worker was free.
        """
        self._check_open()
        if self._count == 0:
            return process(source, options=self._options)
        worker = self._idle.get()
        try:
            self._check_open()  # it may have been closed while we waited
            if worker is None or not worker.accepts(source):
                worker = _Worker(self._options)
                worker.accepts(source)
            return worker.answer()
        except RejectedImage:
            raise
        except BaseException:
            # What it answers later must not pass for the answer to the next picture.
            if worker is not None:
                worker.end()
            raise
        finally:
            self._idle.put(worker)

    def map(self, sources: Iterable[Source]) -> Iterator[Processed | RejectedImage]:
        """Outcomes in the order of ``sources``, as they are needed.

        ``sources`` is read only a little ahead of what has been taken, so any number of pictures
        uses the memory of a few.
        """
        if self._count == 0:
            yield from (self._outcome(source) for source in sources)
            return
        running: deque[Future[Processed | RejectedImage]] = deque()
        with ThreadPoolExecutor(self._count, thread_name_prefix="decode") as threads:
            try:
                for source in sources:
                    running.append(threads.submit(self._outcome, source))
                    if len(running) >= self._count * _AHEAD:
                        yield running.popleft().result()
                while running:
                    yield running.popleft().result()
            finally:
                for future in running:
                    future.cancel()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the pool is closed")

    def _outcome(self, source: Source) -> Processed | RejectedImage:
        try:
            return self.process(source)
        except RejectedImage as rejected:
            return rejected


class _Worker:
    """One worker process and the pipes to it; used by one thread at a time."""

    def __init__(self, options: ProcessOptions) -> None:
        self._options = options
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own module
            [sys.executable, "-c", _START, json.dumps([path for path in sys.path if path])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | _ONE_THREAD,
        )
        self._jobs = cast(io.BufferedWriter, self._process.stdin)
        self._answers = cast(io.BufferedReader, self._process.stdout)
        try:
            send(self._jobs, options_to_json(options), [])
            receive(self._answers)
        except (EOFError, BrokenPipeError):
            self.end()
            raise Permanent("The decoder process does not start; see its message above.") from None

    def accepts(self, source: Source) -> bool:
        """Hand over a picture; False when the process had ended before, at no fault of this one."""
        try:
            if isinstance(source, bytes):
                send(self._jobs, {}, [source])
            else:
                send(self._jobs, {"path": os.fsencode(source).hex()}, [])
        except (BrokenPipeError, ValueError):
            self.end()
            return False
        return True

    def answer(self) -> Processed:
        """What became of the picture that was handed over."""
        try:
            message, blocks = receive(self._answers)
        except (EOFError, ValueError):
            self.end()
            raise self._cause_of_death() from None
        if "rejected" in message:
            raise RejectedImage(*message["rejected"])
        return processed_from_message(message, blocks)

    def end(self) -> None:
        for pipe in (self._jobs, self._answers):
            try:
                pipe.close()
            except BrokenPipeError:
                continue
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _cause_of_death(self) -> RejectedImage:
        code = self._process.returncode
        if code in (-signal.SIGPROF, -signal.SIGALRM):
            return RejectedImage(
                "timeout",
                f"Decoding took longer than {self._options.limits.seconds:g} seconds; "
                "the file may be damaged.",
            )
        return RejectedImage("crashed", "The decoder crashed on this file; it is damaged.")


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
