"""What a machine provides to a workflow."""

import threading
from collections.abc import Iterable
from typing import Protocol

from .values import JSON


class Resources(Protocol):
    """The functions, jobs and objects that the workflow's tasks and maps use.

    Methods are called from many threads at once. A method fails by raising: the runner takes the
    exception's class name as the error name, as Lambda does, unless it is a
    :class:`~local.runner.errors.StateError`, which names the error itself.
    """

    def invoke(self, function_name: str, payload: JSON) -> JSON:
        """Call a function (``lambda:invoke``); ``payload`` is the caller's own copy."""
        ...

    def submit_job(self, arguments: JSON, *, cancel: threading.Event) -> JSON:
        """Run a batch job to its end (``batch:submitJob.sync``) and give its description.

        ``cancel`` is set when nobody waits any more: a time-out or a stop. End the job then.
        """
        ...

    def read_object(self, bucket: str, key: str) -> Iterable[bytes]:
        """The lines of an object (``s3:getObject``), read as they are asked for."""
        ...

    def write_object(self, bucket: str, key: str, data: bytes) -> None:
        """Store an object (``s3:putObject``)."""
        ...
