"""The models at hand: installed in a folder, known to `pull`, or built in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from imageclust.embedding.cards import TOKENIZER_SUFFIX, ModelCard
from imageclust.embedding.known import BUILTIN, KNOWN_MODELS
from imageclust.embedding.onnx_model import OnnxEmbedder, OnnxModel, check_digest
from imageclust.errors import InvalidInput, UnknownModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from imageclust.embedding.preprocess import Pixels
    from imageclust.embedding.text import TextEncoder


class Embedder(Protocol):
    """Pictures to vectors.

    ``key`` matches ``[a-z0-9._-]+`` and names everything that changes a vector; ``min_side`` is
    the short side, in pixels, that decoding must provide (smaller pictures come as they are).
    """

    key: str
    dimension: int
    min_side: int

    def embed(self, images: Iterable[Pixels]) -> NDArray[np.float32]:
        """n pictures, ``(h, w, 3) uint8`` RGB → ``(n, dimension) float32``, rows of length 1."""
        ...


@dataclass(frozen=True)
class ModelEntry:
    """One line of ``models list``: ``state`` is built in, installed, known or broken.

    ``problem`` says what is wrong with a broken one.
    """

    name: str
    state: str
    card: ModelCard | None = None
    directory: Path | None = None
    problem: str = ""


class ModelRegistry:
    """Models in folders: the first folder is the one that ``add`` and ``pull`` write to.

    A folder holds, for each model, ``NAME.json`` (the card), ``NAME.onnx``, the card's label
    file, and for a text tower its weights and tokenizer; without those two the model still has its
    pictures. Earlier folders win over later ones.
    """

    def __init__(self, directories: Path | Sequence[Path]) -> None:
        found = [directories] if isinstance(directories, Path) else list(directories)
        if not found:
            raise InvalidInput("A model registry needs at least one folder.")
        self.directories = tuple(Path(directory) for directory in found)

    def list(self) -> tuple[ModelEntry, ...]:
        """The built-in descriptor, then every installed or known model by name."""
        entries: dict[str, ModelEntry] = {}
        for directory in self.directories:
            for path in sorted(directory.glob("*.json")) if directory.is_dir() else []:
                entry = _entry(path)
                if entry and (entry.name not in entries or entries[entry.name].state == "broken"):
                    entries[entry.name] = entry
        for card in KNOWN_MODELS:
            entries.setdefault(card.name, ModelEntry(card.name, "known", card))
        builtin = ModelEntry(BUILTIN, "built in")
        return (builtin, *(entries[name] for name in sorted(entries)))

    def get(self, name: str) -> ModelCard:
        """The card of an installed model. UnknownModel lists what there is."""
        return self._installed(name)[0]

    def path(self, name: str) -> Path:
        """The ONNX file of an installed model."""
        card, directory = self._installed(name)
        return directory / card.file

    def text_folder(self, name: str) -> Path:
        """Where the text tower of an installed model lies. InvalidInput when it has none there."""
        card, directory = self._installed(name)
        if card.text is None:
            raise InvalidInput(
                f"The model {name!r} knows pictures only. Text is for models with a text tower: "
                f"{', '.join(self.with_text()) or 'none is known'}."
            )
        files = [card.text.weights.file, card.text.tokenizer.file]
        missing = [file for file in files if not (directory / file).is_file()]
        if missing:
            raise InvalidInput(
                f"The text tower of {name!r} is not installed: {' and '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} missing in {directory}."
            )
        return directory

    def with_text(self) -> tuple[str, ...]:
        return tuple(entry.name for entry in self.list() if entry.card and entry.card.text)

    def labels_path(self, name: str) -> Path | None:
        """The class labels of an installed model; None when it has none."""
        card, directory = self._installed(name)
        return directory / card.labels if card.labels and card.logits else None

    def add(
        self, path: Path, *, check: Callable[[ModelCard, Path], None] = lambda _card, _folder: None
    ) -> ModelCard:
        """Copy a model's card and every file that it names into the first folder, digests checked.

        Adding the same model again is no fault.

        Args:
            path: the card or the ONNX file beside it.
            check: gets the card and the folder of its files, and raises where they do not fit,
                before anything is copied.
        """
        source = Path(path)
        if source.suffix not in {".json", ".onnx"}:
            raise InvalidInput(f"{source.name} is neither an .onnx file nor its .json card.")
        if not source.is_file():
            raise InvalidInput(f"There is no file {source}.")
        card_path = source.with_suffix(".json")
        if not card_path.is_file():
            raise InvalidInput(
                f"{source.name} has no card: put {card_path.name} beside it "
                "(source, licence, digest, input, outputs; see the documentation of models)."
            )
        card = ModelCard.parse(card_path.read_bytes())
        if f"{card.name}.json" != card_path.name.lower():
            raise InvalidInput(
                f"The card {card_path.name} is for {card.file}: name it {card.name}.json."
            )
        files = [card_path.with_name(file.file) for file in card.files]
        for given, file in zip(files, card.files, strict=True):
            check_digest(given, file.sha256)
        if card.labels:
            labels = card_path.with_name(card.labels)
            if not labels.is_file():
                raise InvalidInput(f"The card names the label file {card.labels}, missing there.")
            self._check_labels(labels)
            files += [labels] if labels not in files else []
        check(card, card_path.parent)
        # The card goes last: a model without a card is not listed, so a kill leaves no half model.
        for given in files:
            self._install(given, given.name)
        self._install(card_path, f"{card.name}.json")
        return card

    def _check_labels(self, labels: Path) -> None:
        """Two models may share a label file; two different files may not share a name."""
        installed = self.directories[0] / labels.name
        if installed.is_file() and installed.read_bytes() != labels.read_bytes():
            raise InvalidInput(
                f"Another label file named {labels.name} is installed already: give this one "
                "another name, in the card too."
            )

    def _install(self, source: Path, name: str) -> None:
        target = self.directories[0] / name
        if target.exists() and target.samefile(source):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{name}.{os.getpid()}.part")
        shutil.copyfile(source, partial)
        partial.replace(target)

    def _installed(self, name: str) -> tuple[ModelCard, Path]:
        entries = {entry.name: entry for entry in self.list()}
        entry = entries.get(name)
        if entry and entry.state == "installed" and entry.card and entry.directory:
            return entry.card, entry.directory
        if entry and entry.state == "broken":
            raise InvalidInput(f"The model {name!r} cannot be used: {entry.problem}")
        if entry and entry.state == "known":
            raise UnknownModel(
                f"The model {name!r} is known but not installed: "
                f"run `imageclust models pull {name}`, or use {BUILTIN!r}."
            )
        usable = [item.name for item in entries.values() if item.state in {"installed", "built in"}]
        raise UnknownModel(
            f"There is no model {name!r}. Installed: {', '.join(usable)}. "
            "Add one with `imageclust models add FILE`."
        )


def open_model(
    name: str,
    *,
    registry: ModelRegistry,
    preprocess: str = "default",
    threads: int = 0,
    device: str = "cpu",
) -> OnnxModel:
    """An installed ONNX model by name (not yet loaded: the first use does that)."""
    card = registry.get(name)
    return OnnxModel(
        card, registry.path(name), preprocess=preprocess, threads=threads, device=device
    )


def open_embedder(
    name: str,
    *,
    registry: ModelRegistry,
    preprocess: str = "default",
    threads: int = 0,
    device: str = "cpu",
) -> Embedder:
    """An embedder by name: ``builtin`` or an installed model."""
    if name == BUILTIN:
        if preprocess not in {"default", "whole"}:
            raise InvalidInput(
                f"The built-in descriptor looks at the whole picture; it has no {preprocess!r}."
            )
        from imageclust.embedding.builtin import BuiltinDescriptor

        return BuiltinDescriptor(threads=threads)
    return OnnxEmbedder(
        open_model(name, registry=registry, preprocess=preprocess, threads=threads, device=device)
    )


def open_text(name: str, *, registry: ModelRegistry) -> TextEncoder:
    """The text tower of an installed model by name (not yet loaded: the first use does that)."""
    if name == BUILTIN:
        raise InvalidInput(
            f"The built-in descriptor {BUILTIN!r} knows pictures only, no text: search for a "
            "picture with --image FILE, or run again with one that has a text tower "
            f"({', '.join(registry.with_text())}: see 'imageclust models list')."
        )
    from imageclust.embedding.text import TextEncoder

    return TextEncoder(registry.get(name), registry.text_folder(name))


def _entry(path: Path) -> ModelEntry | None:
    """The model that a card file describes; None for other JSON (label files, tokenizers)."""
    if path.name.endswith(TOKENIZER_SUFFIX):
        return None
    directory = path.parent
    if not path.with_suffix(".onnx").is_file() and not _looks_like_card(path):
        return None
    name = path.stem.lower()
    try:
        card = ModelCard.parse(path.read_bytes())
    except InvalidInput as error:
        return ModelEntry(name, "broken", None, directory, str(error))
    needed = [card.file, *([card.labels] if card.labels else [])]
    missing = [file for file in needed if not (directory / file).is_file()]
    if missing:
        problem = f"{', '.join(missing)} is missing beside {path.name}."
        return ModelEntry(card.name, "broken", card, directory, problem)
    return ModelEntry(card.name, "installed", card, directory)


def _looks_like_card(path: Path) -> bool:
    """A card is a JSON object; label files are lists."""
    with path.open("rb") as stream:
        return stream.read(64).lstrip().startswith(b"{")
