"""What a run tells its listener, in order."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["entered", "exited", "failed", "retrying", "progress"]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        kind: ``entered``, ``exited``, ``failed`` (no retrier took it; a Catch still may),
            ``retrying``, or ``progress`` of a Map.
        state: the state's name.
        type: its type, for example ``Task``.
        at: Unix seconds by the workflow's clock.
        within: names of the Parallel and Map states around it, outermost first.
        child: in a Map, the index of the child (a batch or an item) the state runs in.
        seconds: since the state was entered; for all but ``entered``.
        error, cause: for ``failed`` and ``retrying``.
        attempt, delay_s: for ``retrying``: which retry this will be (from 1), and the wait.
        done, failed, total: for ``progress``: items finished, items among them that failed, and
            all items. A Map sends one at its start (``done`` 0) and one a finished child.
    """

    kind: Kind
    state: str
    type: str
    at: float
    within: tuple[str, ...] = ()
    child: int | None = None
    seconds: float = 0.0
    error: str = ""
    cause: str = ""
    attempt: int = 0
    delay_s: float = 0.0
    done: int = 0
    failed: int = 0
    total: int = 0


Listener: TypeAlias = Callable[[Event], None]
