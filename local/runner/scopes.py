"""Threads that can be left behind, and waits that a stop wakes.

Python cannot kill a thread. So every task runs on a daemon thread of :class:`Workers`, and the
thread that needs the answer waits inside a :class:`Scope`. Stopping a scope wakes all its waits at
once; the task's thread is abandoned, its late answer is dropped, and the process can still exit.
This is what happens on AWS too: a stopped execution does not stop the Lambda function it called.
"""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")

# How long a failed group waits for its other threads to leave their waits.
_UNWIND_S = 1.0

# How long Ctrl-C goes unnoticed at most.
_PIECE_S = 0.2


class Stopped(Exception):
    """Raised in a thread whose scope was stopped."""


class Scope:
    """A part of an execution that can be stopped with everything below it.

    Args:
        parent: the scope around this one; stopping it stops this one.
    """

    def __init__(self, parent: "Scope | None" = None) -> None:
        self._lock = threading.Lock()
        self._wake: set[threading.Event] = set()
        self._children: set[Scope] = set()
        self._parent = parent
        self._stopped = False
        if parent is not None:
            parent._adopt(self)

    @property
    def stopped(self) -> bool:
        return self._stopped

    def check(self) -> None:
        """Raise :class:`Stopped` if this scope was stopped."""
        if self._stopped:
            raise Stopped

    def stop(self) -> None:
        """Stop this scope and all below it; safe from any thread, any number of times."""
        with self._lock:
            self._stopped = True
            waiting, self._wake = self._wake, set()
            children, self._children = self._children, set()
        for event in waiting:
            event.set()
        for child in children:
            child.stop()

    def close(self) -> None:
        """Forget a scope whose work is done, so that its parent does not hold it."""
        if self._parent is not None:
            with self._parent._lock:
                self._parent._children.discard(self)

    def watch(self, event: threading.Event) -> None:
        """Set ``event`` when the scope is stopped (at once if it already is)."""
        with self._lock:
            if not self._stopped:
                self._wake.add(event)
                return
        event.set()

    def unwatch(self, event: threading.Event) -> None:
        with self._lock:
            self._wake.discard(event)

    def wait(self, event: threading.Event, timeout_s: float | None = None) -> None:
        """Wait until ``event`` is set or ``timeout_s`` passed; raise :class:`Stopped` on a stop.

        The event is also set by a stop, so callers must look at what they wait for, not at it.
        """
        self.watch(event)
        try:
            if threading.current_thread() is threading.main_thread():
                _wait_in_pieces(event, timeout_s)
            else:
                event.wait(timeout_s)
        finally:
            self.unwatch(event)
        self.check()

    def _adopt(self, child: "Scope") -> None:
        with self._lock:
            if not self._stopped:
                self._children.add(child)
                return
        child.stop()


def _wait_in_pieces(event: threading.Event, timeout_s: float | None) -> None:
    """Wait as ``event.wait`` does, but look about now and then: Ctrl-C does not end a wait of
    Python's main thread that begins just after it."""
    end = None if timeout_s is None else time.monotonic() + timeout_s
    while not event.wait(_PIECE_S if end is None else min(_PIECE_S, end - time.monotonic())):
        if end is not None and time.monotonic() >= end:
            return


class Job(Generic[T]):
    """One call on a worker thread."""

    def __init__(self, call: Callable[[], T], after: Callable[[], None] | None) -> None:
        self._call = call
        self._after = after
        self._value: list[T] = []
        self.error: BaseException | None = None
        self.done = False
        self.event = threading.Event()

    def run(self) -> None:
        try:
            self._value.append(self._call())
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread
            self.error = error
        self.done = True
        if self._after is not None:
            self._after()
        self.event.set()

    def result(self) -> T:
        """The value of the call; raises what it raised. Only after ``done``."""
        if self.error is not None:
            raise self.error
        return self._value[0]


class Workers:
    """Daemon threads, made when needed and used again.

    Unlike ``concurrent.futures`` they never keep the process from exiting. There is no bound here:
    the engine bounds what it starts.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[Job[object] | None]] = []
        self._closed = False

    def start(self, call: Callable[[], T], after: Callable[[], None] | None = None) -> Job[T]:
        """Run ``call`` on a thread; ``after`` runs there once it has ended, whatever came of it."""
        job = Job(call, after)
        with self._lock:
            inbox = self._idle.pop() if self._idle else None
        if inbox is None:
            inbox = SimpleQueue()
            threading.Thread(
                target=self._serve, args=(inbox,), name="workflow-worker", daemon=True
            ).start()
        inbox.put(job)  # type: ignore[arg-type]  # Job is invariant, the queue only runs it
        return job

    def close(self) -> None:
        """Let idle threads end; busy ones end after their call."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for inbox in idle:
            inbox.put(None)

    def _serve(self, inbox: "SimpleQueue[Job[object] | None]") -> None:
        while True:
            job = inbox.get()
            if job is None:
                return
            job.run()
            del job  # an idle thread must not keep the last result alive
            with self._lock:
                if self._closed:
                    return
                self._idle.append(inbox)


class Slots:
    """The machine's limit on tasks that run at once, whatever map or branch they belong to."""

    def __init__(self, count: int) -> None:
        self._free = threading.Semaphore(count)

    def take(self, scope: Scope) -> Callable[[], None]:
        """Wait for a slot; returns what gives it back, which may be called more than once."""
        while not self._free.acquire(timeout=0.2):
            scope.check()
        lock = threading.Lock()
        held = [True]

        def give_back() -> None:
            with lock:
                if held:
                    held.clear()
                    self._free.release()

        return give_back


def together(workers: Workers, outer: Scope, calls: Sequence[Callable[[Scope], T]]) -> list[T]:
    """Run calls at once and give their results; the first that fails stops the others."""
    scope = Scope(outer)
    lock = threading.Lock()
    settled, ended = threading.Event(), threading.Event()
    results: dict[int, T] = {}
    failures: list[BaseException] = []
    left = [len(calls)]

    def one(index: int, call: Callable[[Scope], T]) -> None:
        try:
            value = call(scope)
            with lock:
                results[index] = value
        except BaseException as error:  # noqa: BLE001 - raised again by the waiting thread
            with lock:
                failures.append(error)
            settled.set()
        with lock:
            left[0] -= 1
            last = left[0] == 0
        if last:
            ended.set()
            settled.set()

    try:
        for index, call in enumerate(calls):
            workers.start(partial(one, index, call))
        scope.wait(settled)
        if failures:
            scope.stop()
            ended.wait(_UNWIND_S)
            raise failures[0]
        return [results[index] for index in range(len(calls))]
    finally:
        scope.stop()
        scope.close()
