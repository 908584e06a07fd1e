"""HEIC through libheif: the one format of phones that OpenCV does not read."""

import numpy as np
import numpy.typing as npt


def decode_heic(data: bytes) -> npt.NDArray[np.generic] | None:
    """The main picture: (h, w, 3 or 4) uint8, BGR or BGRA, upright; None when it is damaged.

    libheif keeps its own limits on sizes and counts; they stay on.

    Raises:
        MemoryError: the picture does not fit.
    """
    # Imported here: many runs never meet HEIC, and the import would be part of every cold start.
    import pi_heif

    # One thread: pictures are decoded side by side already, and the codec is no faster with more.
    pi_heif.options.DECODE_THREADS = 1
    try:
        pictures = pi_heif.open_heif(data, convert_hdr_to_8bit=True, bgr_mode=True)
        # A copy: the array would otherwise look into memory that goes with the picture object.
        pixels = np.array(pictures[pictures.primary_index])
    except (ValueError, EOFError, RuntimeError, SyntaxError, OSError, IndexError):
        return None
    return _colour(pixels)


def _colour(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Grey (h, w), or grey with alpha (h, w, 2), as BGR or BGRA."""
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] > 2:
        return pixels
    return np.concatenate([pixels[:, :, :1].repeat(3, axis=2), pixels[:, :, 1:]], axis=2)
