"""What other writers make: orientation in every container, HEIC, odd TIFF and JPEG kinds."""

import io
import struct
from typing import Any

import cv2
import numpy as np
import pillow_heif
import pytest
from imageclust.errors import RejectedImage
from imageclust.images import decode_image, fingerprint
from PIL import Image

from tests.unit.images.pictures import Pixels, exif_block, scene, upright_of


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    target = io.BytesIO()
    picture.save(target, kind, **options)
    return target.getvalue()


def _heic(picture: Image.Image, *, exif: bytes = b"") -> bytes:
    file = pillow_heif.from_pillow(picture)
    if exif:
        file[0].info["exif"] = b"Exif\x00\x00" + exif
    target = io.BytesIO()
    file.save(target, quality=92)
    return target.getvalue()


def _close(first: Pixels, second: Pixels, tolerance: float = 4) -> bool:
    same = first.shape == second.shape
    return same and float(np.abs(first.astype(float) - second).mean()) <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "HEIC"])
def test_every_container_is_shown_upright(kind: str, orientation: int) -> None:
    picture = scene(160, 96)
    image = Image.fromarray(picture)
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == "HEIC":
        data = _heic(image, exif=exif_block(orientation=orientation))
    elif kind == "TIFF":
        data = _saved(image, kind, tiffinfo={0x0112: orientation})
    else:
        data = _saved(image, kind, exif=exif)
    decoded = decode_image(data)
    expected = upright_of(picture, orientation)
    assert decoded.format == kind.lower()
    assert (decoded.height, decoded.width) == expected.shape[:2]
    assert _close(decoded.pixels, expected)


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_camera_from_the_exif_item(kind: str) -> None:
    image, exif = Image.fromarray(scene(64, 48)), exif_block(texts={0x0110: "Phone 9"})
    data = _heic(image, exif=exif) if kind == "HEIC" else _saved(image, kind, exif=exif)
    assert fingerprint(decode_image(data), data).camera == "Phone 9"


def test_heic_transparency_over_white() -> None:
    picture = scene(64, 48)
    rgba = np.dstack([picture, np.full((48, 64), 128, np.uint8)])
    decoded = decode_image(_heic(Image.fromarray(rgba)))
    assert decoded.notes == ("transparency over white",)
    assert _close(decoded.pixels, np.rint(picture * (128 / 255) + 127).astype(np.uint8))


def test_grey_heic() -> None:
    grey = scene(64, 48)[..., 0]
    decoded = decode_image(_heic(Image.fromarray(grey)))
    assert _close(decoded.pixels, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_cut_heic(share: float) -> None:
    data = _heic(Image.fromarray(scene(64, 48)))
    with pytest.raises(RejectedImage) as rejected:
        decode_image(data[: int(len(data) * share)])
    assert rejected.value.kind in ("truncated", "corrupt")


def test_damaged_heic() -> None:
    data = _heic(Image.fromarray(scene(64, 48))).replace(b"hvcC", b"skip")
    with pytest.raises(RejectedImage, match="damaged"):
        decode_image(data)


@pytest.mark.parametrize("orientation", [1, 6])
def test_cmyk_jpeg(orientation: int) -> None:
    image = Image.fromarray(scene(96, 64)).convert("CMYK")
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(_saved(image, "JPEG", exif=exif, quality=95))
    assert _close(decoded.pixels, upright_of(np.asarray(image.convert("RGB")), orientation))


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {"compression": "tiff_lzw"}),
        ("RGB", {"compression": "tiff_adobe_deflate"}),
        ("RGB", {"compression": "jpeg"}),
        ("RGB", {"compression": "packbits"}),
        ("RGB", {"big_tiff": True}),
        ("1", {"compression": "group4"}),
        ("1", {}),
        ("L", {}),
        ("P", {}),
        ("CMYK", {}),
        ("YCbCr", {}),
    ],
)
def test_kinds_of_tiff(mode: str, options: dict[str, Any]) -> None:
    image = Image.fromarray(scene(96, 64)).convert(mode)
    decoded = decode_image(_saved(image, "TIFF", **options))
    assert _close(decoded.pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "AVIF", "JPEG2000"])
def test_a_gradient_of_transparency(kind: str) -> None:
    picture = scene(96, 64)
    alpha = np.broadcast_to(np.linspace(0, 255, 96).astype(np.uint8), (64, 96))
    image = Image.fromarray(np.dstack([picture, alpha]))
    decoded = decode_image(_saved(image, kind))
    over = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    assert decoded.notes == ("transparency over white",)
    assert _close(decoded.pixels, np.asarray(over.convert("RGB")))


def _tiff_with(data: bytes, tag: int, value: int) -> bytes:
    """A TIFF of Pillow's with another value for one short tag."""
    at = data.index(struct.pack("<HHI", tag, 3, 1))
    return data[: at + 8] + struct.pack("<H", value) + data[at + 10 :]


def test_a_fourth_channel_that_is_no_transparency() -> None:
    picture = scene(96, 64)
    mask = np.zeros((64, 96), np.uint8)
    data = _saved(Image.fromarray(np.dstack([picture, mask])), "TIFF")
    decoded = decode_image(_tiff_with(data, 338, 0))
    assert decoded.notes == ()
    assert np.array_equal(decoded.pixels, picture)
    assert decode_image(data).pixels.min() == 255


@pytest.mark.parametrize(("kind", "colour"), [(1, 32 + 127), (2, 16 + 127)])
def test_16_bit_colours_multiplied_by_alpha_or_not(kind: int, colour: int) -> None:
    pixel = struct.pack("<HHHH", 0x2000, 0x2000, 0x2000, 0x8000)
    tags = [(256, 8), (257, 8), (259, 1), (262, 2), (277, 4), (278, 8), (338, kind)]
    count = len(tags) + 3
    body = 8 + 2 + 12 * count + 4
    entries = [struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags]
    entries.append(struct.pack("<HHII", 258, 3, 4, body))
    entries.append(struct.pack("<HHII", 273, 4, 1, body + 8))
    entries.append(struct.pack("<HHII", 279, 4, 1, 8 * 64))
    directory = struct.pack("<H", count) + b"".join(sorted(entries, key=lambda e: e[1::-1]))
    data = b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + struct.pack("<4H", *[16] * 4)
    decoded = decode_image(data + pixel * 64)
    assert decoded.notes == ("transparency over white",)
    assert abs(int(decoded.pixels[0, 0, 0]) - colour) <= 1


@pytest.mark.parametrize("method", [34712, 40000, 50000])
def test_a_tiff_of_unknown_compression_is_no_black_picture(method: int) -> None:
    data = _tiff_with(_saved(Image.fromarray(scene(96, 64)), "TIFF"), 259, method)
    with pytest.raises(RejectedImage, match=str(method)) as rejected:
        decode_image(data)
    assert rejected.value.kind == "unsupported"


@pytest.mark.parametrize("kind", ["F", "I"])
def test_32_bit_tiff_is_unsupported(kind: str) -> None:
    values = np.zeros((8, 8), {"F": np.float32, "I": np.int32}[kind])
    with pytest.raises(RejectedImage, match="32-bit"):
        decode_image(_saved(Image.fromarray(values), "TIFF"))


def test_several_pictures_in_one_jpeg() -> None:
    first, second = Image.fromarray(scene(64, 48)), Image.fromarray(scene(64, 48, seed=9))
    data = _saved(first, "MPO", save_all=True, append_images=[second], quality=95)
    assert _close(decode_image(data).pixels, scene(64, 48))


@pytest.mark.parametrize("kind", ["ICO", "PPM", "SGI", "EPS", "PCX", "TGA", "PDF"])
def test_other_kinds_of_picture_are_refused(kind: str) -> None:
    with pytest.raises(RejectedImage) as rejected:
        decode_image(_saved(Image.fromarray(scene(64, 48)), kind))
    assert rejected.value.kind in ("unsupported", "not-an-image")


def test_gif_with_its_later_frames_cut_off() -> None:
    frames = [Image.fromarray(scene(64, 48, seed=seed)) for seed in range(4)]
    data = _saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    whole, cut = decode_image(data), decode_image(data[: len(data) * 2 // 3])
    assert np.array_equal(whole.pixels, cut.pixels)
    assert whole.frames == 4
    assert 1 < cut.frames < 4


def test_gif_smaller_than_its_canvas_lies_on_white() -> None:
    red = np.zeros((10, 10, 3), np.uint8)
    red[...] = (200, 0, 0)
    data = bytearray(_saved(Image.fromarray(red), "GIF"))
    data[6:10] = (20).to_bytes(2, "little") * 2
    decoded = decode_image(bytes(data))
    assert decoded.pixels.shape == (20, 20, 3)
    assert abs(decoded.pixels[5, 5].astype(int) - (200, 0, 0)).max() < 20


def test_interlaced_gif() -> None:
    image = Image.fromarray(scene(64, 48)).convert("P")
    decoded = decode_image(_saved(image, "GIF", interlace=1))
    assert _close(decoded.pixels, np.asarray(image.convert("RGB")), 1)


def test_wide_gamut_profile_is_ignored_not_fatal() -> None:
    data = _saved(Image.fromarray(scene(64, 48)), "PNG", icc_profile=b"not a profile")
    assert _close(decode_image(data).pixels, scene(64, 48))


def test_animated_avif() -> None:
    animation = cv2.Animation()
    animation.frames = [np.full((40, 60, 4), (v, v, v, 255), np.uint8) for v in (30, 90, 250)]
    animation.durations = [100] * 3
    done, encoded = cv2.imencodeanimation(".avif", animation)
    assert done
    decoded = decode_image(bytes(encoded))
    assert "first of 3 frames" in decoded.notes
    assert abs(float(decoded.pixels.mean()) - 30) < 3
