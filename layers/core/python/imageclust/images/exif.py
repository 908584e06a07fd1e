"""The few facts of an EXIF block that the product uses: orientation, capture time, camera, place.

A reader of its own, because the codecs only hand over pixels, and because EXIF of real photos is
often broken: each fact is read by itself, and one that does not parse is simply absent. Reads
bytes only; never raises on bad input. Source: Exif 2.32 (CIPA DC-008) and TIFF 6.0.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

_MAKE, _MODEL, _ORIENTATION, _DATETIME = 0x010F, 0x0110, 0x0112, 0x0132
_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_ORIGINAL, _DIGITISED, _OFFSET_ORIGINAL = 0x9003, 0x9004, 0x9011
_GPS_LAT_REF, _GPS_LAT, _GPS_LON_REF, _GPS_LON = 1, 2, 3, 4

_ASCII, _SHORT, _LONG, _RATIONAL, _SLONG = 2, 3, 4, 5, 9
_SIZES = {1: 1, _ASCII: 1, _SHORT: 2, _LONG: 4, _RATIONAL: 8, 6: 1, 7: 1, 8: 2, _SLONG: 4, 13: 4}
_MAX_ENTRIES = 512
_MAX_TEXT = 200

_WHEN = re.compile(r"^(\d{4})[:\-/](\d{2})[:\-/](\d{2})[ T](\d{2}):(\d{2}):(\d{2})")
_ZONE = re.compile(r"^[+-]\d{2}:\d{2}$")


@dataclass(frozen=True)
class ExifFacts:
    """What was found; a fact that is absent or does not parse is ``None`` (orientation: 1).

    Args:
        orientation: 1..8 as EXIF defines it.
        captured_at: ISO 8601 local time, with the offset when the camera wrote one.
        camera: maker and model, cleaned.
        gps: (latitude, longitude) in degrees, or None.
    """

    orientation: int = 1
    captured_at: str | None = None
    camera: str | None = None
    gps: tuple[float, float] | None = None


def parse_exif(block: bytes | None) -> ExifFacts:
    """Facts from a TIFF-structured EXIF block (with or without the ``Exif\\0\\0`` prefix)."""
    if not block:
        return ExifFacts()
    if block[:6] in (b"Exif\x00\x00", b"Exif\x00\xff"):
        block = block[6:]
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 8:
        return ExifFacts()
    main = _read_ifd(block, order, _first_offset(block, order))
    photo = _read_ifd(block, order, _integer(main.get(_EXIF_IFD)))
    place = _read_ifd(block, order, _integer(main.get(_GPS_IFD)))
    orientation = _integer(main.get(_ORIENTATION))
    return ExifFacts(
        orientation=orientation if orientation is not None and 1 <= orientation <= 8 else 1,
        captured_at=_captured_at(main, photo),
        camera=_camera(_text(main.get(_MAKE)), _text(main.get(_MODEL))),
        gps=_gps(place),
    )


_Value: TypeAlias = tuple[int, ...] | str | tuple[tuple[int, int], ...]


def _first_offset(block: bytes, order: str) -> int | None:
    magic, offset = struct.unpack_from(order + "HI", block, 2)
    return offset if magic == 42 else None


def _read_ifd(block: bytes, order: str, offset: int | None) -> dict[int, _Value]:
    if offset is None:
        return {}
    return dict(_entries(block, order, offset))


def _entries(block: bytes, order: str, offset: int) -> Iterator[tuple[int, _Value]]:
    if not 0 < offset <= len(block) - 2:
        return
    (count,) = struct.unpack_from(order + "H", block, offset)
    for index in range(min(count, _MAX_ENTRIES)):
        at = offset + 2 + 12 * index
        if at + 12 > len(block):
            return
        tag, kind, number = struct.unpack_from(order + "HHI", block, at)
        size = _SIZES.get(kind, 0) * number
        if size == 0 or size > 65_536:
            continue
        start = at + 8
        if size > 4:
            (start,) = struct.unpack_from(order + "I", block, start)
        raw = block[start : start + size]
        if len(raw) == size:
            value = _value(raw, order, kind, number)
            if value is not None:
                yield tag, value


def _value(raw: bytes, order: str, kind: int, number: int) -> _Value | None:
    if kind == _ASCII:
        return raw.split(b"\x00", 1)[0].decode("utf-8", "replace")
    if kind == _SHORT:
        return struct.unpack(f"{order}{number}H", raw)
    if kind in (_LONG, 13):
        return struct.unpack(f"{order}{number}I", raw)
    if kind == _SLONG:
        return struct.unpack(f"{order}{number}i", raw)
    if kind == _RATIONAL:
        flat = struct.unpack(f"{order}{2 * number}I", raw)
        return tuple(zip(flat[::2], flat[1::2], strict=True))
    return None


def _integer(value: _Value | None) -> int | None:
    if isinstance(value, tuple) and value and isinstance(value[0], int):
        return value[0]
    return None


def _text(value: _Value | None) -> str:
    if not isinstance(value, str):
        return ""
    clean = "".join(
        c if c.isprintable() and c != "\N{REPLACEMENT CHARACTER}" else " " for c in value
    )
    return " ".join(clean.split())[:_MAX_TEXT]


def _camera(make: str, model: str) -> str | None:
    """``Canon`` + ``Canon EOS 5D`` is ``Canon EOS 5D``: most makers repeat their name."""
    first = make.split(" ", 1)[0].lower()
    whole = model if first and model.lower().startswith(first) else f"{make} {model}"
    return whole.strip() or None


def _captured_at(main: dict[int, _Value], photo: dict[int, _Value]) -> str | None:
    for text in (photo.get(_ORIGINAL), photo.get(_DIGITISED), main.get(_DATETIME)):
        match = _WHEN.match(_text(text))
        if match is None:
            continue
        year, month, day, hour, minute, second = (int(part) for part in match.groups())
        plausible = 1800 <= year <= 2200 and 1 <= month <= 12 and 1 <= day <= 31
        if not plausible or hour > 23 or minute > 59 or second > 59:
            continue
        zone = _text(photo.get(_OFFSET_ORIGINAL))
        when = f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        return when + (zone if _ZONE.match(zone) else "")
    return None


def _gps(place: dict[int, _Value]) -> tuple[float, float] | None:
    latitude = _degrees(place.get(_GPS_LAT), _text(place.get(_GPS_LAT_REF)), "S")
    longitude = _degrees(place.get(_GPS_LON), _text(place.get(_GPS_LON_REF)), "W")
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
        return None
    return latitude, longitude


def _degrees(value: _Value | None, side: str, negative: str) -> float | None:
    if not isinstance(value, tuple) or len(value) < 3:
        return None
    total = 0.0
    for part, scale in zip(value, (1, 60, 3600), strict=False):
        if not isinstance(part, tuple) or part[1] == 0:
            return None
        total += part[0] / part[1] / scale
    return round(-total if side.upper() == negative else total, 6)
