"""One picture, once: read, decode, fingerprint, thumbnail."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from imageclust.errors import RejectedImage
from imageclust.images.decode import DEFAULT_LIMITS, DecodeLimits, decode_image
from imageclust.images.fingerprint import Fingerprint, fingerprint
from imageclust.images.scale import Pixels
from imageclust.images.thumbnail import thumbnail

Source = bytes | Path


@dataclass(frozen=True)
class ProcessOptions:
    """What to make of each picture.

    Args:
        min_side: short side of the pixels, see :func:`~imageclust.images.decode.decode_image`.
        thumbnail_side: long side of the thumbnail, or None for no thumbnail.
        gps: keep the place where the picture was taken.
        limits: what one picture may cost.
    """

    min_side: int = 320
    thumbnail_side: int | None = 320
    gps: bool = False
    limits: DecodeLimits = field(default=DEFAULT_LIMITS)


@dataclass(frozen=True, eq=False)
class Processed:
    """Everything that one decode gives.

    Args:
        pixels: (h, w, 3) uint8 RGB, upright, near the size asked for.
        width: full width, upright.
        height: full height, upright.
        format: the format by content.
        frames: frames or pages in the file.
        notes: what the user should know.
        size_bytes: size of the file.
        fingerprint: facts without a model.
        thumbnail: WebP bytes, or None when none was asked for.
    """

    pixels: Pixels
    width: int
    height: int
    format: str
    frames: int
    notes: tuple[str, ...]
    size_bytes: int
    fingerprint: Fingerprint
    thumbnail: bytes | None


def process(source: Source, *, options: ProcessOptions | None = None) -> Processed:
    """Process one picture in this process.

    Raises:
        RejectedImage: with its kind; ``unreadable`` when the file cannot be read.
    """
    options = options or ProcessOptions()
    data = source if isinstance(source, bytes) else _read(source, options.limits)
    decoded = decode_image(data, min_side=options.min_side, limits=options.limits)
    side = options.thumbnail_side
    return Processed(
        pixels=decoded.pixels,
        width=decoded.width,
        height=decoded.height,
        format=decoded.format,
        frames=decoded.frames,
        notes=decoded.notes,
        size_bytes=len(data),
        fingerprint=fingerprint(decoded, data, gps=options.gps),
        thumbnail=None if side is None else thumbnail(decoded, side=side),
    )


def _read(path: Path, limits: DecodeLimits) -> bytes:
    try:
        # Opened without blocking: a pipe or device among the photos must not hold up the run.
        with open(path, "rb", opener=_open_without_waiting) as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise RejectedImage("unreadable", "This is not an ordinary file.")
            if facts.st_size > limits.max_bytes:
                raise RejectedImage(
                    "too-large",
                    f"The file has {facts.st_size:,} bytes; at most {limits.max_bytes:,} are read.",
                )
            return file.read()
    except OSError as error:
        raise RejectedImage(
            "unreadable", f"The file cannot be read: {error.strerror or 'unknown error'}."
        ) from error


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
