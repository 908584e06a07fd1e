"""An embedder that sees its pictures smaller than they are: what does resolution buy?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from imageclust.embedding.preprocess import scale_to
from imageclust.embedding.registry import Embedder
from imageclust.errors import InvalidInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imageclust.embedding.preprocess import Pixels

_SMALLEST, _LARGEST = 16, 4096


class ReducedEmbedder:
    """Brings each picture to ``side`` pixels on the short side before ``embedder`` gets it.

    Smaller pictures stay as they are. Implements ``imageclust.embedding.Embedder``; the key names
    the side.
    """

    def __init__(self, embedder: Embedder, side: int) -> None:
        if not _SMALLEST <= side <= _LARGEST:
            raise InvalidInput(
                f"A resolution lies between {_SMALLEST} and {_LARGEST} pixels on the short side, "
                f"not {side}."
            )
        self._embedder = embedder
        self._side = side
        # Decoded no smaller than for the embedder itself: the thumbnail is made of the same pixels.
        self.min_side = max(side, embedder.min_side)
        self.dimension = embedder.dimension
        self.key = f"{embedder.key}-r{side}"

    def embed(self, images: Iterable[Pixels]) -> NDArray[np.float32]:
        """n pictures, ``(h, w, 3) uint8`` RGB → ``(n, dimension) float32``, rows of length 1."""
        return self._embedder.embed(map(self._reduced, images))

    def _reduced(self, image: Pixels) -> Pixels:
        height, width = image.shape[:2]
        scale = self._side / min(height, width)
        if scale >= 1:
            return image
        return scale_to(image, max(1, round(width * scale)), max(1, round(height * scale)))
