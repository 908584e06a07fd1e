"""Thumbnails from pixels that are already decoded."""

import io

from imageclust.images.decode import DecodedImage
from imageclust.images.scale import fit_long_side

_QUALITY = 78
# Against the encoder's default (4), method 2 takes a third of the time for 4 % more bytes.
_METHOD = 2


def thumbnail(decoded: DecodedImage, *, side: int = 320) -> bytes:
    """WebP bytes, the whole picture, long side at most ``side``; never enlarged.

    Encoded from pixels alone, so nothing of the original's metadata can be in it.
    """
    if not 1 <= side <= 16_383:
        raise ValueError(f"side must be 1..16383, not {side}")
    # Imported here: OpenCV's own WebP writer cannot be told its method, and Pillow is a cold start.
    from PIL import Image

    target = io.BytesIO()
    picture = Image.fromarray(fit_long_side(decoded.pixels, side))
    picture.save(target, "WEBP", quality=_QUALITY, method=_METHOD)
    return target.getvalue()
