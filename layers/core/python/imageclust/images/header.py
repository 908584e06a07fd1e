"""What a file says about itself, read from its first bytes and before any pixel is decoded.

The type is decided by content, never by a name. Each reader walks the container's own structure
with every offset checked, allocates nothing that the file asks for, and stops after a bounded
number of steps, so that dimensions can be refused before a codec sees the bytes.

Sources: ITU T.81 (JPEG), W3C PNG 3rd edition, GIF89a, RFC 9649 (WebP), TIFF 6.0 and BigTIFF,
ISO/IEC 14496-12 and 23008-12 (AVIF, HEIC), ISO/IEC 15444-1 (JPEG 2000).
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from imageclust.errors import RejectedImage
from imageclust.images.exif import parse_exif

_MAX_STEPS = 200_000
_MAX_EXIF = 8 * 2**20


@dataclass(frozen=True)
class Header:
    """Facts of the container, before decoding.

    Args:
        format: ``jpeg``, ``png``, ``webp``, ``gif``, ``tiff``, ``bmp``, ``avif``, ``heic`` or
            ``jp2``.
        width: stored pixels across, before orientation.
        height: stored pixels down, before orientation.
        channels: colour and alpha channels that a decoder has to hold.
        bits: bits a channel (at least 8 are counted when memory is estimated).
        alpha: the file may be see-through.
        frames: pictures of an animation, or pages.
        orientation: 1..8, to be applied after the codec; 1 where the codec does it (TIFF, HEIC).
        exif: the raw EXIF block, if one was found.
        complete: False when the container plainly ends too early.
        progressive: a JPEG whose coefficients are all held in memory at once.
        first_frame_end: of a GIF, the offset after its first frame; later frames are not decoded.
        clear_grey: of a grey PNG, the decoded value that stands for nothing; codecs pass it over.
        premultiplied: the decoded colours of a see-through picture are multiplied by its alpha.
    """

    format: str
    width: int
    height: int
    channels: int = 3
    bits: int = 8
    alpha: bool = False
    frames: int = 1
    orientation: int = 1
    exif: bytes | None = None
    complete: bool = True
    progressive: bool = False
    first_frame_end: int | None = None
    clear_grey: int | None = None
    premultiplied: bool = False


def read_header(data: bytes) -> Header:
    """Name the format and its dimensions.

    Raises:
        RejectedImage: ``empty``, ``not-an-image`` (a page, a document, a video, text),
            ``unsupported`` (a picture format that is not read here), ``truncated`` or ``corrupt``
            (the header itself cannot be read).
    """
    if not data:
        raise RejectedImage("empty", "The file is empty.")
    reader = _reader_of(data)
    if reader is None:
        kind, reason = _refusal(data)
        raise RejectedImage(kind, reason)
    try:
        return reader(data)
    except (struct.error, IndexError, OverflowError):
        raise RejectedImage(
            "truncated", "The file ends before its header does; it is cut short."
        ) from None


def _reader_of(data: bytes) -> Callable[[bytes], Header] | None:
    head = data[:16]
    if head[:3] == b"\xff\xd8\xff":
        return _jpeg
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return _png
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return _gif
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _webp
    if head[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"):
        return _tiff
    if head[:2] == b"BM" and len(data) > 18 and struct.unpack_from("<I", data, 14)[0] in _BMP_SIZES:
        return _bmp
    if head[:12] == b"\x00\x00\x00\x0cjP  \r\n\x87\n" or head[:4] == b"\xff\x4f\xff\x51":
        return _jp2
    if head[4:8] == b"ftyp" and _brands(data) & (_AVIF_BRANDS | _HEIC_BRANDS):
        return _heif
    return None


# ── what is refused, and how it is called ────────────────────────────────────────────────────────

_REFUSED: tuple[tuple[bytes, int, str, str], ...] = (
    (b"%PDF", 0, "not-an-image", "a PDF document"),
    (b"%!PS", 0, "not-an-image", "a PostScript document"),
    (b"PK\x03\x04", 0, "not-an-image", "a ZIP archive"),
    (b"PK\x05\x06", 0, "not-an-image", "an empty ZIP archive"),
    (b"\x1f\x8b", 0, "not-an-image", "a gzip archive"),
    (b"Rar!", 0, "not-an-image", "a RAR archive"),
    (b"7z\xbc\xaf\x27\x1c", 0, "not-an-image", "a 7-Zip archive"),
    (b"SQLite format 3\x00", 0, "not-an-image", "a database"),
    (b"\x7fELF", 0, "not-an-image", "a program"),
    (b"MZ", 0, "not-an-image", "a program"),
    (b"ID3", 0, "not-an-image", "a sound file"),
    (b"OggS", 0, "not-an-image", "a sound or video file"),
    (b"fLaC", 0, "not-an-image", "a sound file"),
    (b"\x1aE\xdf\xa3", 0, "not-an-image", "a video"),
    (b"\x00\x00\x01\xba", 0, "not-an-image", "a video"),
    (b"WAVE", 8, "not-an-image", "a sound file"),
    (b"AVI ", 8, "not-an-image", "a video"),
    (b"DICM", 128, "unsupported", "a DICOM medical picture"),
    (b"#?RADIANCE", 0, "unsupported", "a Radiance HDR picture"),
    (b"#?RGBE", 0, "unsupported", "a Radiance HDR picture"),
    (b"\x76\x2f\x31\x01", 0, "unsupported", "an OpenEXR picture"),
    (b"8BPS", 0, "unsupported", "a Photoshop document"),
    (b"\x01\xda", 0, "unsupported", "an SGI picture"),
    (b"\x08\xf2\xa6\xb6", 0, "unsupported", "a vips working file"),
    (b"\xb6\xa6\xf2\x08", 0, "unsupported", "a vips working file"),
    (b"\xff\x0a", 0, "unsupported", "a JPEG XL picture"),
    (b"\x00\x00\x00\x0cJXL ", 0, "unsupported", "a JPEG XL picture"),
    (b"II\xbc\x01", 0, "unsupported", "a JPEG XR picture"),
    (b"\x00\x00\x01\x00", 0, "unsupported", "an icon file"),
    (b"\x59\xa6\x6a\x95", 0, "unsupported", "a Sun raster picture"),
    (b"qoif", 0, "unsupported", "a QOI picture"),
    (b"gimp xcf", 0, "unsupported", "a GIMP document"),
    (b"DDS ", 0, "unsupported", "a DDS texture"),
    (b"FUJIFILMCCD-RAW", 0, "unsupported", "a camera raw file"),
    (b"IIU\x00", 0, "unsupported", "a camera raw file"),
    (b"IIRO", 0, "unsupported", "a camera raw file"),
    (b"FOVb", 0, "unsupported", "a camera raw file"),
)


def _refusal(data: bytes) -> tuple[str, str]:
    for magic, offset, kind, what in _REFUSED:
        if data[offset : offset + len(magic)] == magic:
            return kind, _sentence(what)
    if data[4:8] == b"ftyp":
        raw = data[8:12] == b"crx "
        return (
            ("unsupported", _sentence("a camera raw file"))
            if raw
            else ("not-an-image", _sentence("a video"))
        )
    if data[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "not-an-image", _sentence("a video")
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<script", b"<head", b"<body")):
        return "not-an-image", _sentence("a web page")
    if b"<svg" in start:
        return "unsupported", (
            "This is an SVG drawing. Drawings are never rendered here; export it as PNG."
        )
    if start.startswith((b"<?xml", b"<")):
        return "not-an-image", _sentence("an XML or HTML document")
    if start[:2] in (b"p1", b"p2", b"p3", b"p4", b"p5", b"p6", b"p7", b"pf"):
        return "unsupported", _sentence("a PNM picture")
    if len(data) >= 4 and data[:512].isascii() and b"\x00" not in data[:512]:
        return "not-an-image", _sentence("a text file")
    return "not-an-image", "The content is not a picture in any format that is read here."


def _sentence(what: str) -> str:
    return f"This is {what}, which is not read here."


# ── JPEG ─────────────────────────────────────────────────────────────────────────────────────────

_SOF = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_SOF_NOT_READ = {0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical"}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})


def _jpeg(data: bytes) -> Header:
    exif: bytes | None = None
    at = 2
    for _ in range(_MAX_STEPS):
        at = data.find(b"\xff", at)
        while at >= 0 and data[at + 1] == 0xFF:
            at += 1
        if at < 0:
            break
        marker = data[at + 1]
        if marker == 0x00 or marker in _STANDALONE:
            at += 2
            continue
        if marker in (0xD9, 0xDA):
            break
        (length,) = struct.unpack_from(">H", data, at + 2)
        if length < 2:
            break
        if marker == 0xE1 and exif is None and data[at + 4 : at + 8] == b"Exif":
            exif = data[at + 4 : at + 2 + length]
        if marker in _SOF:
            return _jpeg_frame(data, at, marker, exif)
        at += 2 + length
    raise RejectedImage("corrupt", "This JPEG has no picture in it: its frame header is missing.")


def _jpeg_frame(data: bytes, at: int, marker: int, exif: bytes | None) -> Header:
    bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
    if marker in _SOF_NOT_READ or bits != 8:
        what = _SOF_NOT_READ.get(marker, f"{bits}-bit")
        raise RejectedImage("unsupported", f"This is a {what} JPEG, which is not read here.")
    if exif is None:
        exif = _late_exif(data, at)
    return Header(
        format="jpeg",
        width=width,
        height=height,
        channels=channels,
        orientation=parse_exif(exif).orientation,
        exif=exif,
        complete=data.rfind(b"\xff\xd9") > at,
        progressive=marker in (0xC2, 0xCA),
    )


def _late_exif(data: bytes, at: int) -> bytes | None:
    """Some writers put EXIF after the frame header; look on until the first scan."""
    for _ in range(64):
        if data[at : at + 1] != b"\xff" or data[at + 1 : at + 2] in (b"\xda", b"\xd9", b""):
            return None
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xE1 and data[at + 4 : at + 8] == b"Exif":
            return data[at + 4 : at + 2 + length]
        at += 2 + max(length, 2)
    return None


# ── PNG ──────────────────────────────────────────────────────────────────────────────────────────

_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}


def _png(data: bytes) -> Header:
    if data[12:16] != b"IHDR":
        raise RejectedImage("corrupt", "This PNG does not begin with its header chunk.")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    if colour not in _PNG_CHANNELS:
        raise RejectedImage(
            "corrupt", f"This PNG names a colour type that does not exist: {colour}."
        )
    alpha, frames, exif, complete = colour in (4, 6), 1, None, False
    clear_grey: int | None = None
    for name, start, length in png_chunks(data):
        if name == b"tRNS":
            alpha = True
            if colour == 0:
                (sample,) = struct.unpack_from(">H", data, start)
                clear_grey = _decoded_grey(sample, bits)
        elif name == b"acTL" and length >= 8:
            (frames,) = struct.unpack_from(">I", data, start)
        elif name == b"eXIf" and length <= _MAX_EXIF:
            exif = data[start : start + length]
        elif name == b"IEND":
            complete = True
    return Header(
        format="png",
        width=width,
        height=height,
        channels=_PNG_CHANNELS[colour] + (colour == 3 and alpha),
        bits=max(bits, 8),
        alpha=alpha,
        frames=max(frames, 1),
        orientation=parse_exif(exif).orientation,
        exif=exif,
        complete=complete,
        clear_grey=clear_grey,
    )


def _decoded_grey(sample: int, bits: int) -> int:
    """A grey sample of a PNG as it comes out of the codec: fewer than 8 bits are stretched."""
    most = (1 << min(max(bits, 1), 16)) - 1
    return (sample & most) * 255 // most if bits < 8 else sample & most


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, offset of the content, its length) of each chunk."""
    at = 8
    for _ in range(_MAX_STEPS):
        if at + 12 > len(data):
            return
        (length,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 8], at + 8, length
        at += 12 + length


# ── GIF ──────────────────────────────────────────────────────────────────────────────────────────


def _gif(data: bytes) -> Header:
    width, height, packed = struct.unpack_from("<HHB", data, 6)
    at = 13 + _gif_table(packed)
    frames, alpha, first_end = 0, False, 0
    for _ in range(_MAX_STEPS):
        block = data[at : at + 1]
        if block == b"\x21":
            if data[at + 1 : at + 2] == b"\xf9" and frames == 0:
                alpha = bool(data[at + 3] & 1)
            at = _gif_blocks(data, at + 2)
        elif block == b"\x2c":
            left, top, across, down, packed = struct.unpack_from("<HHHHB", data, at + 1)
            at = _gif_blocks(data, at + 11 + _gif_table(packed))
            if frames == 0:
                alpha = alpha or (left, top, across, down) != (0, 0, width, height)
                width, height = max(width, left + across), max(height, top + down)
                first_end = at
            frames += at <= len(data) or frames == 0
        else:
            break
        if at >= len(data):
            break
    if frames == 0:
        raise RejectedImage("corrupt", "This GIF has no picture in it.")
    return Header(
        format="gif",
        width=width,
        height=height,
        channels=4,
        alpha=alpha,
        frames=frames,
        complete=first_end <= len(data),
        first_frame_end=first_end,
    )


def _gif_table(packed: int) -> int:
    """Bytes of a colour table."""
    return 3 << (packed & 7) + 1 if packed & 0x80 else 0


def _gif_blocks(data: bytes, at: int) -> int:
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


# ── WebP ─────────────────────────────────────────────────────────────────────────────────────────


def _webp(data: bytes) -> Header:
    (riff,) = struct.unpack_from("<I", data, 4)
    width = height = frames = 0
    alpha, exif = False, None
    for name, start, length in _riff_chunks(data):
        across, down, clear = _webp_size(data, name, start)
        width, height, alpha = max(width, across), max(height, down), alpha or clear
        if name == b"ANMF":
            frames += 1
        elif name == b"EXIF" and length <= _MAX_EXIF:
            exif = data[start : start + length]
    if width == 0 or height == 0:
        raise RejectedImage("corrupt", "This WebP has no picture in it.")
    return Header(
        format="webp",
        width=width,
        height=height,
        channels=4 if alpha else 3,
        alpha=alpha,
        frames=max(frames, 1),
        orientation=parse_exif(exif).orientation,
        exif=exif,
        complete=riff + 8 <= len(data) + 1,
    )


def _webp_size(data: bytes, name: bytes, start: int) -> tuple[int, int, bool]:
    if name == b"VP8X":
        flags = data[start]
        across = int.from_bytes(data[start + 4 : start + 7], "little") + 1
        down = int.from_bytes(data[start + 7 : start + 10], "little") + 1
        return across, down, bool(flags & 0x10)
    if name == b"VP8 ":
        across, down = struct.unpack_from("<HH", data, start + 6)
        return across & 0x3FFF, down & 0x3FFF, False
    if name == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, start + 1)
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1, bool(packed >> 28 & 1)
    return 0, 0, False


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = 12
    for _ in range(_MAX_STEPS):
        if at + 8 > len(data):
            return
        (length,) = struct.unpack_from("<I", data, at + 4)
        yield data[at : at + 4], at + 8, length
        at += 8 + length + (length & 1)


# ── BMP ──────────────────────────────────────────────────────────────────────────────────────────

_BMP_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return Header(format="bmp", width=abs(width), height=abs(height))


# ── TIFF ─────────────────────────────────────────────────────────────────────────────────────────

_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_RAW_TAGS = {0xC612: "DNG", 0xC5D8: "Canon"}
# None, CCITT, LZW, JPEG, Deflate, PackBits. Of any other the codec makes a black picture.
_TIFF_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946})
_ASSOCIATED, _UNASSOCIATED = 1, 2


def _tiff(data: bytes) -> Header:
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\x00", b"\x00+")
    if data[8:10] == b"CR":
        raise RejectedImage("unsupported", _sentence("a camera raw file"))
    (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    tags, offset = _tiff_tags(data, order, offset, big)
    if any(tag in tags for tag in _RAW_TAGS) or tags.get(262) in (32803, 34892):
        raise RejectedImage("unsupported", _sentence("a camera raw file"))
    width, height = tags.get(256, 0), tags.get(257, 0)
    if not width or not height:
        raise RejectedImage("corrupt", "This TIFF does not say how large it is.")
    frames, seen = 1, set[int]()
    while 0 < offset < len(data) and offset not in seen and frames < 10_000:
        seen.add(offset)
        try:
            offset = _tiff_next(data, order, offset, big)
        except struct.error:
            break
        frames += 1
    channels, bits = tags.get(277, 1), tags.get(258, 1)
    if bits > 16 or tags.get(339, 1) == 3:
        raise RejectedImage("unsupported", f"This TIFF holds {bits}-bit values; 8 and 16 are read.")
    compression = tags.get(259, 1)
    if compression not in _TIFF_COMPRESSIONS:
        raise RejectedImage(
            "unsupported", f"This TIFF is compressed by method {compression}, which is not read."
        )
    # A fourth channel that is said to be nothing in particular is a mask, not see-through parts.
    extra = tags.get(338)
    return Header(
        format="tiff",
        width=max(width, tags.get(322, 0)),
        height=max(height, tags.get(323, 0)),
        channels=max(channels, 3),
        bits=max(bits, 8),
        alpha=extra in (_ASSOCIATED, _UNASSOCIATED) and channels == 4,
        frames=frames,
        exif=None if big else data,
        # libtiff multiplies the colours of 8-bit pictures by alpha itself.
        premultiplied=bits <= 8 or extra == _ASSOCIATED,
    )


def _tiff_tags(data: bytes, order: str, offset: int, big: bool) -> tuple[dict[int, int], int]:
    """First value of each short or long tag of one directory, and the next directory's offset."""
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, offset)
    entry, head, inline = (20, 8, 12) if big else (12, 2, 8)
    tags: dict[int, int] = {}
    for index in range(min(count, 4096)):
        at = offset + head + entry * index
        tag, kind = struct.unpack_from(order + "HH", data, at)
        (number,) = struct.unpack_from(order + ("Q" if big else "I"), data, at + 4)
        code = _TIFF_TYPES.get(kind)
        if code is None:
            tags.setdefault(tag, 0)
            continue
        where = at + inline
        if struct.calcsize(code) * number > entry - inline:
            (where,) = struct.unpack_from(order + ("Q" if big else "I"), data, where)
        if where + struct.calcsize(code) <= len(data):
            (tags[tag],) = struct.unpack_from(order + code, data, where)
    return tags, _tiff_next(data, order, offset, big)


def _tiff_next(data: bytes, order: str, offset: int, big: bool) -> int:
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, offset)
    at = offset + ((8 + 20 * count) if big else (2 + 12 * count))
    if at + (8 if big else 4) > len(data):
        return 0
    return int(struct.unpack_from(order + ("Q" if big else "I"), data, at)[0])


# ── AVIF and HEIC ────────────────────────────────────────────────────────────────────────────────

_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


def _brands(data: bytes) -> frozenset[bytes]:
    (size,) = struct.unpack_from(">I", data, 0)
    body = data[8 : min(size, 256)]
    return frozenset({body[:4], *(body[at : at + 4] for at in range(8, len(body) - 3, 4))})


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, first byte of the content, end) of each box between two offsets."""
    at = start
    for _ in range(10_000):
        if at + 8 > end:
            return
        size, name = struct.unpack_from(">I4s", data, at)
        body = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, body)
            body += 8
        stop = end if size == 0 else at + size
        if stop < body:
            return
        yield name, body, stop
        at = stop


# EXIF orientation that equals (quarter turns anticlockwise, then a mirror: 0 top to bottom, 1 left
# to right), ISO/IEC 23008-12 6.5.10 and 6.5.12.
_TURNS: dict[tuple[int, int | None], int] = {
    (0, None): 1,
    (1, None): 8,
    (2, None): 3,
    (3, None): 6,
    (0, 0): 4,
    (1, 0): 5,
    (2, 0): 2,
    (3, 0): 7,
    (0, 1): 2,
    (1, 1): 7,
    (2, 1): 4,
    (3, 1): 5,
}


def _heif(data: bytes) -> Header:
    brands = _brands(data)
    name = "avif" if brands & _AVIF_BRANDS else "heic"
    top = {kind: (body, stop) for kind, body, stop in _boxes(data, 0, len(data))}
    complete = all(stop <= len(data) for _, stop in top.values())
    if b"meta" not in top:
        raise RejectedImage("corrupt", f"This {name.upper()} has no picture in it.")
    body, stop = top[b"meta"]
    meta = {kind: (at, to) for kind, at, to in _boxes(data, body + 4, min(stop, len(data)))}
    width = height = 0
    bits, alpha, quarters, mirror = 8, False, 0, None
    for kind, at, to in _properties(data, meta):
        if kind == b"irot":
            quarters = data[at] & 3
        elif kind == b"imir":
            mirror = data[at] & 1
        elif kind == b"ispe":
            across, down = struct.unpack_from(">II", data, at + 4)
            if across * down > width * height:
                width, height = across, down
        elif kind == b"pixi" and data[at + 4] > 0:
            bits = max(bits, data[at + 5])
        elif kind == b"auxC":
            alpha = alpha or b":alpha" in data[at:to] or b"hevc:2015:auxid:1" in data[at:to]
    if not width or not height:
        raise RejectedImage("corrupt", f"This {name.upper()} does not say how large it is.")
    exif = _heif_exif(data, meta)
    return Header(
        format=name,
        width=width,
        height=height,
        channels=4 if alpha else 3,
        bits=bits,
        alpha=alpha,
        frames=_samples(data, *top[b"moov"]) if b"moov" in top else 1,
        orientation=_TURNS[quarters, mirror] if name == "avif" else 1,
        exif=exif,
        complete=complete,
    )


_Spans = dict[bytes, tuple[int, int]]


def _properties(data: bytes, meta: _Spans) -> Iterator[tuple[bytes, int, int]]:
    for kind, body, stop in _boxes(data, *meta.get(b"iprp", (0, 0))):
        if kind == b"ipco":
            yield from _boxes(data, body, min(stop, len(data)))


def _samples(data: bytes, body: int, stop: int) -> int:
    """Frames of the longest track of an image sequence: the sample count of its ``stsz`` box."""
    most = 1
    for kind, at, to in _boxes(data, body, min(stop, len(data))):
        if kind in (b"trak", b"mdia", b"minf", b"stbl"):
            most = max(most, _samples(data, at, to))
        elif kind == b"stsz":
            most = max(most, struct.unpack_from(">I", data, at + 8)[0])
    return most


def _heif_exif(data: bytes, meta: _Spans) -> bytes | None:
    """The EXIF item: found by type in ``iinf``, located by ``iloc``."""
    if b"iinf" not in meta or b"iloc" not in meta:
        return None
    body, stop = meta[b"iinf"]
    wanted: int | None = None
    first = body + (6 if data[body] == 0 else 8)
    for kind, at, _ in _boxes(data, first, min(stop, len(data))):
        if kind == b"infe" and data[at] in (2, 3):
            wide = data[at] == 3
            item = int.from_bytes(data[at + 4 : at + (8 if wide else 6)], "big")
            name_at = at + (10 if wide else 8)
            if data[name_at : name_at + 4] == b"Exif":
                wanted = item
    extent = None if wanted is None else _heif_extent(data, *meta[b"iloc"], wanted)
    if extent is None:
        return None
    start, length = extent
    if length > _MAX_EXIF or start + length > len(data) or length < 10:
        return None
    skip = int.from_bytes(data[start : start + 4], "big")
    return data[start + 4 + skip : start + length] if skip < length else None


def _heif_extent(data: bytes, body: int, stop: int, wanted: int) -> tuple[int, int] | None:
    """(offset, length) in the file of an item held in one piece."""
    version = data[body]
    sizes, more = data[body + 4], data[body + 5]
    offset_size, length_size, base_size = sizes >> 4, sizes & 15, more >> 4
    index_size = more & 15 if version in (1, 2) else 0
    id_size = 4 if version == 2 else 2
    at = body + 6
    count = int.from_bytes(data[at : at + id_size], "big")
    at += id_size

    def take(size: int) -> int:
        nonlocal at
        value = int.from_bytes(data[at : at + size], "big")
        at += size
        return value

    for _ in range(min(count, 10_000)):
        if at >= min(stop, len(data)):
            return None
        item = take(id_size)
        method = take(2) & 15 if version in (1, 2) else 0
        take(2)
        base = take(base_size)
        extents = take(2)
        for _ in range(min(extents, 10_000)):
            take(index_size)
            offset, length = take(offset_size), take(length_size)
            if item == wanted:
                return (base + offset, length) if method == 0 and extents == 1 else None
    return None


# ── JPEG 2000 ────────────────────────────────────────────────────────────────────────────────────


def _jp2(data: bytes) -> Header:
    if data[:4] == b"\xff\x4f\xff\x51":
        return _codestream(data, 0)
    for kind, body, _ in _boxes(data, 12, len(data)):
        if kind == b"jp2c":
            return _codestream(data, body)
    raise RejectedImage("truncated", "This JPEG 2000 ends before its picture begins.")


def _codestream(data: bytes, at: int) -> Header:
    if data[at : at + 4] != b"\xff\x4f\xff\x51":
        raise RejectedImage("corrupt", "This JPEG 2000 does not begin with its size.")
    right, bottom, left, top = struct.unpack_from(">IIII", data, at + 8)
    channels, depth = struct.unpack_from(">HB", data, at + 40)
    if channels not in (1, 3, 4):
        raise RejectedImage(
            "unsupported", f"This JPEG 2000 has {channels} channels; 1, 3 and 4 are read."
        )
    return Header(
        format="jp2",
        width=max(right - left, 0),
        height=max(bottom - top, 0),
        channels=channels,
        bits=max((depth & 0x7F) + 1, 8),
        alpha=channels == 4,
    )
