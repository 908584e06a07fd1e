"""The built-in descriptor: colour, texture and shape, no weights and nothing to download.

Blocks, each of length 1 before its weight is applied:

- colour: soft Lab histograms of the whole picture and of a 3 × 3 grid, square-rooted (Hellinger);
- shape: histograms of oriented gradients on a 4 × 4 and an 8 × 8 grid (Dalal and Triggs 2005);
- texture: uniform local binary patterns at two scales (Ojala et al. 2002).
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from imageclust.embedding.preprocess import Pixels, check_pixels, l2_normalised, scale_to

#: Name of the built-in descriptor wherever an embedder is named.
BUILTIN = "builtin"
_SIDE = 128
#: Part of the key: raise it when a change here changes any vector.
_VERSION = 1
_FINE = 16
_LUMA_BINS, _CHROMA_BINS = 5, 7
_HOG_BINS = 8
_COLOUR, _HOG, _LBP = 1.0, 1.0, 0.7


class BuiltinDescriptor:
    """Colour, texture and shape of the whole picture as one vector; needs no model file."""

    key = f"{BUILTIN}-v{_VERSION}"
    min_side = _SIDE

    def __init__(self, *, threads: int = 0) -> None:
        self.threads = threads or os.cpu_count() or 1
        self.dimension = int(_describe(np.zeros((8, 8, 3), dtype=np.uint8)).size)

    def embed(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        """n pictures, ``(h, w, 3) uint8`` RGB → ``(n, dimension) float32``, rows of length 1."""
        for image in images:
            check_pixels(image)
        if len(images) == 0:
            return np.zeros((0, self.dimension), dtype=np.float32)
        if self.threads == 1 or len(images) == 1:
            rows = [_describe(image) for image in images]
        else:
            with ThreadPoolExecutor(min(self.threads, len(images))) as pool:
                rows = list(pool.map(_describe, images))
        return l2_normalised(np.stack(rows))


def _describe(image: Pixels) -> NDArray[np.float32]:
    import cv2

    small = scale_to(image, _SIDE, _SIDE)
    lab = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2LAB), dtype=np.uint8)
    grey = np.ascontiguousarray(lab[..., 0])
    blocks = [
        _COLOUR * _colour(lab),
        _HOG * _gradients(grey),
        _LBP * _patterns(grey),
    ]
    return np.concatenate(blocks).astype(np.float32)


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    flat = values.ravel()
    length = float(np.sqrt(flat @ flat))
    return flat / length if length > 0 else flat


def _triangles(fine: int, centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """(fine, coarse): linear interpolation of ``fine`` equal bins over 0..1 to soft coarse bins."""
    middles = (np.arange(fine) + 0.5) / fine
    weights = [np.interp(middles, centres, row) for row in np.eye(len(centres))]
    return np.stack(weights, axis=1)


_LUMA = _triangles(_FINE, np.linspace(0.1, 0.9, _LUMA_BINS))
_CHROMA = _triangles(_FINE, 0.5 + np.array([-0.25, -0.13, -0.05, 0.0, 0.05, 0.13, 0.25]))


def _colour(lab: Pixels) -> NDArray[np.float64]:
    """Soft Lab histograms of the picture and of 3 × 3 cells, square-rooted."""
    rows, columns = lab.shape[:2]
    shift = 8 - int(np.log2(_FINE))
    codes = (lab >> shift).astype(np.intp)
    index = (codes[..., 0] * _FINE + codes[..., 1]) * _FINE + codes[..., 2]
    cell = (np.arange(rows) * 3 // rows)[:, None] * 3 + (np.arange(columns) * 3 // columns)[None]
    counts = np.bincount((cell * _FINE**3 + index).ravel(), minlength=9 * _FINE**3)
    hist = counts.reshape(9, _FINE, _FINE, _FINE).astype(np.float64)
    hist = np.einsum("cijk,il->cljk", hist, _LUMA)
    hist = hist @ _CHROMA
    hist = (hist.transpose(0, 1, 3, 2) @ _CHROMA).transpose(0, 1, 3, 2)
    return np.concatenate([_unit(np.sqrt(hist.sum(axis=0))), _unit(np.sqrt(hist)) * 0.7])


def _gradients(grey: Pixels) -> NDArray[np.float64]:
    """Histograms of oriented gradients on 4 × 4 and 8 × 8 cells."""
    import cv2

    dx = cv2.Sobel(grey, cv2.CV_32F, 1, 0)
    dy = cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    length = np.sqrt(np.sqrt(dx * dx + dy * dy))
    angle = np.mod(np.arctan2(dy, dx), np.pi) * (_HOG_BINS / np.pi)
    low = np.floor(angle).astype(np.intp)
    share = angle - low
    rows, columns = grey.shape
    cell = (np.arange(rows) * 8 // rows)[:, None] * 8 + (np.arange(columns) * 8 // columns)[None]
    base = cell * _HOG_BINS
    total = np.bincount(
        (base + low % _HOG_BINS).ravel(), (length * (1 - share)).ravel(), 64 * _HOG_BINS
    ).astype(np.float64) + np.bincount(
        (base + (low + 1) % _HOG_BINS).ravel(), (length * share).ravel(), 64 * _HOG_BINS
    )
    fine = total.reshape(8, 8, _HOG_BINS)
    coarse = fine.reshape(4, 2, 4, 2, _HOG_BINS).sum(axis=(1, 3))
    return np.concatenate([_unit(coarse), _unit(fine)])


def _uniform_codes() -> NDArray[np.intp]:
    """The 59 classes of 8-bit patterns: 58 with at most two changes around, and the rest."""
    classes = np.full(256, 58, dtype=np.intp)
    found = 0
    for code in range(256):
        turned = (code >> 1) | ((code & 1) << 7)
        if (code ^ turned).bit_count() <= 2:
            classes[code] = found
            found += 1
    return classes


_CLASSES = _uniform_codes()
_AROUND = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))


def _patterns(grey: Pixels) -> NDArray[np.float64]:
    """Uniform local binary patterns at full and half size, square-rooted histograms."""
    parts = []
    for image in (grey, scale_grey(grey)):
        rows, columns = image.shape
        middle = image[1:-1, 1:-1]
        code = np.zeros(middle.shape, dtype=np.uint8)
        for bit, (top, left) in enumerate(_AROUND):
            ahead = image[top : top + rows - 2, left : left + columns - 2] >= middle
            code |= ahead.astype(np.uint8) << bit
        counts = np.bincount(_CLASSES[code].ravel(), minlength=59)
        parts.append(_unit(np.sqrt(counts.astype(np.float64))))
    return np.concatenate(parts)


def scale_grey(grey: Pixels) -> Pixels:
    """Half the size, by area averaging."""
    import cv2

    rows, columns = grey.shape
    half = cv2.resize(grey, (columns // 2, rows // 2), interpolation=cv2.INTER_AREA)
    return np.asarray(half, dtype=np.uint8)
