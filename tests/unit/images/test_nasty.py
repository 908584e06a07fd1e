"""Every file of the nasty collection gets what its ``expect`` column says."""

import csv
from pathlib import Path

import numpy as np
import pytest
from imageclust.errors import RejectedImage
from imageclust.images import DecodedImage, decode_image, fingerprint, thumbnail

_FOLDER = Path(__file__).parents[4] / "shared" / "data" / "nasty"
_KINDS = {"not-an-image", "unsupported", "truncated", "corrupt", "too-large", "empty"}

pytestmark = pytest.mark.shared


def _labels() -> list[dict[str, str]]:
    if not (_FOLDER / "labels.csv").exists():
        return []
    with (_FOLDER / "labels.csv").open(newline="") as rows:
        return list(csv.DictReader(rows))


def _outcome(row: dict[str, str]) -> DecodedImage | RejectedImage:
    data = (_FOLDER / "files" / row["file"]).read_bytes()
    try:
        decoded = decode_image(data)
    except RejectedImage as rejected:
        return rejected
    assert len(fingerprint(decoded, data).phash) == 16
    assert thumbnail(decoded)
    return decoded


def _stated_size(row: dict[str, str]) -> tuple[int, int] | None:
    """What the collection's own note says of the upright picture, as it lists them."""
    if not row["pillow"].startswith("ok"):
        return None
    width, height = row["pillow"].split("(")[1].split(")")[0].split(",")
    return int(width), int(height)


def test_the_collection_is_there() -> None:
    if not _labels():
        pytest.skip("the nasty collection needs ../shared/data/nasty")
    assert len(_labels()) > 80


@pytest.mark.parametrize("row", _labels(), ids=lambda row: row["file"])
def test_expectation(row: dict[str, str]) -> None:
    outcome = _outcome(row)
    expect = row["expect"]
    if isinstance(outcome, RejectedImage):
        assert outcome.kind in _KINDS
        assert outcome.reason.endswith(".")
        assert expect in ("any-no-crash", "reject-or-downscale") or "reject" in expect
        return
    assert not expect.startswith("reject") or expect == "reject-or-downscale"
    assert outcome.pixels.dtype == np.uint8
    assert outcome.pixels.shape[2] == 3
    assert min(outcome.pixels.shape[:2]) <= 320
    if expect == "decode-first":
        assert outcome.frames > 1
        assert f"first of {outcome.frames} frames" in outcome.notes
    if expect in ("decode", "decode-rotated"):
        stated = _stated_size(row)
        assert stated is not None
        # The list holds sizes as they were when it was made, some halved, some before rotation.
        aspects = {round(stated[0] / stated[1], 2), round(stated[1] / stated[0], 2)}
        assert round(outcome.width / outcome.height, 2) in aspects


@pytest.mark.parametrize("number", [4, 6, 8])
def test_the_rotated_landscapes_all_look_like_the_upright_one(number: int) -> None:
    files = _FOLDER / "files"
    if not files.exists():
        pytest.skip("the nasty collection needs ../shared/data/nasty")
    upright = decode_image((files / "Landscape_1.jpg").read_bytes(), min_side=100)
    turned = decode_image((files / f"Landscape_{number}.jpg").read_bytes(), min_side=100)
    assert (turned.width, turned.height) == (1800, 1200)
    difference = np.abs(turned.pixels.astype(float) - upright.pixels)
    assert difference.mean() < 6
