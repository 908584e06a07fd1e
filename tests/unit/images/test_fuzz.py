"""Mutated pictures of every format: each is decoded or rejected, and no decoder process dies.

Deterministic and bounded; ``IMAGECLUST_FUZZ`` sets another number of files for a longer search.
"""

import io
import os
import struct
from collections import Counter
from collections.abc import Iterator

import cv2
import numpy as np
import pillow_heif
import pytest
from imageclust.errors import RejectedImage
from imageclust.images import DecodeLimits, DecodePool, Processed, ProcessOptions
from imageclust.images.exif import parse_exif
from PIL import Image

from tests.unit.images.pictures import encode, exif_block, png_with, scene, with_exif

_COUNT = int(os.environ.get("IMAGECLUST_FUZZ", "2000"))
_KINDS = {"not-an-image", "unsupported", "truncated", "corrupt", "too-large", "empty"}
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def _seeds() -> list[bytes]:
    picture = scene(48, 36)
    rgba = np.dstack([picture, picture[..., 0]])
    block = exif_block(
        orientation=6, texts={0x010F: "M"}, photo={0x9003: "2020:01:02 03:04:05"}, gps=(1.0, 2.0)
    )
    return [
        with_exif(encode(picture, "jpg"), block),
        encode(picture, "jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        _pillow(Image.fromarray(picture).convert("CMYK"), "JPEG"),
        png_with(encode(rgba, "png"), b"eXIf", block),
        encode(rgba.astype(np.uint16) * 257, "png"),
        _pillow(Image.fromarray(picture).convert("P"), "PNG"),
        encode(picture, "bmp"),
        encode(picture, "webp"),
        encode(rgba, "webp", cv2.IMWRITE_WEBP_QUALITY, 101),
        encode(picture, "avif"),
        encode(picture, "jp2"),
        encode(picture, "tiff"),
        _pillow(Image.fromarray(rgba), "TIFF", compression="tiff_lzw"),
        _pillow(Image.fromarray(picture).convert("1"), "TIFF", compression="group4"),
        encode(picture, "gif"),
        _animation("gif"),
        _animation("webp"),
        _animation("png"),
        _heic(Image.fromarray(picture)),
    ]


def _pillow(picture: Image.Image, kind: str, **options: str) -> bytes:
    target = io.BytesIO()
    picture.save(target, kind, **options)
    return target.getvalue()


def _heic(picture: Image.Image) -> bytes:
    target = io.BytesIO()
    pillow_heif.from_pillow(picture).save(target)
    return target.getvalue()


def _animation(extension: str) -> bytes:
    animation = cv2.Animation()
    animation.frames = [np.dstack([scene(40, 30, seed=s), scene(40, 30)[..., 0]]) for s in range(3)]
    animation.durations = [50, 50, 50]
    done, encoded = cv2.imencodeanimation(f".{extension}", animation)
    assert done
    return bytes(encoded)


def _mutated(seed: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(seed)
    for _ in range(int(rng.integers(1, 5))):
        # Half of the hits go into the first bytes, where sizes and counts are.
        reach = min(len(data), 200) if rng.random() < 0.5 else len(data)
        if reach < 8:
            break
        at = int(rng.integers(0, reach - 4))
        # Cutting is rare: a cut file is refused before its codec sees it.
        choice = int(rng.integers(0, 22)) // 3
        if choice <= 1:
            data[at] = int(rng.integers(0, 256))
        elif choice == 2:
            data[at] ^= 1 << int(rng.integers(0, 8))
        elif choice == 3:
            value = int(rng.choice(_EXTREMES))
            code = "<>"[int(rng.integers(0, 2))] + ("H" if value <= 0xFFFF else "I")
            struct.pack_into(code, data, at, value)
        elif choice == 4:
            del data[at : at + int(rng.integers(1, 40))]
        elif choice == 5:
            data[at:at] = rng.bytes(int(rng.integers(1, 40)))
        elif choice == 6:
            length = int(rng.integers(1, 60))
            data[at : at + length] = other[at : at + length]
        else:
            del data[at + int(rng.integers(0, len(data) - at)) :]
    return bytes(data)


def _files(count: int) -> Iterator[bytes]:
    rng = np.random.default_rng(20_251_122)
    seeds = _seeds()
    for index in range(count):
        yield _mutated(seeds[index % len(seeds)], seeds[int(rng.integers(0, len(seeds)))], rng)


@pytest.mark.filterwarnings("error")
def test_mutated_pictures_are_decoded_or_rejected() -> None:
    limits = DecodeLimits(max_pixels=4_000_000, seconds=10, memory_mb=256)
    options = ProcessOptions(min_side=4, thumbnail_side=16, limits=limits)
    kinds: Counter[str] = Counter()
    with DecodePool(workers=2, options=options) as pool:
        for index, outcome in enumerate(pool.map(_files(_COUNT))):
            if isinstance(outcome, RejectedImage):
                assert outcome.kind in _KINDS, f"file {index}: {outcome.kind}: {outcome.reason}"
                kinds[outcome.kind] += 1
            else:
                assert isinstance(outcome, Processed)
                assert outcome.pixels.ndim == 3
                assert outcome.pixels.size > 0
                kinds["decoded"] += 1
    assert sum(kinds.values()) == _COUNT
    assert kinds["decoded"] > _COUNT / 20
    assert kinds["corrupt"] > _COUNT / 20


def test_mutated_exif_never_raises() -> None:
    block = exif_block(
        orientation=3,
        texts={0x010F: "Maker", 0x0110: "Model"},
        photo={0x9003: "2020:01:02 03:04:05", 0x9011: "+01:00"},
        gps=(10.0, 20.0),
    )
    rng = np.random.default_rng(5)
    for _ in range(5000):
        facts = parse_exif(_mutated(block, block, rng))
        assert 1 <= facts.orientation <= 8
