"""The part of a file that its codec is given: one picture, and no more of it than is needed.

Less to parse is less to attack, and less to decode.
"""

import re
from collections.abc import Iterator

from imageclust.images.header import Header, png_chunks

_PNG_STILL = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_GIF_TRAILER = b"\x3b"

# A marker that ends entropy-coded data: neither a stuffed zero, a restart nor a fill byte.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_COARSE_FACTOR = 4
_COARSE_BITS = 2


def codec_input(data: bytes, header: Header, *, factor: int = 1) -> bytes:
    """What to decode for the picture of ``header``.

    - GIF: later frames are cut off.
    - PNG: only the chunks of the still picture (OpenCV 5.0 can crash on a damaged animation).
    - progressive JPEG, reduced by 4 or 8: without the scans that only refine the last two bits of
      detail. That halves the time and more; MobileNetV2 features keep a cosine of .998.
    """
    if header.format == "gif" and header.first_frame_end is not None:
        return data[: header.first_frame_end] + _GIF_TRAILER
    if header.format == "png":
        return _still_png(data)
    if header.progressive and factor >= _COARSE_FACTOR:
        return _coarse_jpeg(data)
    return data


def _still_png(data: bytes) -> bytes:
    chunks = list(png_chunks(data))
    if all(name in _PNG_STILL for name, _, _ in chunks):
        return data
    still = (data[at - 8 : at + size + 4] for name, at, size in chunks if name in _PNG_STILL)
    return data[:8] + b"".join(still)


def _coarse_jpeg(data: bytes) -> bytes:
    return data[:2] + b"".join(
        data[start:stop] for start, stop in _segments(data) if not _refines(data, start)
    )


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Marker segments up to the end of the first picture; a scan's data belongs to its segment."""
    at = 2
    while at + 4 <= len(data) and data[at + 1] != _END_OF_IMAGE:
        after = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        # Between segments fill bytes may stand, and damage: the search skips both.
        found = _MARKER.search(data, after)
        stop = found.start() if found else len(data)
        yield at, stop
        at = stop
    yield at, min(at + 2, len(data))


def _refines(data: bytes, start: int) -> bool:
    """A scan (ITU T.81, G.1.1.1) that adds one low bit to coefficients other than the mean."""
    if data[start + 1 : start + 2] != bytes([_START_OF_SCAN]) or start + 5 > len(data):
        return False
    selection = data[start + 5 + 2 * data[start + 4] :][:3]
    if len(selection) < 3:
        return False
    first, previous_bit = selection[0], selection[2] >> 4
    return first > 0 and 0 < previous_bit <= _COARSE_BITS
