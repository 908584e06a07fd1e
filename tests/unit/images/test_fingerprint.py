import hashlib
import json

import cv2
import numpy as np
import pytest
from imageclust.images import Fingerprint, decode_image, fingerprint, thumbnail

from tests.unit.images.pictures import Pixels, encode, exif_block, scene, with_exif


def _of(data: bytes, *, gps: bool = False) -> Fingerprint:
    return fingerprint(decode_image(data), data, gps=gps)


def _bits_apart(first: str, second: str) -> int:
    return (int(first, 16) ^ int(second, 16)).bit_count()


def _noise(seed: int) -> Pixels:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (480, 360), interpolation=cv2.INTER_CUBIC), np.uint8)


def test_sha256_is_of_the_bytes() -> None:
    data = encode(scene(40, 30), "png")
    assert _of(data).sha256 == hashlib.sha256(data).hexdigest()


def test_round_trip_through_json() -> None:
    block = exif_block(texts={0x010F: "Maker"}, gps=(47.5, 8.25))
    for gps in (False, True):
        one = _of(with_exif(encode(_noise(1), "jpg"), block), gps=gps)
        assert Fingerprint.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_perceptual_hash_survives_re_encoding_and_rescaling() -> None:
    for seed in range(5):
        picture = _noise(seed)
        original = _of(encode(picture, "png")).phash
        assert len(original) == 16
        small = cv2.resize(picture, (200, 150), interpolation=cv2.INTER_AREA)
        for copy in (
            encode(picture, "jpg", cv2.IMWRITE_JPEG_QUALITY, 40),
            encode(picture, "webp", cv2.IMWRITE_WEBP_QUALITY, 40),
            encode(small, "jpg"),
        ):
            assert _bits_apart(original, _of(copy).phash) <= 4


def test_perceptual_hash_tells_pictures_apart() -> None:
    hashes = [_of(encode(_noise(seed), "png")).phash for seed in range(12)]
    apart = [_bits_apart(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(apart) > 12


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_flat_pictures_have_no_structure(value: int) -> None:
    flat = _of(encode(np.full((64, 48, 3), value, np.uint8), "png"))
    assert flat.phash == "0" * 16
    assert flat.sharpness == flat.contrast == flat.colourfulness == 0
    assert flat.colours == ((value, value, value, 1.0),)
    assert flat.brightness == pytest.approx(value / 255, abs=0.001)


def test_one_pixel() -> None:
    one = _of(encode(np.array([[[10, 20, 30]]], np.uint8), "png"))
    assert one.colours == ((10, 20, 30, 1.0),)


def test_dominant_colours_and_their_shares() -> None:
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[:60], picture[60:90], picture[90:] = (220, 30, 40), (20, 60, 200), (250, 250, 250)
    colours = _of(encode(picture, "png")).colours
    assert [share for *_, share in colours] == pytest.approx([0.6, 0.3, 0.1], abs=0.03)
    for (red, green, blue, _), expected in zip(
        colours, [(220, 30, 40), (20, 60, 200), (250, 250, 250)], strict=True
    ):
        assert np.abs(np.subtract((red, green, blue), expected)).max() <= 3


def test_blur_lowers_sharpness() -> None:
    sharp = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    blurred = np.asarray(cv2.GaussianBlur(sharp, (0, 0), 6), np.uint8)
    assert _of(encode(sharp, "png")).sharpness > 5 * _of(encode(blurred, "png")).sharpness


@pytest.mark.parametrize(
    ("direction", "word"), [("x", "vertical lines"), ("y", "horizontal lines")]
)
def test_direction_of_lines(direction: str, word: str) -> None:
    wave = (np.sin(np.arange(240) / 3) > 0).astype(np.uint8) * 200 + 20
    plane = np.broadcast_to(wave if direction == "x" else wave[:, None], (240, 240))
    words = _of(encode(np.ascontiguousarray(plane), "png")).words
    assert word in words
    assert "black and white" in words
    assert "square" in words


@pytest.mark.parametrize(
    ("size", "word"),
    [((300, 200), "landscape"), ((200, 300), "portrait"), ((600, 200), "panorama")],
)
def test_shape_word(size: tuple[int, int], word: str) -> None:
    assert word in _of(encode(scene(*size), "png")).words


def test_capture_facts_from_exif() -> None:
    block = exif_block(
        orientation=6,
        texts={0x010F: "Canon", 0x0110: "Canon EOS 5D", 0x0132: "2020:01:01 00:00:00"},
        photo={0x9003: "2019:08:07 06:05:04", 0x9011: "+02:00"},
        gps=(-33.8568, 151.2153),
    )
    data = with_exif(encode(scene(64, 48), "jpg"), block)
    one = _of(data)
    assert one.captured_at == "2019-08-07T06:05:04+02:00"
    assert one.camera == "Canon EOS 5D"
    assert one.gps is None
    assert "gps" not in one.to_json()
    asked = _of(data, gps=True).gps
    assert asked == pytest.approx((-33.8568, 151.2153), abs=1e-4)


@pytest.mark.parametrize("when", ["0000:00:00 00:00:00", "yesterday", "2019:13:01 00:00:00", ""])
def test_impossible_capture_time_is_absent(when: str) -> None:
    data = with_exif(encode(scene(32, 32), "jpg"), exif_block(photo={0x9003: when}))
    assert _of(data).captured_at is None


def test_camera_name_is_cleaned() -> None:
    block = exif_block(texts={0x010F: "NIKON\x01\n CORP", 0x0110: "D90" + "x" * 400})
    camera = _of(with_exif(encode(scene(32, 32), "jpg"), block)).camera
    assert camera is not None
    assert camera.startswith("NIKON CORP D90")
    assert camera.isprintable()
    assert len(camera) < 420


def test_thumbnail_is_webp_without_metadata() -> None:
    block = exif_block(texts={0x010F: "SecretMaker"}, gps=(1.0, 2.0))
    decoded = decode_image(with_exif(encode(scene(1000, 600), "jpg"), block), min_side=400)
    small = thumbnail(decoded)
    again = decode_image(small)
    assert again.format == "webp"
    assert (again.width, again.height) == (320, 192)
    assert b"EXIF" not in small
    assert b"SecretMaker" not in small


def test_thumbnail_never_enlarges() -> None:
    assert decode_image(thumbnail(decode_image(encode(scene(30, 20), "png")))).width == 30


@pytest.mark.parametrize("side", [0, 20_000])
def test_thumbnail_side_is_checked(side: int) -> None:
    with pytest.raises(ValueError, match="side"):
        thumbnail(decode_image(encode(scene(30, 20), "png")), side=side)
