"""Test pictures, made here: no file is committed and none is anybody's photo."""

import struct
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def scene(width: int, height: int, *, seed: int = 0) -> Pixels:
    """A smooth coloured scene with a few shapes, RGB; every corner has its own colour."""
    rng = np.random.default_rng(seed)
    x = np.linspace(0, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    red, green, blue = 40 + 180 * x + 0 * y, 60 + 150 * y + 0 * x, 220 - 170 * x * y
    picture = np.stack([red, green, blue], axis=2).astype(np.uint8)
    for _ in range(6):
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        radius = max(1, int(rng.uniform(0.05, 0.15) * min(width, height)))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        cv2.circle(picture, centre, radius, colour, -1, cv2.LINE_AA)
    return picture


def encode(rgb: npt.NDArray[Any], extension: str, *options: int) -> bytes:
    """RGB, grey or RGBA pixels, 8 or 16 bits, as a file of this extension."""
    swap = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    pixels = rgb if rgb.ndim == 2 else cv2.cvtColor(rgb, swap[rgb.shape[2]])
    done, encoded = cv2.imencode(f".{extension}", pixels, list(options))
    assert done
    return bytes(encoded)


def exif_block(
    *,
    orientation: int | None = None,
    texts: dict[int, str] | None = None,
    photo: dict[int, str] | None = None,
    gps: tuple[float, float] | None = None,
    order: str = "<",
) -> bytes:
    """A TIFF-structured EXIF block with the given tags."""
    main: list[tuple[int, int, int, bytes]] = []
    if orientation is not None:
        main.append((0x0112, 3, 1, struct.pack(order + "HH", orientation, 0)))
    main += [_ascii(tag, text) for tag, text in (texts or {}).items()]
    blocks: list[tuple[int, list[tuple[int, int, int, bytes]]]] = []
    if photo:
        blocks.append((0x8769, [_ascii(tag, text) for tag, text in photo.items()]))
    if gps:
        blocks.append((0x8825, _gps_entries(gps, order)))
    body = b""
    size = 2 + 12 * (len(main) + len(blocks)) + 4
    at = 8 + size + sum(len(v) for _, _, _, v in main if len(v) > 4)
    for pointer, entries in blocks:
        packed = _directory(entries, order, at)
        main.append((pointer, 4, 1, struct.pack(order + "I", at)))
        body += packed
        at += len(packed)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return head + _directory(main, order, 8) + body


def _ascii(tag: int, text: str) -> tuple[int, int, int, bytes]:
    raw = text.encode() + b"\x00"
    return tag, 2, len(raw), raw


def _gps_entries(gps: tuple[float, float], order: str) -> list[tuple[int, int, int, bytes]]:
    entries = []
    for tag, value, sides in ((1, gps[0], "NS"), (3, gps[1], "EW")):
        entries.append(_ascii(tag, sides[value < 0]))
        seconds = round(abs(value) * 3600 * 100)
        raw = struct.pack(order + "6I", 0, 1, 0, 1, seconds, 100)
        entries.append((tag + 1, 5, 3, raw))
    return entries


def _directory(entries: list[tuple[int, int, int, bytes]], order: str, at: int) -> bytes:
    table, extra = struct.pack(order + "H", len(entries)), b""
    after = at + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in entries:
        if len(value) > 4:
            field = struct.pack(order + "I", after + len(extra))
            extra += value
        else:
            field = value.ljust(4, b"\x00")
        table += struct.pack(order + "HHI", tag, kind, count) + field
    return table + struct.pack(order + "I", 0) + extra


def with_exif(jpeg: bytes, block: bytes) -> bytes:
    """A JPEG with this EXIF block as its first segment."""
    payload = b"Exif\x00\x00" + block
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


def png_chunk(name: bytes, payload: bytes) -> bytes:
    check = zlib.crc32(name + payload)
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", check)


def png_with(png: bytes, name: bytes, payload: bytes) -> bytes:
    """A PNG with one more chunk straight after its header chunk."""
    return png[:33] + png_chunk(name, payload) + png[33:]


def png_header_only(width: int, height: int, *, bits: int = 8, colour: int = 2) -> bytes:
    """The first chunks of a PNG that claims this size; a few bytes, whatever it claims."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(b"\x00" * 64))
        + png_chunk(b"IEND", b"")
    )


def upright_of(rgb: Pixels, orientation: int) -> Pixels:
    """How a stored picture must be shown for an EXIF orientation (CIPA DC-008, table 6)."""
    turned = {
        1: rgb,
        2: np.fliplr(rgb),
        3: np.rot90(rgb, 2),
        4: np.flipud(rgb),
        5: rgb.transpose(1, 0, 2),
        6: np.rot90(rgb, -1),
        7: np.rot90(rgb, 2).transpose(1, 0, 2),
        8: np.rot90(rgb, 1),
    }
    return turned[orientation]
