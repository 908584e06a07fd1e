"""What can go wrong in the runner, as one tree.

::

    ImageclustError
    ├── InvalidInput
    │   └── InvalidDefinition   the workflow file uses a field or feature the runner does not know
    └── Permanent
        ├── StateError          a state failed: an error name and a cause, as in Step Functions
        ├── TaskDoesNotExist    no task ever had this token
        └── TaskTimedOut        the task of this token is over
"""

from imageclust.errors import InvalidInput, Permanent

DATA_LIMIT = "States.DataLimitExceeded"
ITEM_READER = "States.ItemReaderFailed"
QUERY = "States.QueryEvaluationError"
RESULT_WRITER = "States.ResultWriterFailed"
RUNTIME = "States.Runtime"
TASK_FAILED = "States.TaskFailed"
TIMEOUT = "States.Timeout"
TOLERATED = "States.ExceedToleratedFailureThreshold"

# The length at which Step Functions cuts a cause.
_MAX_CAUSE = 32_768


class InvalidDefinition(InvalidInput):
    """The workflow file is wrong or uses something outside the subset; names state and field."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(f"{where}: {message}")
        self.where = where
        self.message = message

    def __reduce__(self) -> tuple[type["InvalidDefinition"], tuple[str, str]]:
        return (type(self), (self.where, self.message))


class StateError(Permanent):
    """A state failed.

    Resources raise it themselves when the error name is not a Python class
    (``Lambda.TooManyRequestsException``); for any other exception the runner takes the class name,
    as Lambda does.

    Args:
        error: the error name that ``ErrorEquals`` is compared with.
        cause: the reason, for people; cut at 32,768 characters as the service does.
    """

    def __init__(self, error: str, cause: str = "") -> None:
        super().__init__(f"{error}: {cause}" if cause else error)
        self.error = error
        self.cause = cause[:_MAX_CAUSE]

    def __reduce__(self) -> tuple[type["StateError"], tuple[str, str]]:
        return (type(self), (self.error, self.cause))


class TaskDoesNotExist(Permanent):
    """No task ever had this token."""


class TaskTimedOut(Permanent):
    """The task of this token has ended: it was answered, timed out or was stopped."""
