"""Are two pictures the same one? Thumbnails are turned, aligned and compared block by block.

Alignment is by enhanced correlation (Evangelidis and Psarakis, 2008) over affine maps, first at
32 × 32 in the likeliest of the eight orientations, then at 128 × 128. The comparison is on the
middle band of detail, so blur, noise and light do not count against a copy, and the worst tenth
of the detail must agree too, so a moved subject does. A last look at 256 × 256 finds the blocks
where both pictures show something and it is not the same: other words on one form, other stars in
one sky. What was put around a picture (a frame, bars, a caption on a bar) is left out where the two
lie better on each other without it; but not where both show something there, two things on one
banner or two captions to one picture, for then it may be all that tells them apart.

An alignment of six numbers fits a moon to any moon and a chess board to any other. So a picture
whose detail fills few blocks, or that repeats itself, is confirmed only where it lies on the other
frame on frame and pixel on pixel; one without any detail never is.
"""

from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from imageclust.duplicates.thresholds import Thresholds

Plane = NDArray[np.float32]

COARSE_SIDE = 32
MIDDLE_SIDE = 128
FINE_SIDE = 256
_BLOCKS = 8
_FINE_BLOCKS = 16
_SCALES = (1.0, 0.85, 1.15)
_SURE = 0.97
_HOPELESS = 0.6
_UNLIKE = 0.3  # of the coarse views as they are; 19 in 20 cropped copies are above .43
_COARSE_STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 12, 1e-3)
_FINE_STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 15, 1e-3)
_LEAST_OVERLAP = 0.25
_COLOURFUL = 6.0
_SEEN = 1.5  # grey levels of fine detail that are more than noise
_PLAIN = 3.5  # and those that strong compression does not make by itself
_OTHER_COLOUR = 12.0  # in a and b of Lab
_CAST = 1.25  # of a channel against the mean of the three
_CLASH = 0.4  # correlation below which two blocks show different things
_FRAME_ON_FRAME = 0.01  # of the side, at the corners
_LEAST_SHOWN = 8  # of the fine blocks
_BAR_COLOUR = 14  # levels within which a pixel has the colour of a bar
_BAR = 0.5  # of a row has it, in a bar
_EDGE = 0.3  # and beyond
_MARK = 0.02  # of a row of a bar that has another colour, where something is on it
_TRACES = 6  # rows next to the picture
_TIE = 0.01  # in correlation
_LEAST_LEFT = 0.35  # of a side, without bars


@dataclass(frozen=True)
class Alignment:
    """How the second picture lies on the first.

    ``score`` is the correlation where they overlap, ``orientation`` 0 to 7 (mirrored across, down,
    then turned), ``warp`` (2, 3) float32 maps COARSE_SIDE pixels of the first to the second.
    ``inside`` says that both were laid without their frames.
    """

    score: float
    orientation: int
    warp: Plane
    inside: bool = False


@dataclass(frozen=True)
class Match:
    """Agreement of two aligned pictures.

    ``structure`` is the mean agreement of their blocks weighted by detail, ``worst`` that of the
    worst tenth of the detail, both at most 1. ``overlap`` and ``contained`` are the shares of the
    two pictures that both show, the smaller and the larger: a crop is contained in its original,
    two frames of a pan are not in each other. ``colour`` is the agreement of their hues, 1 where
    either is grey; ``hues`` the share of small cells plainly coloured in both, but not alike.
    ``detail`` is over how many of 64 blocks the detail spreads, ``repeats`` how far the picture is
    like itself shifted, at most 1. ``clash`` is the share of the finest blocks in which both show
    detail, but not the same. ``exact`` says that frame lies on frame and pixel on pixel.

    The comparison stops where a pair is plainly no copy: what comes later keeps its default, with
    which nothing is a copy.
    """

    structure: float
    worst: float
    overlap: float
    contained: float
    colour: float
    hues: float = 1.0
    detail: float = 0.0
    repeats: float = 1.0
    clash: float = 1.0
    exact: bool = False

    def is_copy(self, limits: Thresholds) -> bool:
        return (
            self.is_plausible(limits)
            and self.clash <= limits.clash
            and (self.tells(limits) or self.exact)
        )

    def is_plausible(self, limits: Thresholds) -> bool:
        """Whether nothing speaks against a copy at half of the resolution."""
        return (
            self.structure >= limits.structure
            and self.worst >= limits.worst
            and self.overlap >= limits.overlap
            and self.contained >= limits.contained
            and self.colour >= limits.colour
            and self.hues <= limits.hues
        )

    def tells(self, limits: Thresholds) -> bool:
        """Whether the picture has detail that no other picture can be laid on."""
        return self.detail >= limits.detail and self.repeats <= limits.repeats


NO_MATCH = Match(0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class CoarseView:
    """A picture as ``align`` looks at it, and what is inside its frame where it has one.

    (32, 32) float32 grey each, smoothed. ``told`` says that its frame shows something, too.
    """

    whole: Plane
    inside: Plane | None = None
    told: bool = False


def coarse_view(rgb: NDArray[np.uint8]) -> CoarseView:
    """(h, w, 3) or (h, w) uint8 → the view of it; shape is given up."""
    inside, told = _unframed(rgb)
    if inside.shape == rgb.shape:
        return CoarseView(_coarse(rgb))
    return CoarseView(_coarse(rgb), _coarse(inside), told)


def _coarse(rgb: NDArray[np.uint8]) -> Plane:
    grey = rgb if rgb.ndim == 2 else cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    middle = _resized(grey, 2 * COARSE_SIDE).astype(np.float32)
    return _resized(_smooth(middle, 1.0), COARSE_SIDE)


def unframed(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture, as a view, without what was put around it: a frame, bars, a caption on a bar.

    A bar begins with a row of one colour and ends at a straight edge, where hardly a pixel of the
    row has that colour any more; so the plain background of an object is none. What is left has
    more than a third of each side, else there is no frame.
    """
    return _unframed(rgb)[0]


def _unframed(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], bool]:
    """What is left, and whether what was left out shows something."""
    whole = rgb if rgb.ndim == 3 else rgb[:, :, None]
    left, told, again = whole, False, True
    while again:
        again = False
        for side in range(4):
            turned = np.rot90(left, side)
            depth, shows = _bar(turned)
            if depth:
                left, told, again = np.rot90(turned[depth:], -side), told or shows, True
        if min(left.shape[0] / whole.shape[0], left.shape[1] / whole.shape[1]) < _LEAST_LEFT:
            return rgb, False
    return left if rgb.ndim == 3 else left[:, :, 0], told


def _bar(rgb: NDArray[np.uint8]) -> tuple[int, bool]:
    """Rows of the bar on top, 0 if there is none, and whether something is on it."""
    first = rgb[0].astype(np.int16)
    few = first[len(first) // 8 :: max(1, len(first) // 4)]  # enough to tell most pictures
    if (few.max(0) - few.min(0) > 2 * _BAR_COLOUR).any():
        return 0, False
    colour = np.median(first, axis=0)
    if (np.abs(first - colour).max(1) <= _BAR_COLOUR).mean() < 0.95:
        return 0, False
    deepest = int(len(rgb) * (1 - _LEAST_LEFT))
    rows = rgb[: deepest + 2, ::4].astype(np.int16)
    away = np.abs(rows - colour).max(2)
    filled = (away <= _BAR_COLOUR).mean(1)
    other = np.flatnonzero(filled < _EDGE)
    # One row may be half bar and half picture; the one before it is bar.
    if not other.size or (other[0] > 1 and filled[: other[0] - 1].min() < _BAR):
        return 0, False
    if other[0] >= deepest:
        return 0, False
    # A strong compression leaves traces of the picture next to it.
    marks = (away[: max(0, other[0] - _TRACES)] > 2 * _BAR_COLOUR).mean(1)
    return int(other[0]) + 1, bool((marks >= _MARK).any())


@dataclass(frozen=True, eq=False)
class FineView:
    """A picture as ``compare`` looks at it; what is derived from it is made at its first use.

    ``rgb`` is (256, 256, 3) uint8.
    """

    rgb: NDArray[np.uint8]

    @cached_property
    def middle(self) -> Plane:
        """(128, 128) grey, smoothed."""
        return _smooth(_grey(_resized(self.rgb, MIDDLE_SIDE)), 1.5)

    @cached_property
    def small(self) -> Plane:
        """(32, 32, 3) RGB, 0 to 1; colour has no fine detail."""
        return _resized(self.rgb, COARSE_SIDE).astype(np.float32) / np.float32(255)

    @cached_property
    def grey(self) -> Plane:
        """(256, 256) grey, a little smoothed."""
        return _smooth(_grey(self.rgb), 1.0)

    @cached_property
    def soft(self) -> NDArray[np.uint8]:
        """(256, 256, 3), smoothed."""
        return np.asarray(cv2.GaussianBlur(self.rgb, (0, 0), 1.5), dtype=np.uint8)


def fine_view(rgb: NDArray[np.uint8], *, inside: bool = False) -> FineView:
    """(h, w, 3) or (h, w) uint8 → the view of it, or of what its frame holds; shape is given up."""
    square = _resized(unframed(rgb) if inside else rgb, FINE_SIDE)
    return FineView(square if square.ndim == 3 else np.repeat(square[:, :, None], 3, axis=2))


def align(first: CoarseView, second: CoarseView) -> Alignment:
    """Best affine alignment of two coarse views over the eight orientations."""
    best = _aligned(first.whole, second.whole)
    if (first.inside is None and second.inside is None) or (first.told and second.told):
        return best
    a, b = (view.whole if view.inside is None else view.inside for view in (first, second))
    inside = replace(_aligned(a, b), inside=True)
    # A frame can be laid beside the other picture nearly as well; inside there is less to differ.
    return inside if inside.score >= best.score - _TIE else best


def _aligned(first: Plane, second: Plane) -> Alignment:
    pattern, other = _standard(first).ravel(), _standard(second)
    scores = [float(pattern @ _oriented(other, o).ravel()) / pattern.size for o in range(8)]
    orientation = int(np.argmax(scores))
    turned = _oriented(second, orientation)
    best = Alignment(scores[orientation], orientation, _centred_scale(1.0))
    if best.score > _SURE or best.score < _UNLIKE:
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


def compare(first: FineView, second: FineView, alignment: Alignment, limits: Thresholds) -> Match:
    """Agreement of two pictures, starting from the alignment of their coarse views.

    Cheap tests come first, and the search ends where ``limits`` cannot be met any more.
    """
    o = alignment.orientation
    a, b = first.middle, _oriented(second.middle, o)
    warp = _scaled(alignment.warp, MIDDLE_SIDE / COARSE_SIDE)
    refined = _refined(a, b, warp, _FINE_STOP)
    warp = warp if refined is None else refined
    both = _overlap(warp, MIDDLE_SIDE, margin=4)
    if both.mean() < _LEAST_OVERLAP:
        return NO_MATCH
    share_of_first = float(_overlap(warp, MIDDLE_SIDE, margin=0).mean())
    share_of_second = min(1.0, share_of_first * abs(float(np.linalg.det(warp[:, :2]))))
    p, q = _band(a, _warped(b, warp, cv2.BORDER_REPLICATE), both, sigma=6.0)
    p_sd, q_sd = _spread(p, both), _spread(q, both)
    if min(p_sd, q_sd) < 0.5:
        return NO_MATCH  # nothing to recognise: a plain wall is nobody's copy
    p, q = p / np.float32(p_sd), q / np.float32(q_sd)
    structure, worst, detail = _block_agreement(_block_moments(p, q, both, _BLOCKS))
    colour, hues = _colour_agreement(
        first.small, _oriented(second.small, o), _scaled(warp, COARSE_SIDE / MIDDLE_SIDE)
    )
    overlap, contained = sorted((share_of_first, share_of_second))
    match = Match(structure, worst, overlap, contained, colour, hues, detail)
    if not match.is_plausible(limits):
        return match
    if detail >= limits.detail:
        match = replace(match, repeats=_repeats(p, both))
    tells = match.tells(limits)
    if not tells and not _same_pixels(first.soft, _oriented(second.soft, o)):
        return match
    return _looked_closer(match, first.grey, _oriented(second.grey, o), warp, tells=tells)


def _looked_closer(match: Match, a: Plane, b: Plane, warp: Plane, *, tells: bool) -> Match:
    """The match with what only the finest planes show."""
    warp = _scaled(warp, FINE_SIDE / MIDDLE_SIDE)
    seen = _clash(a, b, warp)
    if seen is None or not tells or seen[0] > 0:
        # Where nothing clashes a better map, which takes most of the time, would change nothing.
        refined = _refined(a, b, warp, _FINE_STOP)
        if refined is not None:
            warp, seen = refined, _clash(a, b, refined)
    if seen is None:
        return NO_MATCH
    clash, other = seen
    corners = np.array([[x, y] for x in (0, FINE_SIDE) for y in (0, FINE_SIDE)])
    moved = np.abs(corners @ warp[:, :2].T + warp[:, 2] - corners).max() / FINE_SIDE
    exact = not tells and moved <= _FRAME_ON_FRAME and other <= 0.05
    return replace(match, clash=clash, exact=bool(exact))


def _clash(a: Plane, b: Plane, warp: Plane) -> tuple[float, float] | None:
    """Share of the detailed blocks that clash, and of the blocks not plain that differ at all.

    None where the two hardly overlap, or show a gradient: its middle band is the frame's edge.
    """
    both = _overlap(warp, FINE_SIDE, margin=6)
    if both.mean() < _LEAST_OVERLAP:
        return None
    p, q = _band(a, _warped(b, warp, cv2.BORDER_REPLICATE), both, sigma=4.0)
    pp, qq, pq = _block_moments(p, q, both, _FINE_BLOCKS)
    gain = float(pp.sum() / max(qq.sum(), 1e-9))
    agreement = pq / np.sqrt(pp * qq + 0.3)
    # A mark or a blur is detail in one of the two only, and no clash.
    alike = np.minimum(pp, qq * gain) > np.maximum(pp, qq * gain) / 4
    clash = (np.minimum(pp, qq) > _PLAIN**2) & alike & (agreement < _CLASH)
    detailed = (np.maximum(pp, qq * gain) > _PLAIN**2).sum()
    shown = np.maximum(pp, qq) > _SEEN**2
    if shown.sum() < _LEAST_SHOWN:
        return None
    # One block may be the chance of a strong compression.
    share = float(max(0, clash.sum() - 1) / max(1, detailed))
    return share, float((agreement[shown] < 0.7).mean())


def _same_pixels(first: NDArray[np.uint8], turned: NDArray[np.uint8]) -> bool:
    """Whether two soft views, not aligned any further, differ by no more than compression does."""
    away = cv2.absdiff(first, turned)
    return float(away.mean()) <= 3.0 and float(np.percentile(away, 99.5)) <= 16.0


def _band(a: Plane, b: Plane, both: NDArray[np.bool_], *, sigma: float) -> tuple[Plane, Plane]:
    """The detail finer than ``sigma``, around 0, where both pictures are."""
    p, q = (view - _smooth(view, sigma) for view in (a, b))
    mask = both.view(np.uint8)
    return (p - np.float32(cv2.mean(p, mask)[0])) * both, (
        q - np.float32(cv2.mean(q, mask)[0])
    ) * both


def _spread(plane: Plane, both: NDArray[np.bool_]) -> float:
    return float(cv2.meanStdDev(plane, mask=both.view(np.uint8))[1][0, 0])


def _block_moments(
    p: Plane, q: Plane, both: NDArray[np.bool_], blocks: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Variances of p and of q and their covariance, in each block that both at least half fill."""

    def mean(plane: Plane) -> NDArray[np.float64]:
        return _resized(plane, blocks).astype(np.float64)

    filled = mean(both.astype(np.float32))
    used = filled > 0.5
    filled = np.maximum(filled, 1e-6)
    mean_p, mean_q = mean(p) / filled, mean(q) / filled
    pp = np.maximum(mean(p * p) / filled - mean_p**2, 0)
    qq = np.maximum(mean(q * q) / filled - mean_q**2, 0)
    return pp[used], qq[used], (mean(p * q) / filled - mean_p * mean_q)[used]


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
    padded = np.zeros((3, 2 * len(p), 2 * len(p)), np.float32)
    padded[:, : len(p), : len(p)] = p, p * p, both
    detail, square, where = (cv2.dft(plane) for plane in padded)
    pairs = (square, where), (detail, detail), (where, where)
    here, likeness, shared = (
        cv2.idft(cv2.mulSpectrums(x, y, 0, conjB=True), flags=cv2.DFT_SCALE) for x, y in pairs
    )
    # The energy of the other side is that of the opposite shift.
    there = np.roll(here[::-1, ::-1], 1, axis=(0, 1))
    likeness = likeness / np.sqrt(np.maximum(here * there, 1e-3))
    far = _far(len(p)) & (shared > 0.4 * both.sum())
    return float(likeness[far].max(initial=0.0))


@cache
def _far(side: int) -> NDArray[np.bool_]:
    """(2 side, 2 side): the shifts, which wrap around, that are a twelfth of the side or more."""
    shift = np.minimum(np.arange(2 * side), 2 * side - np.arange(2 * side))
    return np.asarray(np.hypot(shift[:, None], shift[None, :]) >= side / 12)


def _colour_agreement(first: Plane, second: Plane, warp: Plane) -> tuple[float, float]:
    """Correlation of hue and strength of colour, and the share of the cells of other hue.

    Those are cells in which both are plainly coloured, and not with the same colour. A light of
    another colour on the whole picture (the diagonal model of von Kries) counts for nothing, as
    far as the white balance of a camera is ever off.
    """
    both = _overlap(warp, COARSE_SIDE, margin=1)
    if not both.any():
        return 1.0, 0.0
    a, b = first[both], _warped(second, warp, cv2.BORDER_REPLICATE)[both]
    gain = (a * b).sum(0) / np.maximum((b * b).sum(0), 1e-6)
    gain = np.clip(gain / max(float(gain.mean()), 1e-6), 1 / _CAST, _CAST)
    told = [_hues(_chroma(a), _chroma(each)) for each in (b, np.minimum(b * gain, 1))]
    return max(colour for colour, _ in told), min(other for _, other in told)


def _hues(a: Plane, b: Plane) -> tuple[float, float]:
    product = (a * b).sum(1)
    squares_a, squares_b = (a * a).sum(1), (b * b).sum(1)
    coloured = np.minimum(squares_a, squares_b) > _OTHER_COLOUR**2
    other = coloured & (product < 0.5 * np.sqrt(squares_a * squares_b))
    strength = float(np.sqrt(squares_a.mean())), float(np.sqrt(squares_b.mean()))
    weak = min(strength) < _COLOURFUL
    return 1.0 if weak else float(product.mean()) / (strength[0] * strength[1]), float(other.mean())


def _chroma(rgb: Plane) -> Plane:
    """(n, 3) RGB, 0 to 1 → (n, 2): a and b of Lab."""
    lab = cv2.cvtColor(np.ascontiguousarray(rgb[:, None]), cv2.COLOR_RGB2LAB)
    return np.asarray(lab[:, 0, 1:], dtype=np.float32)


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
