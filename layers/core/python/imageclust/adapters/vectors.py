"""What both vector indexes accept: the limits of S3 Vectors, checked in one place."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imageclust.errors import InvalidInput
from imageclust.late import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_DIMENSION = 4096
MAX_TOP_K = 10_000
#: Metadata that is kept but cannot be filtered by; S3 Vectors fixes these when it makes an index.
NON_FILTERABLE = ("image_id", "title", "uri")
_MAX_METADATA_BYTES = 40 * 1024
_MAX_FILTERABLE_BYTES = 2 * 1024
_BLOCK_ROWS = 16_384
_FIELD = re.compile(r"[A-Za-z0-9_.-]{1,63}")
_INDEX = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def check_index(index: str, dimension: int) -> None:
    """Raise InvalidInput unless S3 Vectors could hold such an index."""
    if not _INDEX.fullmatch(index):
        raise InvalidInput(
            f"{index!r} cannot name a vector index: use 3 to 63 lower-case letters, digits, "
            "dots and hyphens, with a letter or digit at each end."
        )
    if not 1 <= dimension <= MAX_DIMENSION:
        raise InvalidInput(f"Vectors have 1 to {MAX_DIMENSION} dimensions, not {dimension}.")


def check_vectors(
    ids: Sequence[str], vectors: NDArray[Any], metadata: Sequence[object], *, dimension: int
) -> NDArray[np.float32]:
    """``(n, dimension)`` float32 rows fit to be put; InvalidInput says what is wrong."""
    rows = np.asarray(vectors, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != dimension:
        raise InvalidInput(f"The index takes vectors of {dimension} dimensions, not {rows.shape}.")
    if not len(ids) == len(rows) == len(metadata):
        raise InvalidInput(
            f"{len(ids)} ids, {len(rows)} vectors and {len(metadata)} metadata do not pair up."
        )
    # In blocks, so that a million rows need no mask of their own size.
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        if not np.isfinite(block).all() or not block.any(axis=1).all():
            raise InvalidInput("A vector of zeros, NaN or infinity has no direction to compare.")
    return rows


def check_query(vector: NDArray[Any], *, dimension: int, top_k: int) -> NDArray[np.float32]:
    """The query as a unit vector ``(dimension,)`` float32."""
    if not 1 <= top_k <= MAX_TOP_K:
        raise InvalidInput(f"A query returns 1 to {MAX_TOP_K} matches, not {top_k}.")
    aim = np.asarray(vector, dtype=np.float64)
    if aim.shape != (dimension,):
        raise InvalidInput(f"The index takes vectors of {dimension} dimensions, not {aim.shape}.")
    length = float(np.linalg.norm(aim))
    if not np.isfinite(length) or length == 0:
        raise InvalidInput("A vector of zeros, NaN or infinity has no direction to compare.")
    return np.asarray(aim / length, dtype=np.float32)


def check_metadata(metadata: Mapping[str, Any]) -> str:
    """The metadata of one vector as JSON text; InvalidInput for what S3 Vectors would refuse.

    Values are text, numbers, booleans, or lists of them.
    """
    for name, value in metadata.items():
        parts = value if isinstance(value, list | tuple) else [value]
        if not _FIELD.fullmatch(name) or not all(isinstance(p, str | int | float) for p in parts):
            raise InvalidInput(
                f"Metadata {name!r} must be text, a number, a boolean or a list of them."
            )
    try:
        text = json.dumps(metadata, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise InvalidInput(f"The metadata of a vector is not JSON: {error}.") from error
    if len(text) <= _MAX_FILTERABLE_BYTES:
        return text
    filterable = {name: value for name, value in metadata.items() if name not in NON_FILTERABLE}
    open_size = len(json.dumps(filterable, separators=(",", ":")))
    if len(text) > _MAX_METADATA_BYTES or open_size > _MAX_FILTERABLE_BYTES:
        raise InvalidInput(
            f"The metadata of a vector takes {len(text)} bytes, {open_size} of them to filter by; "
            f"the limits are {_MAX_METADATA_BYTES} and {_MAX_FILTERABLE_BYTES}."
        )
    return text


def check_filter(where: Mapping[str, Any]) -> None:
    """Raise InvalidInput unless every test compares a filterable field with one value."""
    for name, value in where.items():
        if not _FIELD.fullmatch(name) or name in NON_FILTERABLE:
            raise InvalidInput(f"Vectors cannot be filtered by {name!r}.")
        if not isinstance(value, str | int | float):
            raise InvalidInput(f"A filter compares {name} with text, a number or a boolean.")
