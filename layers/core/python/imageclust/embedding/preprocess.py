"""RGB pixels to network input, as the model's card says.

Every function takes ``(h, w, 3) uint8`` RGB. Reductions use area averaging (``cv2.INTER_AREA``),
which does not alias; enlargements use the card's interpolation.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from imageclust.embedding.cards import ModelCard, Resizing
from imageclust.errors import InvalidInput

Pixels = NDArray[np.uint8]

#: Name of each way to make a square (or several) from a picture → how many views it takes.
PREPROCESSINGS: dict[str, int] = {
    "center_crop": 1,
    "resize": 1,
    "letterbox": 1,
    "reflect": 1,
    "crops": 2,
}
DEFAULT_PREPROCESSING = "center_crop"
_GREY = 128


def check_pixels(image: Pixels) -> Pixels:
    """Return the image when it is (h, w, 3) uint8 and not empty, else raise InvalidInput."""
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or 0 in image.shape
    ):
        raise InvalidInput("An embedder takes RGB pixels of shape (height, width, 3), uint8.")
    return image


def scale_to(image: Pixels, width: int, height: int, *, interpolation: str = "bilinear") -> Pixels:
    """Resize to exactly (height, width): area averaging for reductions."""
    import cv2

    rows, columns = image.shape[:2]
    if (columns, rows) == (width, height):
        return image
    if width <= columns and height <= rows:
        method = cv2.INTER_AREA
    else:
        method = cv2.INTER_CUBIC if interpolation == "bicubic" else cv2.INTER_LINEAR
        # One side grows and the other shrinks: shrink first, so that nothing aliases.
        if width < columns or height < rows:
            smaller = (min(width, columns), min(height, rows))
            reduced = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
            image = np.asarray(reduced, dtype=np.uint8)
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)


def views(image: Pixels, rule: Resizing, preprocessing: str) -> list[Pixels]:
    """The square pictures, ``(size, size, 3) uint8``, that stand for one image."""
    size = rule.size
    if preprocessing == "resize":
        return [scale_to(image, size, size, interpolation=rule.interpolation)]
    if preprocessing == "center_crop":
        return [_centre(_short_side(image, rule.short_side or size, rule.interpolation), size)]
    if preprocessing == "letterbox":
        return [_padded(image, rule, reflect=False)]
    if preprocessing == "reflect":
        return [_padded(image, rule, reflect=True)]
    if preprocessing == "crops":
        return _end_crops(_short_side(image, size, rule.interpolation), size)
    raise InvalidInput(
        f"There is no preprocessing {preprocessing!r}; choose one of {', '.join(PREPROCESSINGS)}."
    )


def network_input(squares: list[Pixels], card: ModelCard) -> NDArray[np.float32]:
    """Stack square pictures as the network wants them: ``(n, 3, s, s)`` or ``(n, s, s, 3)``."""
    batch = np.stack(squares)
    if card.colour == "BGR":
        batch = batch[..., ::-1]
    if card.layout == "NCHW":
        batch = batch.transpose(0, 3, 1, 2)
    shape = (1, 3, 1, 1) if card.layout == "NCHW" else (1, 1, 1, 3)
    scaling = card.scaling
    std = np.asarray(scaling.std, dtype=np.float64)
    gain = (scaling.factor / std).astype(np.float32).reshape(shape)
    offset = (np.asarray(scaling.mean, dtype=np.float64) / std).astype(np.float32).reshape(shape)
    values = np.ascontiguousarray(batch).astype(np.float32)
    values *= gain
    values -= offset
    return values


def l2_normalised(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Rows of length 1, float32; a row of zeros stays zeros."""
    values = np.asarray(rows, dtype=np.float32)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def _short_side(image: Pixels, target: int, interpolation: str) -> Pixels:
    rows, columns = image.shape[:2]
    short = min(rows, columns)
    width = max(target, round(columns * target / short))
    height = max(target, round(rows * target / short))
    # A very long strip would become enormous; only its middle can reach the crop.
    if max(width, height) > 16 * target:
        keep = 16 * short
        image = _middle(image, min(rows, keep), min(columns, keep))
        return _short_side(image, target, interpolation)
    return scale_to(image, width, height, interpolation=interpolation)


def _middle(image: Pixels, rows: int, columns: int) -> Pixels:
    top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
    return image[top : top + rows, left : left + columns]


def _centre(image: Pixels, size: int) -> Pixels:
    return _middle(image, size, size)


def _padded(image: Pixels, rule: Resizing, *, reflect: bool) -> Pixels:
    rows, columns = image.shape[:2]
    long = max(rows, columns)
    width = max(1, round(columns * rule.size / long))
    height = max(1, round(rows * rule.size / long))
    small = scale_to(image, width, height, interpolation=rule.interpolation)
    top, left = (rule.size - height) // 2, (rule.size - width) // 2
    pads = ((top, rule.size - height - top), (left, rule.size - width - left), (0, 0))
    if reflect:
        return np.pad(small, pads, mode="symmetric")
    return np.pad(small, pads, mode="constant", constant_values=_GREY)


def _end_crops(image: Pixels, size: int) -> list[Pixels]:
    rows, columns = image.shape[:2]
    if rows == columns:
        return [image]
    first = image[:size, :size]
    last = image[rows - size :, columns - size :]
    return [first, last]
