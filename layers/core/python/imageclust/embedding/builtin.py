"""The built-in descriptor: colour, texture and shape, no weights and nothing to download.

The picture is squashed to 128 × 128 pixels. Blocks, each of length 1 before its weight:

- layout: energies of Gabor filters (4 scales × 8 orientations) on a 4 × 4 grid, after local
  contrast normalisation, square-rooted (after the GIST of Oliva and Torralba 2001);
- texture: uniform local binary patterns at two scales on a 2 × 2 grid (Ojala et al. 2002);
- shape: histograms of oriented gradients on a 4 × 4 grid (Dalal and Triggs 2005);
- spectrum: the mean log power in 10 rings and 8 directions;
- colour: soft Lab histograms on a 2 × 2 grid, square-rooted (Hellinger).

Every block is added to that of the mirrored picture, so a picture and its mirror image agree.
The blocks and weights are the ones that measured best over labelled photos (see the embedding
section of benchmarks/README.md).
"""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from numpy.typing import NDArray

from imageclust.embedding.known import BUILTIN
from imageclust.embedding.preprocess import check_pixels, l2_normalised, scale_to
from imageclust.errors import InvalidInput

_SIDE = 128
#: Part of the key: raise it when a change here changes any vector.
_VERSION = 3
_LAYOUT, _TEXTURE, _FINE_TEXTURE, _SHAPE, _SPECTRUM, _COLOUR = 1.4, 1.0, 0.6, 0.6, 0.6, 0.4
_BINS = 8
_SCALES = 4
_RINGS = 10
_LEVELS = 16
_LUMA_BINS = 5
_CHROMA_BINS = (-0.25, -0.13, -0.05, 0.0, 0.05, 0.13, 0.25)
# Directions o and (8 - o) mod 8 mirror each other.
_MIRRORED_BINS = (-np.arange(_BINS)) % _BINS

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]


class BuiltinDescriptor:
    """Colour, texture and shape of the whole picture as one vector; needs no model file."""

    key = f"{BUILTIN}-v{_VERSION}"
    min_side = _SIDE

    def __init__(self, *, threads: int = 0) -> None:
        if threads < 0:
            raise InvalidInput("The number of threads must be 0 (one a core) or more.")
        self.threads = threads or os.cpu_count() or 1
        self.dimension = _DIMENSION

    def embed(self, images: Iterable[Pixels]) -> NDArray[np.float32]:
        """n pictures, ``(h, w, 3) uint8`` RGB → ``(n, dimension) float32``, rows of length 1."""
        images = [check_pixels(image) for image in images]
        if not images:
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
    halved = cv2.resize(grey, (_SIDE // 2, _SIDE // 2), interpolation=cv2.INTER_AREA)
    half = np.asarray(halved, dtype=np.uint8)
    blocks = [
        _LAYOUT * _unit(_layout(grey)),
        _TEXTURE * _unit(_patterns(half)),
        _FINE_TEXTURE * _unit(_patterns(grey)),
        _SHAPE * _unit(_gradients(grey)),
        _SPECTRUM * _spectrum(grey),
        _COLOUR * _unit(_colour(lab)),
    ]
    return np.concatenate(blocks).astype(np.float32)


def _unit(values: Floats) -> Floats:
    flat = values.ravel()
    length = float(np.sqrt(flat @ flat))
    return flat / length if length > 0 else flat


def _grid(rows: int, columns: int, cells: int) -> NDArray[np.intp]:
    """(rows, columns): the number of the grid cell that each pixel lies in."""
    down, across = np.arange(rows) * cells // rows, np.arange(columns) * cells // columns
    return np.asarray(down[:, None] * cells + across, dtype=np.intp)


@cache
def _gabor_filters() -> list[NDArray[np.float32]]:
    """Eight even Gabor filters, 9 × 9, wavelength 4.2 pixels, no mean, absolute sum 1."""
    import cv2

    filters = []
    for turn in range(_BINS):
        kernel = cv2.getGaborKernel((9, 9), 2.2, turn * np.pi / _BINS, 4.2, 0.7, 0, cv2.CV_32F)
        kernel = kernel - kernel.mean()
        filters.append((kernel / np.abs(kernel).sum()).astype(np.float32))
    return filters


def _layout(grey: Pixels) -> Floats:
    """(4, 4, scales × directions): square roots of filter energies, mirror added."""
    import cv2

    x = np.log1p(grey.astype(np.float32))
    x = x - cv2.GaussianBlur(x, (0, 0), 8)
    x = x / (0.2 + np.sqrt(cv2.GaussianBlur(x * x, (0, 0), 8)))
    energies = []
    for _ in range(_SCALES):
        for kernel in _gabor_filters():
            answer = np.abs(cv2.filter2D(x, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT))
            energies.append(cv2.resize(answer, (4, 4), interpolation=cv2.INTER_AREA))
        x = cv2.resize(x, (x.shape[1] // 2, x.shape[0] // 2), interpolation=cv2.INTER_AREA)
    roots = np.sqrt(np.stack(energies, axis=-1).astype(np.float64))
    roots = roots.reshape(4, 4, _SCALES, _BINS)
    return np.asarray(roots + roots[:, ::-1][..., _MIRRORED_BINS], dtype=np.float64)


# The eight neighbours, clockwise from the upper left: (row, column) of a 3 × 3 window.
_AROUND = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))


def _uniform_classes() -> NDArray[np.intp]:
    """The 59 classes of 8-bit patterns: 58 with at most two changes around, and the rest."""
    classes = np.full(256, 58, dtype=np.intp)
    found = 0
    for code in range(256):
        turned = (code >> 1) | ((code & 1) << 7)
        if (code ^ turned).bit_count() <= 2:
            classes[code] = found
            found += 1
    return classes


def _mirrored_classes() -> NDArray[np.intp]:
    """The class that each of the 59 becomes when the picture is mirrored."""
    moved = [_AROUND.index((row, 2 - column)) for row, column in _AROUND]
    turned = np.zeros(59, dtype=np.intp)
    for code in range(256):
        mirror = sum(((code >> bit) & 1) << moved[bit] for bit in range(8))
        turned[_CLASSES[code]] = _CLASSES[mirror]
    return turned


_CLASSES = _uniform_classes()
_MIRRORED_CLASSES = _mirrored_classes()


def _patterns(grey: NDArray[np.uint8]) -> Floats:
    """(2, 2, 59): square roots of the shares of uniform local binary patterns, mirror added."""
    rows, columns = grey.shape[0] - 2, grey.shape[1] - 2
    middle = grey[1:-1, 1:-1]
    code = np.zeros(middle.shape, dtype=np.uint8)
    for bit, (top, left) in enumerate(_AROUND):
        ahead = grey[top : top + rows, left : left + columns] >= middle
        code |= ahead.view(np.uint8) << bit
    index = _grid(rows, columns, 2) * 59 + _CLASSES[code]
    counts = np.bincount(index.ravel(), minlength=4 * 59).reshape(2, 2, 59)
    return np.sqrt((counts + counts[:, ::-1][..., _MIRRORED_CLASSES]).astype(np.float64))


def _gradients(grey: Pixels) -> Floats:
    """(4, 4, directions): histograms of gradients, root of the length as weight, mirror added."""
    import cv2

    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    weight = np.sqrt(np.sqrt(dx * dx + dy * dy))
    place = np.mod(np.arctan2(dy, dx), np.float32(np.pi)) * np.float32(_BINS / np.pi)
    low = place.astype(np.intp)
    share = place - low
    base = _grid(_SIDE, _SIDE, 4) * _BINS
    size = 16 * _BINS
    below = np.bincount((base + low % _BINS).ravel(), (weight * (1 - share)).ravel(), size)
    above = np.bincount((base + (low + 1) % _BINS).ravel(), (weight * share).ravel(), size)
    hist = (below + above).astype(np.float64).reshape(4, 4, _BINS)
    return np.asarray(hist + hist[:, ::-1][..., _MIRRORED_BINS], dtype=np.float64)


@cache
def _spectrum_bins() -> tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.intp]]:
    """Window, bin of each frequency, and how many frequencies a bin has."""
    window = np.hanning(_SIDE)
    down, across = np.fft.fftfreq(_SIDE)[:, None], np.fft.rfftfreq(_SIDE)[None]
    radius = np.log2(np.maximum(np.hypot(down, across), 1e-6))
    ring = np.digitize(radius, np.linspace(-6, -1, _RINGS - 1))
    angle = np.mod(np.arctan2(down, across), np.pi)
    index = ring * _BINS + np.minimum((angle / np.pi * _BINS).astype(np.intp), _BINS - 1)
    counts = np.maximum(np.bincount(index.ravel(), minlength=_RINGS * _BINS), 1)
    return np.outer(window, window).astype(np.float32), index.ravel(), counts


def _spectrum(grey: Pixels) -> Floats:
    """(rings × directions,): mean log power, mirror added, scaled to about length 1."""
    window, index, counts = _spectrum_bins()
    x = grey.astype(np.float32)
    power = np.log1p(np.abs(np.fft.rfft2((x - x.mean()) * window)))
    means = np.bincount(index, power.ravel(), _RINGS * _BINS) / counts
    rings = means.reshape(_RINGS, _BINS)
    # Bins of angle start at 0, so the mirror of bin o is bin 7 - o.
    return np.asarray((rings + rings[:, ::-1]).ravel() / 18, dtype=np.float64)


def _triangles(centres: Floats) -> Floats:
    """(levels, centres): linear interpolation of equal levels over 0..1 to soft bins."""
    middles = (np.arange(_LEVELS) + 0.5) / _LEVELS
    return np.stack([np.interp(middles, centres, row) for row in np.eye(len(centres))], axis=1)


_LUMA = _triangles(np.linspace(0.1, 0.9, _LUMA_BINS))
_CHROMA = _triangles(0.5 + np.array(_CHROMA_BINS))
_DIMENSION = (
    16 * _SCALES * _BINS
    + 2 * 4 * 59
    + 16 * _BINS
    + _RINGS * _BINS
    + 4 * _LUMA_BINS * len(_CHROMA_BINS) ** 2
)


def _colour(lab: Pixels) -> Floats:
    """(2, 2, 5, 7, 7): square roots of soft Lab histograms, mirror added."""
    codes = (lab >> 4).astype(np.intp)
    index = (codes[..., 0] * _LEVELS + codes[..., 1]) * _LEVELS + codes[..., 2]
    index += _grid(_SIDE, _SIDE, 2) * _LEVELS**3
    counts = np.bincount(index.ravel(), minlength=4 * _LEVELS**3).astype(np.float64)
    soft = np.einsum("cijk,il->cljk", counts.reshape(4, _LEVELS, _LEVELS, _LEVELS), _LUMA)
    soft = _CHROMA.T @ soft @ _CHROMA
    cells = soft.reshape(2, 2, _LUMA_BINS, len(_CHROMA_BINS), len(_CHROMA_BINS))
    return np.asarray(np.sqrt(cells + cells[:, ::-1]), dtype=np.float64)
