"""Requests at a steady rate, and retries that keep to it."""

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from imageclust.errors import InvalidInput, Retryable, Throttled
from imageclust.ports import never

_T = TypeVar("_T")

# Fifty times slower is slow enough for the smallest quota. The share of throttled requests is over
# the latest twenty or so: at one in twenty it passes a seventh hardly ever.
_SLOWER, _FASTER, _SLOWEST = 1.1, 0.99, 50.0
_MOST_THROTTLED, _MEMORY = 1 / 7, 0.95


class Pace:
    """Lets threads through one by one, ``per_second`` of them, with no burst after a pause.

    While more than about a seventh of the latest requests of ``call`` are throttled, turns come at
    longer intervals, until they are not: a quota below ``per_second`` is found that way, and a few
    throttled ones cost no speed.

    Args:
        per_second: requests a second, above 0.
        clock: monotonic seconds.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not per_second > 0:
            raise InvalidInput(f"The rate must be above 0 requests a second, not {per_second}.")
        self._interval = 1 / per_second
        self._clock = clock
        self.sleep = sleep
        self._lock = threading.Lock()
        self._next = clock()
        self._slower = 1.0
        self._throttled = 0.0

    def wait(self) -> None:
        """Return when it is this caller's turn."""
        with self._lock:
            now = self._clock()
            turn = max(now, self._next)
            self._next = turn + self._interval * self._slower
        if turn > now:
            self.sleep(turn - now)

    def call(
        self,
        action: Callable[[], _T],
        *,
        attempts: int,
        out_of_time: Callable[[], bool] = never,
    ) -> _T:
        """``action()`` in its turn; a Retryable error is tried again, each time in a new turn,
        unless ``out_of_time()``.

        Between attempts the thread also backs off with full jitter, up to 5 s. The last error is
        raised.
        """
        for attempt in range(1, attempts):
            self.wait()
            try:
                answer = action()
            except Retryable as error:
                self._adapt(throttled=isinstance(error, Throttled))
                if out_of_time():
                    raise
                self.sleep(random.uniform(0, min(5.0, 0.1 * 2**attempt)))  # noqa: S311
            else:
                self._adapt(throttled=False)
                return answer
        self.wait()
        return action()

    def _adapt(self, *, throttled: bool) -> None:
        with self._lock:
            self._throttled = _MEMORY * self._throttled + (1 - _MEMORY) * throttled
            if throttled and self._throttled > _MOST_THROTTLED:
                self._slower = min(_SLOWEST, self._slower * _SLOWER)
            elif not throttled:
                self._slower = max(1.0, self._slower * _FASTER)
