"""Reduction of pixels by area averaging: every stored pixel counts, nothing is enlarged."""

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def shrink(pixels: Pixels, scale: float) -> Pixels:
    """(h, w, 3) uint8 times ``scale``; the same array when ``scale`` is 1 or more."""
    if scale >= 1:
        return pixels
    height, width = pixels.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def fit_long_side(pixels: Pixels, side: int) -> Pixels:
    """The whole picture with its long side at most ``side``."""
    return shrink(pixels, side / max(pixels.shape[:2]))
