"""JSON values, their size and their times, as Step Functions counts and writes them."""

import json
from datetime import UTC, datetime
from typing import TypeAlias

from .errors import DATA_LIMIT, StateError

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

# Step Functions: the most bytes of JSON that a state may take in or give out.
PAYLOAD_LIMIT = 262_144


def to_text(value: JSON) -> str:
    """Compact JSON text. Raises ``TypeError`` or ``ValueError`` for what JSON cannot hold."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def size(value: JSON) -> int:
    """UTF-8 bytes of the value as compact JSON."""
    return _bytes(to_text(value))


def check_size(value: JSON, state: str, what: str) -> str:
    """The text of ``value``; raises ``States.DataLimitExceeded`` when it is over 256 KiB."""
    text = to_text(value)
    # Four bytes is the most that one character takes: most values need no second encoding.
    if len(text) * 4 > PAYLOAD_LIMIT and (bytes_ := _bytes(text)) > PAYLOAD_LIMIT:
        raise StateError(
            DATA_LIMIT,
            f"The state/task '{state}' has {what} of {bytes_} bytes, over the service limit of "
            f"{PAYLOAD_LIMIT} bytes. Pass an S3 address instead.",
        )
    return text


def timestamp(seconds: float) -> str:
    """Unix seconds as the service writes times: UTC, milliseconds, ``Z``."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
