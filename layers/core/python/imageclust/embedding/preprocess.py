"""RGB pixels to network input, as the model's card says.

Every function takes ``(h, w, 3) uint8`` RGB. Reductions use area averaging (``cv2.INTER_AREA``),
which does not alias, and enlargements the card's interpolation; a card with an ``antialiased``
interpolation has Pillow's filter both ways.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from imageclust.embedding.cards import PREPROCESSINGS, ModelCard, Resizing
from imageclust.errors import InvalidInput
from imageclust.late import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

#: The best single view over the labelled sets (see the embedding section of benchmarks/README.md).
DEFAULT_PREPROCESSING = "squeeze"
_GREY = 128
#: Pictures for an antialiased filter come this much larger: most of its work is then its own.
_OVERSAMPLE = 2
_ANTIALIASED = "antialiased "


def check_pixels(image: Pixels) -> Pixels:
    """Return the image when it is (h, w, 3) uint8 and not empty, else raise InvalidInput."""
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or 0 in image.shape
    ):
        raise InvalidInput("An embedder takes RGB pixels of shape (height, width, 3), uint8.")
    return image


def scale_to(image: Pixels, width: int, height: int, *, interpolation: str = "bilinear") -> Pixels:
    """Resize to exactly (height, width): area averaging for reductions, if not antialiased."""
    rows, columns = image.shape[:2]
    if (columns, rows) == (width, height):
        return image
    if interpolation.startswith(_ANTIALIASED):
        from PIL import Image

        bicubic = interpolation.endswith("bicubic")
        method = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
        return np.asarray(Image.fromarray(image).resize((width, height), method))
    import cv2

    if width <= columns and height <= rows:
        flag = cv2.INTER_AREA
    else:
        flag = cv2.INTER_CUBIC if interpolation == "bicubic" else cv2.INTER_LINEAR
        # One side grows and the other shrinks: shrink first, so that nothing aliases.
        if width < columns or height < rows:
            smaller = (min(width, columns), min(height, rows))
            reduced = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
            image = np.asarray(reduced, dtype=np.uint8)
    return np.asarray(cv2.resize(image, (width, height), interpolation=flag), dtype=np.uint8)


def check_preprocessing(name: str, card: ModelCard) -> str:
    """The preprocessing that ``name`` means for a model (``default`` has one), or InvalidInput."""
    chosen = (card.preprocess or DEFAULT_PREPROCESSING) if name == "default" else name
    if chosen not in PREPROCESSINGS:
        raise InvalidInput(
            f"There is no preprocessing {name!r}; choose one of {', '.join(PREPROCESSINGS)}."
        )
    return chosen


def min_side(rule: Resizing, preprocessing: str) -> int:
    """Short side in pixels that a picture must have, so that nothing needs to be enlarged."""
    whole = preprocessing in {"resize", "letterbox"}
    side = rule.size if whole else max(rule.short_side, rule.size)
    return side * _OVERSAMPLE if rule.interpolation.startswith(_ANTIALIASED) else side


def views(image: Pixels, rule: Resizing, preprocessing: str) -> list[Pixels]:
    """The square pictures, ``(size, size, 3) uint8``, that stand for one image."""
    size, short = rule.size, rule.short_side or rule.size
    if preprocessing == "resize":
        return [scale_to(image, size, size, interpolation=rule.interpolation)]
    if preprocessing == "letterbox":
        return [_letterbox(image, rule)]
    if preprocessing == "center_crop":
        return [_crop(image, rule, short, squeeze=False)]
    if preprocessing == "squeeze":
        return [_crop(image, rule, short, squeeze=True)]
    return [
        _crop(image, rule, short, squeeze=False),
        _crop(image, rule, size, squeeze=True),
    ]


def network_input(squares: list[Pixels], card: ModelCard) -> NDArray[np.float32]:
    """Stack square pictures as the network wants them: ``(n, 3, s, s)`` or ``(n, s, s, 3)``."""
    first = card.layout == "NCHW"
    size = card.size
    shape = (len(squares), 3, size, size) if first else (len(squares), size, size, 3)
    values = np.empty(shape, dtype=np.float32)
    order = (0, 1, 2) if card.colour == "RGB" else (2, 1, 0)
    scaling = card.scaling
    for at, square in enumerate(squares):
        for channel, colour in enumerate(order):
            target = values[at, channel] if first else values[at, :, :, channel]
            gain = scaling.factor / scaling.std[channel]
            np.multiply(square[..., colour], np.float32(gain), out=target, dtype=np.float32)
            target -= np.float32(scaling.mean[channel] / scaling.std[channel])
    return values


def l2_normalised(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Rows of length 1, float32; a row of zeros stays zeros."""
    values = np.asarray(rows, dtype=np.float32)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def _crop(image: Pixels, rule: Resizing, short: int, *, squeeze: bool) -> Pixels:
    """Scale the short side to ``short`` and cut the middle square of the card's size."""
    rows, columns = image.shape[:2]
    small = min(rows, columns)
    # Only the middle of a long strip can reach the square: cut first, or it would become huge.
    reach = 16 * small
    image = _middle(image, min(rows, reach), min(columns, reach))
    rows, columns = image.shape[:2]
    large = max(rows, columns)
    if squeeze:
        long = round(short * math.sqrt(large / small))
    elif rule.interpolation.startswith(_ANTIALIASED):
        long = short * large // small  # as those publishers do
    else:
        long = round(short * (large / small))
    long = max(short, long)
    width, height = (long, short) if columns >= rows else (short, long)
    scaled = scale_to(image, width, height, interpolation=rule.interpolation)
    return _middle(scaled, rule.size, rule.size)


def _middle(image: Pixels, rows: int, columns: int) -> Pixels:
    top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
    return image[top : top + rows, left : left + columns]


def _letterbox(image: Pixels, rule: Resizing) -> Pixels:
    rows, columns = image.shape[:2]
    long = max(rows, columns)
    width = max(1, round(columns * rule.size / long))
    height = max(1, round(rows * rule.size / long))
    square = np.full((rule.size, rule.size, 3), _GREY, dtype=np.uint8)
    top, left = (rule.size - height) // 2, (rule.size - width) // 2
    square[top : top + height, left : left + width] = scale_to(
        image, width, height, interpolation=rule.interpolation
    )
    return square
