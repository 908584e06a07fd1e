"""Thumbnails from pixels that are already decoded."""

import cv2

from imageclust.images.decode import DecodedImage
from imageclust.images.scale import fit_long_side

_QUALITY = 78


def thumbnail(decoded: DecodedImage, *, side: int = 320) -> bytes:
    """WebP bytes, the whole picture, long side at most ``side``; never enlarged.

    Encoded from pixels alone, so nothing of the original's metadata can be in it.
    """
    if not 1 <= side <= 16_383:
        raise ValueError(f"side must be 1..16383, not {side}")
    pixels = fit_long_side(decoded.pixels, side)
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    return bytes(encoded)
