"""Facts of one picture that need no model: identity, likeness, quality, colours, capture.

Everything is computed from the pixels that the embedder sees: one read and one decode an image.
"""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from imageclust.images.decode import DecodedImage
from imageclust.images.exif import parse_exif
from imageclust.images.scale import Pixels, fit_long_side

_HASH_SIDE = 32
_HASH_BITS = 8
_MEASURE_SIDE = 256
_COLOUR_SIDE = 64
_MERGE_DISTANCE = 22.0
_MIN_SHARE = 0.03
_MAX_COLOURS = 5


@dataclass(frozen=True)
class Fingerprint:
    """What a picture is like, without a model.

    Args:
        sha256: hex digest of the file's bytes: its identity.
        phash: 64-bit perceptual hash as 16 hex digits; survives re-encoding and rescaling. Two
            pictures that look alike differ in few bits. A picture without any structure has the
            hash ``0000000000000000``.
        sharpness: 0..1; below about 0.1 looks blurred.
        brightness: mean luma, 0 (black) to 1 (white).
        contrast: standard deviation of luma, 0 to 0.5.
        colourfulness: 0 (grey) to 1 (vivid), after Hasler and Süsstrunk (2003).
        colours: dominant colours, largest first: (red, green, blue, share of the picture).
        words: plain words for naming a picture, such as ``dark``, ``portrait``, ``vertical lines``.
        captured_at: ISO 8601 from EXIF, or None.
        camera: maker and model from EXIF, or None.
        gps: (latitude, longitude); None unless it was asked for.
    """

    sha256: str
    phash: str
    sharpness: float
    brightness: float
    contrast: float
    colourfulness: float
    colours: tuple[tuple[int, int, int, float], ...]
    words: tuple[str, ...]
    captured_at: str | None = None
    camera: str | None = None
    gps: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; facts that are absent are left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Fingerprint":
        """The inverse of :meth:`to_json`."""
        gps = stored.get("gps")
        return cls(
            sha256=stored["sha256"],
            phash=stored["phash"],
            sharpness=float(stored["sharpness"]),
            brightness=float(stored["brightness"]),
            contrast=float(stored["contrast"]),
            colourfulness=float(stored["colourfulness"]),
            colours=tuple((int(r), int(g), int(b), float(s)) for r, g, b, s in stored["colours"]),
            words=tuple(stored["words"]),
            captured_at=stored.get("captured_at"),
            camera=stored.get("camera"),
            gps=None if gps is None else (float(gps[0]), float(gps[1])),
        )


def fingerprint(decoded: DecodedImage, data: bytes, *, gps: bool = False) -> Fingerprint:
    """Measure one decoded picture.

    Args:
        decoded: the picture, upright.
        data: the file's bytes, for its digest.
        gps: keep the place where the picture was taken; off unless the user asked for it.
    """
    pixels = decoded.pixels
    small = fit_long_side(pixels, _MEASURE_SIDE)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    luma = (grey / 255).astype(np.float32)
    facts = parse_exif(decoded.exif)
    brightness, contrast = float(luma.mean()), float(luma.std())
    vivid = _colourfulness(small)
    sharp = _sharpness(luma)
    return Fingerprint(
        sha256=hashlib.sha256(data).hexdigest(),
        phash=_phash(pixels),
        sharpness=round(sharp, 4),
        brightness=round(brightness, 4),
        contrast=round(contrast, 4),
        colourfulness=round(vivid, 4),
        colours=_dominant_colours(small),
        words=(
            _shape_word(decoded.width, decoded.height),
            *_light_words(brightness, contrast, vivid),
            *_texture_words(luma, sharp),
        ),
        captured_at=facts.captured_at,
        camera=facts.camera,
        gps=facts.gps if gps else None,
    )


def _phash(pixels: Pixels) -> str:
    """Signs of the lowest 8 × 8 cosine coefficients against their median (Zauner, 2010)."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    enlarge = min(grey.shape) < _HASH_SIDE
    interpolation = cv2.INTER_LINEAR if enlarge else cv2.INTER_AREA
    square = cv2.resize(grey, (_HASH_SIDE, _HASH_SIDE), interpolation=interpolation)
    low = cv2.dct(square)[:_HASH_BITS, :_HASH_BITS].ravel()
    # Without structure the coefficients are rounding noise, and their signs would be random.
    low[np.abs(low) < 1.0] = 0.0
    bits = low > np.median(low[1:])
    bits[0] = False
    return f"{int(''.join('1' if bit else '0' for bit in bits), 2):016x}"


def _sharpness(luma: npt.NDArray[np.float32]) -> float:
    """Strength of the finest edges against all edges' room: variance of the Laplacian, squashed."""
    variance = float(cv2.Laplacian(luma, cv2.CV_32F).var())
    return variance / (variance + 0.01)


def _colourfulness(pixels: Pixels) -> float:
    red, green, blue = (pixels[:, :, c].astype(np.float32) for c in range(3))
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = float(np.hypot(red_green.std(), yellow_blue.std()))
    centre = float(np.hypot(red_green.mean(), yellow_blue.mean()))
    return min(1.0, (spread + 0.3 * centre) / 150)


def _dominant_colours(pixels: Pixels) -> tuple[tuple[int, int, int, float], ...]:
    """Bins of a coarse Lab histogram, each merged into the nearest larger one that looks the same.

    Deterministic, unlike k-means with random starts, and a small vivid area is not averaged away.
    """
    small = fit_long_side(pixels, _COLOUR_SIDE)
    rgb = small.reshape(-1, 3).astype(np.float64)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    cells = np.floor(lab / 16).astype(np.int64) + 16
    codes = (cells[:, 0] * 64 + cells[:, 1]) * 64 + cells[:, 2]
    _, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(inverse, lab[:, c]) for c in range(3)], axis=1)
    sums_rgb = np.stack([np.bincount(inverse, rgb[:, c]) for c in range(3)], axis=1)
    centres: list[npt.NDArray[np.float64]] = []
    totals: list[tuple[int, npt.NDArray[np.float64]]] = []
    for index in np.argsort(-counts, kind="stable"):
        centre = sums[index] / counts[index]
        away = [float(np.linalg.norm(centre - other)) for other in centres]
        nearest = int(np.argmin(away)) if away else -1
        if nearest >= 0 and away[nearest] < _MERGE_DISTANCE:
            count, total = totals[nearest]
            totals[nearest] = (count + int(counts[index]), total + sums_rgb[index])
        else:
            centres.append(centre)
            totals.append((int(counts[index]), sums_rgb[index]))
    totals.sort(key=lambda entry: -entry[0])
    kept = [entry for entry in totals if entry[0] >= _MIN_SHARE * len(rgb)] or totals[:1]
    return tuple(
        (*_rgb_of(total / count), round(count / len(rgb), 3))
        for count, total in kept[:_MAX_COLOURS]
    )


def _rgb_of(mean: npt.NDArray[np.float64]) -> tuple[int, int, int]:
    red, green, blue = np.rint(mean)
    return int(red), int(green), int(blue)


def _shape_word(width: int, height: int) -> str:
    ratio = width / height
    if ratio >= 2:
        return "panorama"
    if ratio <= 0.5:
        return "tall"
    if ratio > 1.1:
        return "landscape"
    return "portrait" if ratio < 0.9 else "square"


def _light_words(brightness: float, contrast: float, colourfulness: float) -> list[str]:
    words = []
    if brightness < 0.25:
        words.append("dark")
    elif brightness > 0.75:
        words.append("bright")
    if contrast < 0.1:
        words.append("low contrast")
    elif contrast > 0.3:
        words.append("high contrast")
    if colourfulness < 0.03:
        words.append("black and white")
    elif colourfulness < 0.15:
        words.append("muted colours")
    elif colourfulness > 0.5:
        words.append("vivid colours")
    return words


def _texture_words(luma: npt.NDArray[np.float32], sharpness: float) -> list[str]:
    """Amount and direction of edges, from the structure tensor of the whole picture."""
    if min(luma.shape) < 8:
        return []
    across = cv2.Sobel(luma, cv2.CV_32F, 1, 0, scale=0.25)
    down = cv2.Sobel(luma, cv2.CV_32F, 0, 1, scale=0.25)
    busy = float((np.hypot(across, down) > 0.06).mean())
    words = []
    if busy < 0.08:
        words.append("smooth")
    elif busy > 0.45:
        words.append("busy texture")
    if sharpness < 0.08 and busy > 0.02:
        words.append("blurred")
    xx, yy = float((across**2).mean()), float((down**2).mean())
    xy = float((across * down).mean())
    energy = xx + yy
    coherence = float(np.hypot(xx - yy, 2 * xy)) / energy if energy > 1e-6 else 0.0
    if coherence > 0.4:
        angle = float(np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)))
        if abs(angle) < 22.5:
            words.append("vertical lines")
        elif abs(angle) > 67.5:
            words.append("horizontal lines")
        else:
            words.append("diagonal lines")
    return words
