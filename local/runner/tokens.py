"""Task tokens: the answers to ``.waitForTaskToken`` tasks, from any thread."""

import secrets
import threading
from collections import OrderedDict

from .errors import StateError, TaskDoesNotExist, TaskTimedOut
from .values import JSON

# How many ended tokens are remembered, so that a late answer is told from a wrong one.
_REMEMBERED = 10_000


class WaitingTask:
    """A task that waits for its token to come back."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.event = threading.Event()
        self.answered = False
        self.output: JSON = None
        self.failure: BaseException | None = None


class TokenBroker:
    """Hands out tokens and takes their answers, like ``SendTaskSuccess`` and its siblings.

    Errors: :class:`TaskDoesNotExist` for a token that was never handed out and
    :class:`TaskTimedOut` for one whose task has ended.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, WaitingTask] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()

    def open(self) -> WaitingTask:
        """A new token, for the runner."""
        task = WaitingTask(secrets.token_urlsafe(32))
        with self._lock:
            self._waiting[task.token] = task
        return task

    def close(self, task: WaitingTask) -> None:
        """The task is over: later answers raise :class:`TaskTimedOut`."""
        with self._lock:
            self._end(task.token)

    def send_task_success(self, token: str, output: JSON) -> None:
        """End the task of ``token`` with ``output`` (a JSON value, not its text)."""
        self._answer(token, output, None)

    def send_task_failure(self, token: str, error: str = "", cause: str = "") -> None:
        """Fail the task of ``token`` with an error name and a cause."""
        self._answer(token, None, StateError(error, cause))

    def fail(self, task: WaitingTask, failure: BaseException) -> None:
        """The call that was to carry the token failed; no answer will come."""
        with self._lock:
            if task.token in self._waiting:
                task.failure = failure
                task.answered = True
                self._end(task.token)
                task.event.set()

    def _answer(self, token: str, output: JSON, failure: BaseException | None) -> None:
        with self._lock:
            task = self._find(token)
            task.output, task.failure, task.answered = output, failure, True
            self._end(token)
            task.event.set()

    def _find(self, token: str) -> WaitingTask:
        task = self._waiting.get(token)
        if task is not None:
            return task
        if token in self._ended:
            raise TaskTimedOut("the task of this token has already ended")
        raise TaskDoesNotExist("no task has this token")

    def _end(self, token: str) -> None:
        if self._waiting.pop(token, None) is not None:
            self._ended[token] = None
            while len(self._ended) > _REMEMBERED:
                self._ended.popitem(last=False)
