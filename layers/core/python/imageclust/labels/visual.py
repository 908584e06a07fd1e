"""Labels that need no model: what a picture's colours, light, texture and shape say in words.

They are named as what they are (category "Visual attribute"), never as things in the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from imageclust.labels.record import Label
from imageclust.late import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

VISUAL_CATEGORY = "Visual attribute"

_MIN_SHARE = 0.1

# The eleven basic colour terms of English (Berlin and Kay, 1969) plus beige and teal, each by a
# few sRGB examples of what people call so; a colour takes the name of its nearest example in Lab.
_COLOUR_EXAMPLES = {
    "Black": "101010 262626 1c1a18 161a22",
    "Grey": "4d4d4d 808080 a6a6a6 5f666b 8d8a85",
    "White": "ffffff ebebeb f5f2ea eef2f5",
    "Red": "e02020 a81c1c ff4a3d 7a1218 c2453f",
    "Orange": "ff8c1a e0701c ffad5c c96a2b",
    "Yellow": "ffe01a f2d24d e6c800 fff07a c9ac2c",
    "Green": "2ea02e 1c5c24 7ac943 6b8f3a 3f5a34 9ad19a 55701c",
    "Teal": "1aa6a6 0f5c63 5cd6d6 7fbfbf 2f7f86",
    "Blue": "1f4fe0 16286b 5c9bff 4f7fb3 9cc4f0 2c4a7a 1e90d6",
    "Purple": "7a2ea8 4b1f6b a67ad9 8f5f9f 5b4a8a",
    "Pink": "ff7ab8 f2a6c4 e0408c ffc9d6 d98c9c",
    "Brown": "6b3f1c 4a2c17 8f5f36 7a5340 3a2a20 a3714d 5c4632",
    "Beige": "e0cfae c9b48f f0e2c6 d6bfa0 b8a58a",
}

_PARENT_OF_WORD = {
    "panorama": "Orientation",
    "tall": "Orientation",
    "landscape": "Orientation",
    "square": "Orientation",
    "portrait": "Orientation",
    "dark": "Brightness",
    "bright": "Brightness",
    "low contrast": "Contrast",
    "high contrast": "Contrast",
    "black and white": "Colourfulness",
    "muted colours": "Colourfulness",
    "vivid colours": "Colourfulness",
    "blurred": "Sharpness",
}


def visual_attributes(
    colours: Sequence[tuple[int, int, int, float]], words: Sequence[str] = ()
) -> tuple[Label, ...]:
    """Labels from a picture's fingerprint.

    Args:
        colours: dominant colours as (red, green, blue, share of the picture in [0, 1]).
        words: plain words for its light, texture and orientation (``dark``, ``vertical lines``).

    Returns colours first, largest first, with the share of the picture as confidence, then the
    words, which are measured and so carry 100. Shades of one name add up; a colour of less than
    a tenth of the picture is left out.
    """
    shares: dict[str, float] = {}
    for red, green, blue, share in colours:
        name = colour_name(red, green, blue)
        shares[name] = shares.get(name, 0.0) + max(0.0, share)
    large = sorted(
        ((share, name) for name, share in shares.items() if share >= _MIN_SHARE),
        key=lambda item: (-item[0], item[1]),
    )
    seen = [(name, min(100.0, 100 * share), "Colour") for share, name in large]
    seen += [
        # "Landscape format": the bare word would name a thing in the picture.
        (_word_name(word), 100.0, _PARENT_OF_WORD.get(word, "Texture"))
        for word in dict.fromkeys(words)
    ]
    return tuple(
        Label(name=name, confidence=sure, parents=(parent,), categories=(VISUAL_CATEGORY,))
        for name, sure, parent in seen
    )


def colour_name(red: int, green: int, blue: int) -> str:
    """The plain English name of an sRGB colour, channels 0 to 255."""
    away = np.linalg.norm(_example_lab() - _lab(np.array([[red, green, blue]], np.float64)), axis=1)
    return _EXAMPLE_NAMES[int(np.argmin(away))]


def _word_name(word: str) -> str:
    name = word[:1].upper() + word[1:]
    return f"{name} format" if _PARENT_OF_WORD.get(word) == "Orientation" else name


def _lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB (n, 3) in 0..255 to CIE Lab (D65)."""
    c = rgb / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array(
        [
            [0.4124564, 0.2126729, 0.0193339],
            [0.3575761, 0.7151522, 0.1191920],
            [0.1804375, 0.0721750, 0.9503041],
        ]
    )
    t = xyz / np.array([0.95047, 1.0, 1.08883])
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    x, y, z = f.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


_EXAMPLE_NAMES = [name for name, codes in _COLOUR_EXAMPLES.items() for _ in codes.split()]


@cache
def _example_lab() -> NDArray[np.float64]:
    return _lab(
        np.array(
            [
                [int(code[i : i + 2], 16) for i in (0, 2, 4)]
                for codes in _COLOUR_EXAMPLES.values()
                for code in codes.split()
            ],
            np.float64,
        )
    )
