import struct
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from imageclust.errors import RejectedImage
from imageclust.images import DecodeLimits, decode_image

from tests.unit.images.pictures import (
    encode,
    exif_block,
    png_chunk,
    png_header_only,
    png_with,
    scene,
    upright_of,
    with_exif,
)

Array = npt.NDArray[Any]


def _difference(first: Array, second: Array) -> float:
    return float(np.abs(first.astype(float) - second.astype(float)).mean())


@pytest.mark.parametrize(
    ("extension", "tolerance"),
    [
        ("jpg", 4),
        ("png", 0),
        ("webp", 4),
        ("bmp", 0),
        ("tiff", 0),
        ("avif", 4),
        ("jp2", 2),
        ("gif", 20),  # the writer knows 256 fixed colours
    ],
)
def test_each_format_gives_its_pixels(extension: str, tolerance: float) -> None:
    picture = scene(120, 90)
    decoded = decode_image(encode(picture, extension))
    assert decoded.format == {"jpg": "jpeg"}.get(extension, extension)
    assert (decoded.width, decoded.height, decoded.frames) == (120, 90, 1)
    assert decoded.pixels.shape == (90, 120, 3)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.flags.c_contiguous
    assert decoded.notes == ()
    assert _difference(decoded.pixels, picture) <= tolerance


@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
@pytest.mark.parametrize(("width", "height"), [(1600, 1200), (700, 900), (321, 2000)])
def test_reduced_to_the_short_side_asked_for(extension: str, width: int, height: int) -> None:
    picture = scene(width, height)
    decoded = decode_image(encode(picture, extension), min_side=160)
    assert (decoded.width, decoded.height) == (width, height)
    assert min(decoded.pixels.shape[:2]) == 160
    rows, columns = decoded.pixels.shape[:2]
    expected = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA)
    assert _difference(decoded.pixels, expected) < 4


def test_never_enlarged() -> None:
    assert decode_image(encode(scene(50, 40), "png"), min_side=320).pixels.shape == (40, 50, 3)


def test_very_long_pictures_are_bounded() -> None:
    decoded = decode_image(encode(scene(9000, 100), "png"), min_side=50)
    assert decoded.pixels.shape == (9, 800, 3)
    assert (decoded.width, decoded.height) == (9000, 100)


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (2, 2)])
def test_tiny_pictures(size: tuple[int, int]) -> None:
    picture = np.full((size[1], size[0], 3), 77, np.uint8)
    decoded = decode_image(encode(picture, "png"))
    assert np.array_equal(decoded.pixels, picture)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_orientation_of_a_jpeg(orientation: int, order: str) -> None:
    picture = scene(160, 96)
    data = with_exif(encode(picture, "jpg"), exif_block(orientation=orientation, order=order))
    decoded = decode_image(data)
    expected = upright_of(picture, orientation)
    assert decoded.pixels.shape == expected.shape
    assert (decoded.width, decoded.height) == (expected.shape[1], expected.shape[0])
    assert decoded.pixels.flags.c_contiguous
    assert _difference(decoded.pixels, expected) < 4


@pytest.mark.parametrize("orientation", [3, 6])
def test_exif_orientation_of_a_reduced_jpeg(orientation: int) -> None:
    picture = scene(1600, 960)
    data = with_exif(encode(picture, "jpg"), exif_block(orientation=orientation))
    decoded = decode_image(data, min_side=100)
    upright = upright_of(picture, orientation)
    assert (decoded.height, decoded.width) == upright.shape[:2]
    rows, columns = decoded.pixels.shape[:2]
    expected = cv2.resize(upright, (columns, rows), interpolation=cv2.INTER_AREA)
    assert _difference(decoded.pixels, expected) < 4


@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_exif_orientation_of_a_png(orientation: int) -> None:
    picture = scene(60, 40)
    data = png_with(encode(picture, "png"), b"eXIf", exif_block(orientation=orientation))
    assert np.array_equal(decode_image(data).pixels, upright_of(picture, orientation))


def test_broken_exif_does_not_cost_the_picture() -> None:
    picture = scene(64, 48)
    for block in (b"", b"II", b"MM\x00*\xff\xff\xff\xff", b"II*\x00\x08\x00\x00\x00\xff\xff" * 3):
        assert decode_image(with_exif(encode(picture, "jpg"), block)).pixels.shape == (48, 64, 3)


@pytest.mark.parametrize("extension", ["png", "webp"])
def test_transparency_is_laid_over_white(extension: str) -> None:
    rgba = np.zeros((20, 30, 4), np.uint8)
    rgba[:, :10] = (200, 0, 0, 255)
    rgba[:, 10:20] = (0, 0, 0, 0)
    rgba[:, 20:] = (0, 0, 255, 128)
    options = (cv2.IMWRITE_WEBP_QUALITY, 101) if extension == "webp" else ()
    decoded = decode_image(encode(rgba, extension, *options))
    assert decoded.notes == ("transparency over white",)
    assert decoded.pixels[5, 5].tolist() == [200, 0, 0]
    assert decoded.pixels[5, 15].tolist() == [255, 255, 255]
    assert decoded.pixels[5, 25].tolist() == [127, 127, 255]


def test_16_bit_transparency() -> None:
    rgba = np.zeros((4, 4, 4), np.uint16)
    rgba[..., 0], rgba[..., 3] = 65_535, 32_768
    decoded = decode_image(encode(rgba, "png"))
    assert decoded.pixels[0, 0].tolist() == [255, 127, 127]


@pytest.mark.parametrize("extension", ["png", "tiff"])
def test_16_bit_is_scaled_to_8(extension: str) -> None:
    grey = np.linspace(0, 65_535, 256 * 16).reshape(16, 256).astype(np.uint16)
    decoded = decode_image(encode(grey, extension), min_side=400)
    assert _difference(decoded.pixels, np.repeat((grey / 257)[..., None], 3, axis=2)) <= 1


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tiff", "bmp"])
def test_grey_becomes_three_channels(extension: str) -> None:
    grey = cv2.cvtColor(scene(64, 48), cv2.COLOR_RGB2GRAY)
    decoded = decode_image(encode(grey, extension))
    assert decoded.pixels.shape == (48, 64, 3)
    assert _difference(decoded.pixels, np.repeat(grey[..., None], 3, axis=2)) < 4


def test_1_bit_png() -> None:
    bits = np.zeros((32, 32), np.uint8)
    bits[8:24] = 255
    decoded = decode_image(encode(bits, "png", cv2.IMWRITE_PNG_BILEVEL, 1))
    assert np.array_equal(decoded.pixels[..., 0], bits)


def test_palette_png_with_a_clear_colour() -> None:
    rows = b"".join(b"\x00" + bytes([0, 1]) * 4 for _ in range(8))
    data = (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 3, 0, 0, 0))
        + png_chunk(b"PLTE", bytes([10, 20, 30, 90, 80, 70]))
        + png_chunk(b"tRNS", b"\xff\x00")
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )
    decoded = decode_image(data)
    assert decoded.pixels[0, 0].tolist() == [10, 20, 30]
    assert decoded.pixels[0, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_png_with_a_clear_value(bits: int) -> None:
    most = 2**bits - 1
    samples = [0, most] * 8
    row = int("".join(f"{sample:0{bits}b}" for sample in samples), 2).to_bytes(2 * bits, "big")
    data = (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 8, bits, 0, 0, 0, 0))
        + png_chunk(b"tRNS", struct.pack(">H", 0))
        + png_chunk(b"IDAT", zlib.compress((b"\x00" + row) * 8))
        + png_chunk(b"IEND", b"")
    )
    black_clear = decode_image(data)
    opaque = decode_image(data.replace(png_chunk(b"tRNS", bytes(2)), b""))
    assert black_clear.notes == ("transparency over white",)
    assert (black_clear.pixels == 255).all()
    assert opaque.pixels[0, :2, 0].tolist() == [0, 255]


@pytest.mark.parametrize("extension", ["webp", "gif", "png"])
def test_first_frame_of_an_animation(extension: str) -> None:
    animation = cv2.Animation()
    frames = [np.full((40, 60, 4), (value, value, value, 255), np.uint8) for value in (30, 90, 250)]
    animation.frames = frames
    animation.durations = [100, 100, 100]
    done, encoded = cv2.imencodeanimation(f".{extension}", animation)
    assert done
    decoded = decode_image(bytes(encoded))
    assert decoded.frames == 3
    assert "first of 3 frames" in decoded.notes
    assert abs(int(decoded.pixels.mean()) - 30) <= 3


def test_first_page_of_a_tiff() -> None:
    pages = [np.full((20, 30, 3), value, np.uint8) for value in (10, 200)]
    done, encoded = cv2.imencodemulti(".tiff", pages)
    assert done
    decoded = decode_image(bytes(encoded))
    assert decoded.frames == 2
    assert decoded.notes == ("first of 2 pages",)
    assert decoded.pixels.mean() == 10


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"x", "not-an-image"),
        (b"%PDF-1.7 ...", "not-an-image"),
        (b"<!DOCTYPE html><html><script>alert(1)</script>", "not-an-image"),
        (b"  <?xml version='1.0'?><svg xmlns='x'></svg>", "unsupported"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported"),
        (b"<?xml version='1.0'?><feed/>", "not-an-image"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\n", "unsupported"),
        (b"\x00" * 128 + b"DICM" + b"\x00" * 20, "unsupported"),
        (b"\x01\xda\x01\x01\x00\x03" + b"\x00" * 600, "unsupported"),
        (b"P6\n1 1\n255\n\x00\x00\x00", "unsupported"),
        (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom", "not-an-image"),
        (b"a plain note that somebody named photo.jpg", "not-an-image"),
        (b"PK\x03\x04" + b"\x00" * 40, "not-an-image"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\xff\xd8\xff\xd9", "corrupt"),
        (b"\x89PNG\r\n\x1a\n", "corrupt"),
        (b"GIF89a", "truncated"),
        (b"II*\x00\x08\x00\x00\x00", "truncated"),
    ],
)
def test_what_is_not_a_picture_is_refused_by_kind(data: bytes, kind: str) -> None:
    with pytest.raises(RejectedImage) as rejected:
        decode_image(data)
    assert rejected.value.kind == kind
    assert rejected.value.reason.endswith(".")


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "gif", "avif", "bmp", "tiff", "jp2"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_cut_file_is_rejected_never_half_shown(extension: str, share: float) -> None:
    rng = np.random.default_rng(3)
    data = encode(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), extension)
    with pytest.raises(RejectedImage) as rejected:
        decode_image(data[: int(len(data) * share)])
    assert rejected.value.kind in ("truncated", "corrupt")


def test_progressive_jpeg_cut_is_rejected() -> None:
    data = encode(scene(400, 300), "jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    with pytest.raises(RejectedImage, match="cut short"):
        decode_image(data[: len(data) * 2 // 3])


@pytest.mark.parametrize("min_side", [60, 120])
def test_a_progressive_jpeg_reduced_looks_like_its_full_decode(min_side: int) -> None:
    picture = scene(1280, 960)
    picture = np.asarray(
        cv2.add(picture, np.random.default_rng(0).integers(0, 40, picture.shape, dtype=np.uint8))
    )
    data = encode(picture, "jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_QUALITY, 90)
    full = decode_image(data, min_side=2000).pixels
    reduced = decode_image(data, min_side=min_side).pixels
    size = (reduced.shape[1], reduced.shape[0])
    expected = cv2.resize(full, size, interpolation=cv2.INTER_AREA)
    assert _difference(reduced, expected) < 2


def test_trailing_bytes_do_no_harm() -> None:
    assert decode_image(encode(scene(64, 48), "jpg") + b"<script>" * 100).format == "jpeg"


@pytest.mark.parametrize(
    "data",
    [
        png_header_only(65_535, 65_535),
        png_header_only(50_000, 50_000, bits=1, colour=0),
        png_header_only(2_000_000_000, 1),
        b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x00;",
        b"RIFF\x16\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff",
        b"BM" + b"\x00" * 12 + struct.pack("<Iii", 40, 100_000, -100_000) + b"\x00" * 28,
    ],
)
def test_bombs_are_refused_by_their_header(data: bytes) -> None:
    with pytest.raises(RejectedImage) as rejected:
        decode_image(data)
    assert rejected.value.kind == "too-large"


def test_limits_are_configurable() -> None:
    data = encode(scene(200, 100), "png")
    with pytest.raises(RejectedImage, match="200 × 100"):
        decode_image(data, limits=DecodeLimits(max_pixels=19_999))
    with pytest.raises(RejectedImage, match="bytes"):
        decode_image(data, limits=DecodeLimits(max_bytes=100))
    with pytest.raises(RejectedImage, match="MB"):
        decode_image(encode(scene(1000, 800), "png"), limits=DecodeLimits(memory_mb=1))


@pytest.mark.parametrize(
    "options", [{"max_pixels": 0}, {"max_pixels": 2**31}, {"seconds": 0}, {"memory_mb": 0}]
)
def test_impossible_limits_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        DecodeLimits(**options)


def test_min_side_is_checked() -> None:
    with pytest.raises(ValueError, match="min_side"):
        decode_image(b"x", min_side=0)
