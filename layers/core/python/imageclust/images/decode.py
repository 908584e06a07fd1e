"""Bytes of any picture → RGB pixels near the size that is needed, once, within stated limits.

Decoding is OpenCV's; what it may be given is decided here, from the header, before it sees a byte.
A codec can still crash or spin on hostile bytes: :class:`~imageclust.images.pool.DecodePool` runs
this function in guarded worker processes, where such a file costs one rejected image.

What a decoded picture is:

- the first frame of an animation, the first page of a document (both noted);
- turned upright, by EXIF or by the container;
- see-through parts laid over white (noted);
- eight bits a channel, RGB; grey and CMYK are converted, embedded colour profiles are not applied;
- whole: a file that ends early is rejected as ``truncated``, never half shown (of an animated GIF,
  only the first frame has to be there). A picture whose
  lower half is grey would be clustered with other grey pictures, and nobody would be told.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from imageclust.errors import RejectedImage
from imageclust.images.codec_input import codec_input
from imageclust.images.header import Header, read_header
from imageclust.images.heic import decode_heic
from imageclust.images.scale import Pixels, shrink

# Broken files are reported as rejected images, not as lines of the codec on the user's terminal.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_MAX_ASPECT = 16
# The codec's reduction leaves at least this many times the pixels a side that are wanted: averaged
# from there, MobileNetV2 features of 12 to 16-megapixel photos keep a cosine of .999 with those of
# the full decode; from 1.2 to 1.9 times, .986. The time is nearly all in reading the file anyway.
_OVERSAMPLE = 2
# The codec's reduction flags name BGR order; with that bit off they combine with RGB order.
_REDUCED = {
    2: cv2.IMREAD_REDUCED_COLOR_2 & ~cv2.IMREAD_COLOR,
    4: cv2.IMREAD_REDUCED_COLOR_4 & ~cv2.IMREAD_COLOR,
    8: cv2.IMREAD_REDUCED_COLOR_8 & ~cv2.IMREAD_COLOR,
}
_CODEC_PIXELS = 2**30
_WHITE = 255


@dataclass(frozen=True)
class DecodeLimits:
    """What one picture may cost.

    Args:
        max_pixels: width × height as stored; more is rejected before decoding.
        max_bytes: size of the file.
        seconds: processor time one picture may take in a worker process (and six times that on the
            clock); not enforced in-process.
        memory_mb: memory that decoding may need, estimated from the header before decoding and
            enforced on the worker process.
    """

    max_pixels: int = 200_000_000
    max_bytes: int = 256 * 2**20
    seconds: float = 20.0
    memory_mb: int = 1280

    @classmethod
    def of_megapixels(cls, most: int) -> "DecodeLimits":
        """For pictures up to so many megapixels, with the memory that they need as photos."""
        share = max(1.0, most * 1_000_000 / cls.max_pixels)
        return cls(max_pixels=most * 1_000_000, memory_mb=math.ceil(cls.memory_mb * share))

    def __post_init__(self) -> None:
        if not 0 < self.max_pixels <= _CODEC_PIXELS:
            raise ValueError(f"max_pixels must be 1..{_CODEC_PIXELS}, not {self.max_pixels}")
        if self.max_bytes < 1 or self.seconds <= 0 or self.memory_mb < 1:
            raise ValueError("max_bytes, seconds and memory_mb must be positive")


DEFAULT_LIMITS = DecodeLimits()


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """One upright picture.

    Args:
        pixels: (h, w, 3) uint8, RGB, C-contiguous.
        width: full width in pixels after orientation, before reduction.
        height: full height in pixels after orientation, before reduction.
        format: ``jpeg``, ``png``, ``webp``, ``gif``, ``tiff``, ``bmp``, ``avif``, ``heic`` or
            ``jp2``.
        frames: frames or pages in the file; ``pixels`` is the first.
        notes: what the user should know, such as ``first of 12 frames``.
        exif: the raw EXIF block, for :func:`~imageclust.images.fingerprint.fingerprint`.
    """

    pixels: Pixels
    width: int
    height: int
    format: str
    frames: int = 1
    notes: tuple[str, ...] = ()
    exif: bytes | None = None


def decode_image(
    data: bytes, *, min_side: int = 320, limits: DecodeLimits = DEFAULT_LIMITS
) -> DecodedImage:
    """Decode one picture, reduced to about the size that is needed, in this process.

    The short side of the result is ``min_side``, or the picture's own short side where that is
    smaller: nothing is enlarged. A picture more than 16 times longer than wide is reduced further,
    until its long side is ``16 × min_side``.

    A large JPEG is decoded at a half, a quarter or an eighth of its size by its own codec, then
    brought to size by area averaging.

    Raises:
        RejectedImage: with the kind and a sentence for the user.
    """
    if min_side < 1:
        raise ValueError(f"min_side must be at least 1, not {min_side}")
    if len(data) > limits.max_bytes:
        raise RejectedImage(
            "too-large",
            f"The file has {len(data):,} bytes; at most {limits.max_bytes:,} are read.",
        )
    header = read_header(data)
    factor = _jpeg_factor(header, min_side) if header.format == "jpeg" else 1
    _check_limits(header, estimated_bytes(header, factor=factor, size_bytes=len(data)), limits)
    raw = _decode_pixels(data, header, factor)
    width, height = _full_size(raw, header, factor)
    notes = _notes(header)
    rgb = _reduce(_to_rgb(raw, header), min_side)
    pixels = np.ascontiguousarray(_upright(rgb, header.orientation))
    if header.orientation >= 5:
        width, height = height, width
    return DecodedImage(pixels, width, height, header.format, header.frames, notes, header.exif)


def estimated_bytes(header: Header, *, factor: int = 1, size_bytes: int = 0) -> int:
    """Memory that decoding needs, from the header: the file, codec buffers, result and copies.

    The bytes a pixel are measured: peaks of a worker on pictures of 25 to 196 megapixels.
    """
    pixels = header.width * header.height
    depth = 2 if header.bits > 8 else 1
    if header.format == "jpeg":
        # Progressive scans need every coefficient (two bytes) at once, whatever the output size.
        a_pixel = 2 * header.channels if header.progressive else 0
        return size_bytes + a_pixel * pixels + 6 * pixels // factor**2
    if header.format == "jp2":
        a_pixel = 4 * header.channels + 3 * depth
    elif header.format in ("avif", "heic"):
        a_pixel = 16 * depth
    elif header.format == "webp":
        a_pixel = 4 + header.channels
    elif header.alpha:
        a_pixel = 4 * depth + 3
    else:
        a_pixel = 6
    return size_bytes + a_pixel * pixels


def _check_limits(header: Header, needed: int, limits: DecodeLimits) -> None:
    size = f"{header.width:,} × {header.height:,} pixels"
    if header.width < 1 or header.height < 1:
        raise RejectedImage("corrupt", f"The header says {size}: there is no picture.")
    if header.width * header.height > limits.max_pixels:
        raise RejectedImage(
            "too-large",
            f"The picture is {size}; at most {limits.max_pixels / 1e6:,.0f} megapixels are read.",
        )
    if needed > limits.memory_mb * 2**20:
        raise RejectedImage(
            "too-large",
            f"The picture is {size}; decoding it needs about {needed / 2**20:,.0f} MB, "
            f"and at most {limits.memory_mb:,} MB are given to one picture.",
        )


def _jpeg_factor(header: Header, min_side: int) -> int:
    """The strongest reduction by the codec that still leaves enough to average over."""
    short = min(header.width, header.height)
    return next((f for f in (8, 4, 2) if short // f >= _OVERSAMPLE * min_side), 1)


def _decode_pixels(data: bytes, header: Header, factor: int) -> npt.NDArray[np.generic]:
    """(h, w, 3) uint8 RGB; from HEIC and where there is alpha, (h, w[, 3 or 4]) in BGR order."""
    if not header.complete:
        raise _undecodable(header)
    data = codec_input(data, header, factor=factor)
    try:
        pixels = decode_heic(data) if header.format == "heic" else _imdecode(data, header, factor)
    except MemoryError:
        raise _out_of_memory() from None
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise _out_of_memory() from None
        raise _undecodable(header) from None
    if pixels is None or pixels.size == 0:
        raise _undecodable(header)
    return pixels


def _imdecode(data: bytes, header: Header, factor: int) -> npt.NDArray[np.generic] | None:
    flags = cv2.IMREAD_IGNORE_ORIENTATION
    if header.alpha:
        flags |= cv2.IMREAD_UNCHANGED
    else:
        flags |= cv2.IMREAD_COLOR_RGB | _REDUCED.get(factor, 0)
    pixels: npt.NDArray[np.generic] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return pixels


def _out_of_memory() -> RejectedImage:
    return RejectedImage("too-large", "Decoding this picture needs more memory than one is given.")


def _undecodable(header: Header) -> RejectedImage:
    name = header.format.upper()
    if not header.complete:
        return RejectedImage("truncated", f"This {name} ends early; the file is cut short.")
    return RejectedImage(
        "corrupt",
        f"The picture data of this {name} is damaged, or of a kind that is not read here.",
    )


def _full_size(raw: npt.NDArray[np.generic], header: Header, factor: int) -> tuple[int, int]:
    """Full (width, height) before EXIF orientation; the codec may have turned the picture."""
    height, width = raw.shape[:2]
    stated = (header.width, header.height)
    if factor > 1:
        return stated
    # AVIF and HEIC may state a larger coded size and show a part of it.
    cropped = header.format in ("avif", "heic") and width * height <= stated[0] * stated[1]
    if stated not in ((width, height), (height, width)) and not cropped:
        raise RejectedImage(
            "corrupt",
            f"The header says {header.width} × {header.height} pixels, "
            f"the picture data holds {width} × {height}.",
        )
    return width, height


def _notes(header: Header) -> tuple[str, ...]:
    notes = []
    if header.frames > 1:
        what = "pages" if header.format == "tiff" else "frames"
        notes.append(f"first of {header.frames} {what}")
    if header.alpha:
        notes.append("transparency over white")
    return tuple(notes)


def _to_rgb(raw: npt.NDArray[np.generic], header: Header) -> Pixels:
    """Any codec output → (h, w, 3) uint8 RGB; see-through parts over white."""
    if not header.alpha and header.format != "heic":
        return raw.astype(np.uint8, copy=False)
    if raw.ndim == 2:
        grey = _to_8_bit(raw)
        if header.clear_grey is not None:
            grey[raw == header.clear_grey] = _WHITE
        return _grey_to_rgb(grey)
    rgb = np.empty((*raw.shape[:2], 3), np.uint8)
    # In bands of rows: the float copies of a 200-megapixel picture would not fit in memory.
    rows = max(1, 2**20 // raw.shape[1])
    for top in range(0, raw.shape[0], rows):
        rgb[top : top + rows] = _over_white(_to_8_bit(raw[top : top + rows]), header.premultiplied)
    return rgb


def _over_white(band: Pixels, premultiplied: bool) -> Pixels:
    """(h, w, 3 or 4) BGR(A) → RGB."""
    colour, alpha = band[:, :, 2::-1], band[:, :, 3:]
    if alpha.size == 0:
        return np.ascontiguousarray(colour)
    if premultiplied:
        return np.asarray(cv2.add(colour, _WHITE - alpha.repeat(3, axis=2)), np.uint8)
    share = alpha.astype(np.float32) / _WHITE
    blended = colour * share + _WHITE * (1 - share)
    return np.rint(blended).astype(np.uint8)


def _to_8_bit(values: npt.NDArray[np.generic]) -> Pixels:
    if values.dtype == np.uint8:
        return values.view(np.uint8)
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) * 255 + 32_767) // 65_535).astype(np.uint8)
    raise RejectedImage(
        "unsupported", f"The picture holds {values.dtype} values; 8 and 16 bits are read."
    )


def _grey_to_rgb(grey: Pixels) -> Pixels:
    return np.repeat(grey[:, :, None], 3, axis=2)


def _reduce(rgb: Pixels, min_side: int) -> Pixels:
    height, width = rgb.shape[:2]
    short, long = min(width, height), max(width, height)
    return shrink(rgb, min(min_side / short, _MAX_ASPECT * min_side / long))


def _upright(rgb: Pixels, orientation: int) -> Pixels:
    """Undo EXIF orientation 1..8 (CIPA DC-008, tag 0x0112)."""
    if orientation in (5, 6, 7, 8):
        rgb = rgb.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        rgb = rgb[:, ::-1]
    if orientation in (3, 4, 7, 8):
        rgb = rgb[::-1]
    return rgb
