"""Events as lines of a file that anyone can follow."""

import os
from datetime import UTC, datetime
from pathlib import Path

from imageclust.errors import Permanent
from imageclust.models import JSON, to_json_lines


class FileEvents:
    """Appends one JSON object a line: time (ISO, UTC), kind, detail."""

    def __init__(self, path: Path) -> None:
        self._path = Path(path)

    def publish(self, kind: str, detail: JSON) -> None:
        """Append one event. Raises Permanent when it could not be written whole."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = to_json_lines([{"time": now, "kind": kind, "detail": detail}])
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # One write to a file opened for appending: lines of several writers never mix.
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                written = os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise Permanent(f"{self._path} cannot be written: {error.strerror}.") from error
        if written != len(line):
            raise Permanent(f"{self._path} cannot be written because the disk is full.")
