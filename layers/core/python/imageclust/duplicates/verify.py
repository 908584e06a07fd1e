"""Are two pictures the same one? Thumbnails are turned, aligned and compared block by block.

Alignment is by enhanced correlation (Evangelidis and Psarakis, 2008) over affine maps, first at
32 × 32 in the likeliest of the eight orientations, then at 128 × 128. The comparison is on the
middle band of detail, so blur, noise and light do not count against a copy, and the worst tenth
of the detail must agree too, so a moved subject does. A last look at 256 × 256 finds the blocks
where both pictures show something and it is not the same: other words on one form, other stars in
one sky.

An alignment of six numbers fits a moon to any moon and a chess board to any other. So a picture
whose detail fills few blocks, or that repeats itself, is confirmed only where it lies on the other
frame on frame and pixel on pixel; one without any detail never is.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

COARSE_SIDE = 32
MIDDLE_SIDE = 128
FINE_SIDE = 256
_BLOCKS = 8
_FINE_BLOCKS = 16
_SCALES = (1.0, 0.85, 1.15)
_SURE = 0.97
_HOPELESS = 0.6
_COARSE_STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 12, 1e-3)
_FINE_STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 15, 1e-3)
_LEAST_OVERLAP = 0.25
_COLOURFUL = 6.0
_PLAINLY = 0.7, 0.3  # structure and worst below which there is no need to look closer
_SEEN = 1.5  # grey levels of fine detail that are more than noise
_PLAIN = 3.5  # and those that strong compression does not make by itself
_OTHER_COLOUR = 12.0  # in a and b of Lab
_CLASH = 0.4  # correlation below which two blocks show different things
_FRAME_ON_FRAME = 0.01  # of the side, at the corners
_LEAST_SHOWN = 8  # of the fine blocks


@dataclass(frozen=True)
class Alignment:
    """How the second picture lies on the first.

    ``score`` is the correlation where they overlap, ``orientation`` 0 to 7 (mirrored across, down,
    then turned), ``warp`` (2, 3) float32 maps COARSE_SIDE pixels of the first to the second.
    """

    score: float
    orientation: int
    warp: Plane


@dataclass(frozen=True)
class Match:
    """Agreement of two aligned pictures.

    ``structure`` is the mean agreement of their blocks weighted by detail, ``worst`` that of the
    worst tenth of the detail, both at most 1. ``overlap`` and ``contained`` are the shares of the
    two pictures that both show, the smaller and the larger: a crop is contained in its original,
    two frames of a pan are not in each other. ``colour`` is the agreement of their hues, 1 where
    either is grey. ``clash`` is the share of the finest blocks in which both show detail, but not
    the same; ``hues`` the share of small cells plainly coloured in both, but not alike. ``detail``
    is over how many of 64 blocks the detail spreads, ``repeats`` how far the picture is like
    itself shifted, at most 1. ``exact`` says that frame lies on frame and pixel on pixel.
    """

    structure: float
    worst: float
    overlap: float
    contained: float
    colour: float
    clash: float = 1.0
    hues: float = 1.0
    detail: float = 0.0
    repeats: float = 1.0
    exact: bool = False


NO_MATCH = Match(0.0, 0.0, 0.0, 0.0, 0.0)


def coarse_view(rgb: NDArray[np.uint8]) -> Plane:
    """(h, w, 3) or (h, w) uint8 → (32, 32) float32 grey, smoothed; shape is given up."""
    grey = rgb if rgb.ndim == 2 else cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    middle = _resized(grey, 2 * COARSE_SIDE).astype(np.float32)
    return _resized(_smooth(middle, 1.0), COARSE_SIDE)


def fine_view(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h, w, 3) or (h, w) uint8 → (256, 256, 3) uint8."""
    square = _resized(rgb, FINE_SIDE)
    return square if square.ndim == 3 else np.repeat(square[:, :, None], 3, axis=2)


def align(first: Plane, second: Plane) -> Alignment:
    """Best affine alignment of two coarse views over the eight orientations."""
    pattern = _standard(first).ravel()
    scores = [
        float(pattern @ _standard(_oriented(second, o)).ravel()) / pattern.size for o in range(8)
    ]
    orientation = int(np.argmax(scores))
    turned = _oriented(second, orientation)
    best = Alignment(scores[orientation], orientation, _centred_scale(1.0))
    if best.score > _SURE:
        return best
    for scale in _SCALES:
        warp = _refined(first, turned, _centred_scale(scale), _COARSE_STOP)
        if warp is not None:
            score = _correlation(first, turned, warp)
            if score > best.score:
                best = Alignment(score, orientation, warp)
        if best.score > _SURE or best.score < _HOPELESS:
            break
    return best


def compare(first: NDArray[np.uint8], second: NDArray[np.uint8], alignment: Alignment) -> Match:
    """Agreement of two fine views, starting from the alignment of their coarse views."""
    turned = _oriented(second, alignment.orientation)
    a, b = (_smooth(_grey(_resized(view, MIDDLE_SIDE)), 1.5) for view in (first, turned))
    warp = _scaled(alignment.warp, MIDDLE_SIDE / COARSE_SIDE)
    refined = _refined(a, b, warp, _FINE_STOP)
    warp = warp if refined is None else refined
    both = _overlap(warp, MIDDLE_SIDE, margin=4)
    if both.mean() < _LEAST_OVERLAP:
        return NO_MATCH
    share_of_first = float(_overlap(warp, MIDDLE_SIDE, margin=0).mean())
    share_of_second = min(1.0, share_of_first * abs(float(np.linalg.det(warp[:, :2]))))
    p, q = _band(a, _warped(b, warp, cv2.BORDER_REPLICATE), both, sigma=6.0)
    p_sd, q_sd = float(p[both].std()), float(q[both].std())
    if min(p_sd, q_sd) < 0.5:
        return NO_MATCH  # nothing to recognise: a plain wall is nobody's copy
    p, q = p / np.float32(p_sd), q / np.float32(q_sd)
    blocks = _block_moments(p, q, both, _BLOCKS)
    structure, worst, detail = _block_agreement(blocks)
    colour = _colour_agreement(first, turned, _scaled(warp, COARSE_SIDE / MIDDLE_SIDE))
    overlap, contained = sorted((share_of_first, share_of_second))
    match = Match(structure, worst, overlap, contained, colour)
    if structure < _PLAINLY[0] or worst < _PLAINLY[1]:
        return match
    return _looked_closer(
        replace(match, detail=detail, repeats=_repeats(p, both)), first, turned, warp
    )


def _looked_closer(
    match: Match, first: NDArray[np.uint8], turned: NDArray[np.uint8], warp: Plane
) -> Match:
    """The match with what only the fine views show."""
    warp = _scaled(warp, FINE_SIDE / MIDDLE_SIDE)
    a, b = (_smooth(_grey(view), 1.0) for view in (first, turned))
    refined = _refined(a, b, warp, _FINE_STOP)
    warp = warp if refined is None else refined
    both = _overlap(warp, FINE_SIDE, margin=6)
    if both.mean() < _LEAST_OVERLAP:
        return NO_MATCH
    p, q = _band(a, _warped(b, warp, cv2.BORDER_REPLICATE), both, sigma=4.0)
    pp, qq, pq = _block_moments(p, q, both, _FINE_BLOCKS)
    gain = float(pp.sum() / max(qq.sum(), 1e-9))
    agreement = pq / np.sqrt(pp * qq + 0.3)
    # A mark or a blur is detail in one of the two only, and no clash.
    alike = np.minimum(pp, qq * gain) > np.maximum(pp, qq * gain) / 4
    clash = (np.minimum(pp, qq) > _PLAIN**2) & alike & (agreement < _CLASH)
    detailed = (np.maximum(pp, qq * gain) > _PLAIN**2).sum()
    # One block may be the chance of a strong compression.
    share = float(max(0, clash.sum() - 1) / max(1, detailed))
    shown = np.maximum(pp, qq) > _SEEN**2
    if shown.sum() < _LEAST_SHOWN:
        return NO_MATCH  # a gradient: its middle band is the frame's edge
    hues = _other_hues(first, turned, _scaled(warp, COARSE_SIDE / FINE_SIDE))
    corners = np.array([[x, y] for x in (0, FINE_SIDE) for y in (0, FINE_SIDE)])
    moved = np.abs(corners @ warp[:, :2].T + warp[:, 2] - corners).max() / FINE_SIDE
    exact = (
        moved <= _FRAME_ON_FRAME
        and float((agreement[shown] < 0.7).mean()) <= 0.05
        and _same_pixels(first, turned)
    )
    return replace(match, clash=share, hues=hues, exact=bool(exact))


def _same_pixels(first: NDArray[np.uint8], turned: NDArray[np.uint8]) -> bool:
    """Whether the two views, not aligned any further, differ by no more than compression does."""
    a, b = (cv2.GaussianBlur(view, (0, 0), 1.5).astype(np.int16) for view in (first, turned))
    away = np.abs(a - b)
    return float(away.mean()) <= 3.0 and float(np.percentile(away, 99.5)) <= 16.0


def _band(a: Plane, b: Plane, both: NDArray[np.bool_], *, sigma: float) -> tuple[Plane, Plane]:
    """The detail finer than ``sigma``, around 0, where both pictures are."""
    p, q = (view - _smooth(view, sigma) for view in (a, b))
    return (p - p[both].mean()) * both, (q - q[both].mean()) * both


def _block_moments(
    p: Plane, q: Plane, both: NDArray[np.bool_], blocks: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Variances of p and of q and their covariance, in each block that both at least half fill."""
    side = len(p) // blocks

    def total(plane: Plane) -> NDArray[np.float64]:
        return np.asarray(
            plane.reshape(blocks, side, blocks, side).sum(axis=(1, 3), dtype=np.float64)
        )

    count = total(both.astype(np.float32))
    used = count > side * side / 2
    count = np.maximum(count, 1)
    mean_p, mean_q = total(p) / count, total(q) / count
    pp = np.maximum(total(p * p) / count - mean_p**2, 0)
    qq = np.maximum(total(q * q) / count - mean_q**2, 0)
    return pp[used], qq[used], (total(p * q) / count - mean_p * mean_q)[used]


def _block_agreement(
    blocks: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
) -> tuple[float, float, float]:
    """Mean agreement, that of the worst tenth of the detail, and how many blocks have detail."""
    pp, qq, pq = blocks
    if not pp.size:
        return 0.0, 0.0, 0.0
    # Structure and contrast of SSIM (Wang et al., 2004); the constant forgives blocks of noise.
    agreement = (2 * pq + 0.15) / (pp + qq + 0.15)
    energy = (pp + qq) / 2
    weight = energy + 0.05
    weight /= weight.sum()
    order = np.argsort(agreement, kind="stable")
    tenth = min(int(np.searchsorted(np.cumsum(weight[order]), 0.1)), len(order) - 1)
    spread = float(energy.sum() ** 2 / max(float((energy**2).sum()), 1e-12))
    return float((agreement * weight).sum()), float(agreement[order][tenth]), spread


def _repeats(p: Plane, both: NDArray[np.bool_]) -> float:
    """Highest correlation of the detail with itself, shifted by a twelfth of the side or more."""
    size = (2 * len(p), 2 * len(p))
    detail, square, mask = (np.fft.rfft2(x, size) for x in (p, p * p, both.astype(np.float32)))

    def correlated(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(np.fft.irfft2(x * np.conj(y), size))

    energy = correlated(square, mask) * correlated(mask, square)
    likeness = correlated(detail, detail) / np.sqrt(np.maximum(energy, 1e-3))
    far = _far(len(p)) & (correlated(mask, mask) > 0.4 * both.sum())
    return float(likeness[far].max(initial=0.0))


@cache
def _far(side: int) -> NDArray[np.bool_]:
    """(2 side, 2 side): the shifts, which wrap around, that are a twelfth of the side or more."""
    shift = np.minimum(np.arange(2 * side), 2 * side - np.arange(2 * side))
    return np.asarray(np.hypot(shift[:, None], shift[None, :]) >= side / 12)


def _other_hues(first: NDArray[np.uint8], second: NDArray[np.uint8], warp: Plane) -> float:
    """Share of the cells in which both are plainly coloured, and not with the same colour."""
    both = _overlap(warp, COARSE_SIDE, margin=1)
    a = _chroma(first)[both]
    b = _warped(_chroma(second), warp, cv2.BORDER_REPLICATE)[both]
    if not len(a):
        return 0.0
    strength_a, strength_b = np.hypot(a[:, 0], a[:, 1]), np.hypot(b[:, 0], b[:, 1])
    coloured = np.minimum(strength_a, strength_b) > _OTHER_COLOUR
    return float((coloured & ((a * b).sum(1) < 0.5 * strength_a * strength_b)).mean())


def _colour_agreement(first: NDArray[np.uint8], second: NDArray[np.uint8], warp: Plane) -> float:
    """Correlation of hue and strength of colour, at COARSE_SIDE: colour has no fine detail."""
    both = _overlap(warp, COARSE_SIDE, margin=1)
    a = _chroma(first)[both]
    b = _warped(_chroma(second), warp, cv2.BORDER_REPLICATE)[both]
    if not len(a):
        return 1.0
    strength = float(np.sqrt((a * a).sum(1).mean())), float(np.sqrt((b * b).sum(1).mean()))
    if min(strength) < _COLOURFUL:
        return 1.0
    return float((a * b).sum(1).mean()) / (strength[0] * strength[1])


def _chroma(rgb: NDArray[np.uint8]) -> Plane:
    small = _resized(rgb, COARSE_SIDE).astype(np.float32) / 255
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
    return np.asarray(lab[:, :, 1:], dtype=np.float32)


def _grey(rgb: NDArray[np.uint8]) -> Plane:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)


def _smooth(plane: Plane, sigma: float) -> Plane:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma), dtype=np.float32)


def _resized(image: NDArray[Any], side: int) -> NDArray[Any]:
    shrink = min(image.shape[:2]) >= side
    flag = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (side, side), interpolation=flag))


def _oriented(view: NDArray[Any], orientation: int) -> NDArray[Any]:
    turned = view.swapaxes(0, 1) if orientation >= 4 else view
    if orientation & 1:
        turned = turned[:, ::-1]
    if orientation & 2:
        turned = turned[::-1]
    return np.ascontiguousarray(turned)


def _standard(view: Plane) -> Plane:
    centred: Plane = view - view.mean()
    spread = max(float(np.sqrt((centred * centred).mean())), 1.0)
    return np.asarray(centred / np.float32(spread), dtype=np.float32)


def _centred_scale(scale: float) -> Plane:
    shift = (1 - scale) * (COARSE_SIDE - 1) / 2
    return np.array([[scale, 0, shift], [0, scale, shift]], np.float32)


def _scaled(warp: Plane, factor: float) -> Plane:
    """The same map on a grid ``factor`` times as fine (pixel centres at halves)."""
    linear, shift = warp[:, :2], warp[:, 2]
    half = np.full(2, (factor - 1) / 2, np.float32)
    moved = factor * shift + half - linear @ half
    return np.concatenate([linear, moved[:, None]], axis=1).astype(np.float32)


def _refined(
    first: Plane, second: Plane, warp: Plane, stop: tuple[int, int, float]
) -> Plane | None:
    """The map that correlates best, from ``warp``; None where the search runs away."""
    try:
        _, better = cv2.findTransformECC(
            first, second, warp.copy(), cv2.MOTION_AFFINE, stop, _everywhere(len(first)), 3
        )
    except cv2.error:  # how OpenCV says that it did not converge
        return None
    return np.asarray(better, dtype=np.float32)


def _warped(view: Plane, warp: Plane, border: int = cv2.BORDER_CONSTANT) -> Plane:
    size = (view.shape[1], view.shape[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(view, warp, size, flags=flags, borderMode=border), np.float32)


def _overlap(warp: Plane, side: int, *, margin: int) -> NDArray[np.bool_]:
    """(side, side): where the second picture, so laid, covers the first; edges left out."""
    y, x = _grid(side, margin)
    u = warp[0, 0] * x + warp[0, 1] * y + warp[0, 2]
    v = warp[1, 0] * x + warp[1, 1] * y + warp[1, 2]
    last = side - 1 - margin
    mask = np.zeros((side, side), bool)
    mask[margin : side - margin, margin : side - margin] = (
        (u >= margin) & (u <= last) & (v >= margin) & (v <= last)
    )
    return mask


@cache
def _everywhere(side: int) -> NDArray[np.uint8]:
    return np.ones((side, side), np.uint8)


@cache
def _grid(side: int, margin: int) -> tuple[Plane, Plane]:
    y, x = np.mgrid[margin : side - margin, margin : side - margin].astype(np.float32)
    return y, x


def _correlation(first: Plane, second: Plane, warp: Plane) -> float:
    both = _overlap(warp, COARSE_SIDE, margin=1)
    if both.mean() < _LEAST_OVERLAP:
        return 0.0
    a, b = first[both], _warped(second, warp)[both]
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + a.size))
