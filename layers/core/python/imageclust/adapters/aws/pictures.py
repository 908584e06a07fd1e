"""Pixels as JPEG within what a service accepts."""

import math

import numpy as np
from numpy.typing import NDArray

from imageclust.errors import InvalidInput

_QUALITIES = (92, 85, 75, 60)


def jpeg_within(
    pixels: NDArray[np.uint8], *, min_side: int, max_side: int, max_bytes: int
) -> bytes:
    """JPEG of an RGB picture ``(h, w, 3)`` uint8 with sides and bytes inside the limits.

    Large pictures are reduced with their aspect kept; small ones are enlarged, and one that is
    still too narrow gets its own mirrored edge as a border, so that nothing foreign is shown.
    """
    import cv2

    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise InvalidInput("A picture has pixels of shape (height, width, 3), uint8.")
    image = _fitted(pixels, min_side, max_side)
    while True:
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        for quality in _QUALITIES:
            _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
            if encoded.nbytes <= max_bytes:
                return encoded.tobytes()
        side = max(image.shape[:2]) // 2
        if side < min_side:
            raise InvalidInput(f"A picture cannot become a JPEG of at most {max_bytes} bytes.")
        image = _fitted(image, min_side, side)


def _fitted(image: NDArray[np.uint8], min_side: int, max_side: int) -> NDArray[np.uint8]:
    import cv2

    rows, columns = image.shape[:2]
    scale = min(max(1.0, min_side / min(rows, columns)), max_side / max(rows, columns))
    if scale != 1:
        width = min(max_side, max(1, math.ceil(columns * scale - 1e-9)))
        height = min(max_side, max(1, math.ceil(rows * scale - 1e-9)))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        image = np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)
    rows, columns = image.shape[:2]
    down, across = max(0, min_side - rows), max(0, min_side - columns)
    if down or across:
        pads = ((down // 2, down - down // 2), (across // 2, across - across // 2), (0, 0))
        image = np.pad(image, pads, mode="symmetric")
    return image
