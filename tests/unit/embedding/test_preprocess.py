"""Pixels to network input, against plain arithmetic."""

import numpy as np
import pytest
from imageclust.embedding.cards import ModelCard, Output, Resizing, Scaling
from imageclust.embedding.preprocess import (
    PREPROCESSINGS,
    check_pixels,
    l2_normalised,
    network_input,
    scale_to,
    views,
)
from imageclust.errors import InvalidInput

RULE = Resizing(short_side=32, size=28)


def gradient(rows: int, columns: int) -> np.ndarray:
    y, x = np.mgrid[0:rows, 0:columns]
    red, green = 255 * x / max(columns - 1, 1), 255 * y / max(rows - 1, 1)
    return np.stack([red, green, np.full_like(red, 40)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("name", PREPROCESSINGS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (5, 7), (64, 48), (300, 400)])
def test_every_shape_gives_squares(name: str, shape: tuple[int, int]) -> None:
    squares = views(gradient(*shape), RULE, name)

    assert len(squares) == PREPROCESSINGS[name]
    for square in squares:
        assert square.shape == (28, 28, 3)
        assert square.dtype == np.uint8


def test_centre_crop_keeps_the_middle() -> None:
    image = gradient(32, 64)
    (square,) = views(image, RULE, "center_crop")
    assert np.array_equal(square, image[2:30, 18:46])


def test_squeeze_keeps_more_of_a_wide_picture() -> None:
    image = gradient(100, 225)
    (cropped,) = views(image, RULE, "center_crop")
    (squeezed,) = views(image, RULE, "squeeze")

    seen_crop = np.ptp(cropped[14, :, 0].astype(int)) / 255
    seen_squeeze = np.ptp(squeezed[14, :, 0].astype(int)) / 255
    assert seen_crop == pytest.approx(28 / 72, abs=0.03)
    assert seen_squeeze == pytest.approx(28 / 48, abs=0.03)


def test_square_pictures_are_the_same_by_crop_and_squeeze() -> None:
    image = gradient(60, 60)
    crop, squeeze = (views(image, RULE, name)[0] for name in ("center_crop", "squeeze"))
    assert np.array_equal(crop, squeeze)


def test_letterbox_shows_the_whole_picture_on_grey() -> None:
    (square,) = views(np.full((10, 40, 3), 255, np.uint8), RULE, "letterbox")
    assert (square[:10] == 128).all()
    assert (square[11:17] == 255).all()
    assert (square[18:] == 128).all()


def test_reductions_average() -> None:
    stripes = np.zeros((40, 40, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    assert (scale_to(stripes, 10, 10) == 100).all()
    # One side shrinks and the other grows: the shrinking side must not alias.
    assert (scale_to(stripes, 10, 80) == 100).all()


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("colour", ["RGB", "BGR"])
def test_network_input_is_the_cards_arithmetic(layout: str, colour: str) -> None:
    card = ModelCard(
        name="net",
        file="net.onnx",
        sha256="0" * 64,
        licence="MIT",
        arch="",
        colour=colour,
        layout=layout,
        scaling=Scaling(1 / 255, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
        resizing=Resizing(0, 4),
        features=Output("features", 1),
    )
    squares = [gradient(4, 4), gradient(4, 4)[::-1]]

    values = network_input(squares, card)

    plain = np.stack(squares).astype(np.float64)
    if colour == "BGR":
        plain = plain[..., ::-1]
    plain = (plain / 255 - [0.1, 0.2, 0.3]) / [0.4, 0.5, 0.6]
    if layout == "NCHW":
        plain = plain.transpose(0, 3, 1, 2)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, plain, atol=1e-6)


def test_zero_rows_stay_zero() -> None:
    rows = l2_normalised(np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(InvalidInput, match="RGB"):
        check_pixels(bad)
