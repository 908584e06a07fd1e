"""Which errors a retrier or a catcher takes, and what an exception is called."""

import json
import random
from collections.abc import Sequence

from .definition import Catcher, Retrier
from .errors import DATA_LIMIT, RUNTIME, TASK_FAILED, TIMEOUT, StateError

_LONGEST_S = 99_999_999


def retry_delay(
    retriers: Sequence[Retrier], used: list[int], error: StateError, jitter: random.Random
) -> float | None:
    """Seconds until the next attempt, or ``None``; counts it against its retrier."""
    for index, retrier in enumerate(retriers):
        if not _matches(retrier.errors, error.error):
            continue
        if used[index] >= retrier.attempts:
            return None
        delay_s = retrier.interval_s
        # Step by step: a power of the rate overflows after many attempts.
        for _ in range(used[index]):
            delay_s *= retrier.backoff
            if delay_s >= (retrier.most_s or _LONGEST_S):
                break
        delay_s = min(delay_s, retrier.most_s or _LONGEST_S)
        used[index] += 1
        return jitter.uniform(0, delay_s) if retrier.jitter else delay_s
    return None


def first_catcher(catchers: Sequence[Catcher], error: StateError) -> Catcher | None:
    return next((c for c in catchers if _matches(c.errors, error.error)), None)


def reported(error: BaseException) -> StateError:
    """The error that Lambda would report for an exception in a handler."""
    if isinstance(error, StateError):
        return StateError(error.error, error.cause)
    name = type(error).__name__ if isinstance(error, Exception) else "Runtime.ExitError"
    return StateError(name, lambda_cause(name, str(error)))


def lambda_cause(name: str, message: str) -> str:
    return json.dumps({"errorMessage": message, "errorType": name}, ensure_ascii=False)


def _matches(names: Sequence[str], error: str) -> bool:
    """Whether ``ErrorEquals`` takes an error.

    ``States.Runtime`` cannot be handled at all; ``States.DataLimitExceeded`` only by its own name;
    ``States.TaskFailed`` takes all but time-outs.
    """
    if error == RUNTIME:
        return False
    if error in names:
        return True
    if error == DATA_LIMIT:
        return False
    return "States.ALL" in names or (TASK_FAILED in names and error != TIMEOUT)
