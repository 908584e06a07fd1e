"""The text tower of a model of pictures and text: words to a vector among the pictures."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imageclust.embedding.cards import ModelCard, TextTower
from imageclust.embedding.onnx_model import check_digest, start_session
from imageclust.embedding.preprocess import l2_normalised
from imageclust.errors import CorruptData, InvalidInput
from imageclust.late import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MASK = "attention_mask"
_TYPES = {"tensor(int64)": "int64", "tensor(int32)": "int32"}


class TextEncoder:
    """One text tower with its tokenizer; both are loaded at the first use and kept.

    Args:
        card: a model's card that has a text tower.
        folder: where the card's files lie; digests are checked before anything is loaded.
    """

    def __init__(self, card: ModelCard, folder: Path) -> None:
        if card.text is None:
            raise InvalidInput(f"The model {card.name} has no text tower.")
        self.name = card.name
        self.dimension = card.text.output.dimension
        self._tower: TextTower = card.text
        self._folder = Path(folder)
        self._tokenizer: Any = None
        self._session: Any = None
        self._lock = threading.Lock()

    def tokens(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Token ids and mask (1 where no filling), both ``(n, context) int64``.

        A longer text is cut; its closing token stays. InvalidInput when a text says nothing.
        """
        for text in texts:
            if not text.strip():
                raise InvalidInput("A search text needs at least one word.")
        encoded = self._loaded_tokenizer().encode_batch(list(texts))
        shape = (len(texts), self._tower.context)
        ids = np.array([item.ids for item in encoded], dtype=np.int64).reshape(shape)
        mask = np.array([item.attention_mask for item in encoded], dtype=np.int64).reshape(shape)
        return ids, mask

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """``(n, dimension) float32``, L2-normalised, in the space of the picture features."""
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        ids, mask = self.tokens(texts)
        session = self._loaded_session()
        feed = {
            entry.name: (mask if entry.name == _MASK else ids).astype(_TYPES[entry.type])
            for entry in session.get_inputs()
        }
        output = self._tower.output
        (rows,) = session.run([output.name], feed)
        if rows.shape != (len(texts), self.dimension):
            raise InvalidInput(
                f"The text tower of {self.name} gives {output.name!r} of shape {rows.shape}; "
                f"its card promises {(len(texts), self.dimension)}."
            )
        if not np.isfinite(rows).all():
            raise CorruptData(f"The text tower of {self.name} gives values that are not finite.")
        return l2_normalised(rows)

    def _loaded_tokenizer(self) -> Any:
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = _open_tokenizer(self._tower, self._folder)
            return self._tokenizer

    def _loaded_session(self) -> Any:
        with self._lock:
            if self._session is None:
                self._session = _open_tower(self._tower, self._folder)
            return self._session


def _open_tokenizer(tower: TextTower, folder: Path) -> Any:
    try:
        from tokenizers import Tokenizer, normalizers
    except ModuleNotFoundError as error:
        raise InvalidInput(
            "Searching by text needs the package 'tokenizers': pip install 'imageclust[text]'."
        ) from error
    path = folder / tower.tokenizer.file
    check_digest(path, tower.tokenizer.sha256)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise InvalidInput(f"{path.name} cannot be read as a tokenizer: {error}") from error
    pad = tokenizer.token_to_id(tower.pad)
    if pad is None:
        raise InvalidInput(f"{path.name} has no token {tower.pad!r}, which its card fills up with.")
    if tower.lower_case:
        own = [tokenizer.normalizer] if tokenizer.normalizer else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    # What the file itself says of cutting and filling is for other uses of the tokenizer.
    tokenizer.enable_truncation(tower.context)
    tokenizer.enable_padding(length=tower.context, pad_id=pad, pad_token=tower.pad)
    return tokenizer


def _open_tower(tower: TextTower, folder: Path) -> Any:
    path = folder / tower.weights.file
    check_digest(path, tower.weights.sha256)
    session = start_session(path, path.name)
    inputs = {entry.name: entry.type for entry in session.get_inputs()}
    outputs = {entry.name for entry in session.get_outputs()}
    if (
        len(set(inputs) - {_MASK}) != 1
        or not set(inputs.values()) <= set(_TYPES)
        or tower.output.name not in outputs
    ):
        raise InvalidInput(
            f"{path.name} does not fit its card: its inputs are {inputs} and its outputs "
            f"{sorted(outputs)}; one input of token ids, perhaps {_MASK!r}, and the output "
            f"{tower.output.name!r} are expected."
        )
    return session
