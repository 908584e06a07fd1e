"""``imageclust models list|pull|add``: the models of this machine."""

import argparse
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from imageclust.embedding import ModelCard, ModelEntry, ModelRegistry, pull
from imageclust.embedding.known import KNOWN_MODELS
from imageclust.embedding.pull import https_fetch
from imageclust.errors import InvalidInput
from tqdm import tqdm

from local.home import find_home, model_folders


def list_models(options: argparse.Namespace) -> int:
    """Print a table: what is built in, installed, known to ``pull``, or broken and why."""
    rows = [("NAME", "STATE", "DIMENSION", "LABELS", "TEXT", "MB", "LICENCE")]
    rows += [_row(entry) for entry in _registry(options).list()]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        print("  ".join([*cells, row[6]]).rstrip())
    if any(row[1] == "known" for row in rows):
        print("A known model is fetched with 'imageclust models pull NAME'.", file=sys.stderr)
    return 0


def add_model(options: argparse.Namespace) -> int:
    """Install a model from its card or ONNX file, digest checked and tried once."""
    card = _registry(options).add(Path(options.file), check=_tried)
    print(f"added {_told(card)}")
    return 0


def pull_model(options: argparse.Namespace) -> int:
    """Fetch a known model from its publisher; what came before a break is kept."""
    sizes = {file.url: file.size_bytes for card in KNOWN_MODELS for file in card.files}
    card = pull(
        options.name,
        registry=_registry(options),
        fetch=lambda url, start: _watched(url, start, sizes.get(url, 0)),
        say=lambda line: print(line, flush=True),
        known=KNOWN_MODELS,
    )
    print(f"installed {_told(card)}")
    return 0


def _tried(card: ModelCard, folder: Path) -> None:
    """Raise InvalidInput unless the files do what their card says: here, not in the first run."""
    import numpy as np
    from imageclust.adapters.local.onnx_labeler import OnnxLabeler
    from imageclust.embedding import OnnxModel, TextEncoder

    # As when a model is loaded: onnxruntime's exceptions share no base class of their own.
    from onnxruntime.capi import onnxruntime_pybind11_state as faults

    model = OnnxModel(card, folder / card.file, threads=1)
    try:
        # Several, of different shapes, so that a batch is seen to work.
        model.run([np.full((height, 320, 3), 128, dtype=np.uint8) for height in (320, 240, 480)])
        if card.text and find_spec("tokenizers"):
            TextEncoder(card, folder).embed(["a photo"])
    except (
        faults.Fail,
        faults.InvalidArgument,
        faults.NotImplemented,
        faults.RuntimeException,
    ) as error:
        raise InvalidInput(
            f"The model {card.name} fails on three plain pictures or on words: "
            f"{' '.join(str(error).split())}"
        ) from error
    if card.logits and card.labels:
        OnnxLabeler(model, folder / card.labels)


def _watched(url: str, start: int, size: int) -> Iterator[bytes]:
    """The bytes of ``url``, with one line of progress where somebody watches."""
    with tqdm(
        total=size or None,
        initial=start,
        unit="B",
        unit_scale=True,
        file=sys.stderr,
        disable=not sys.stderr.isatty(),
        leave=False,
    ) as bar:
        for block in https_fetch(url, start):
            bar.update(len(block))
            yield block


def _registry(options: argparse.Namespace) -> ModelRegistry:
    return ModelRegistry([find_home(options.home) / "models", *model_folders()])


def _told(card: ModelCard) -> str:
    return f"{card.name} ({card.features.dimension} dimensions, {card.licence or 'no licence'})"


def _row(entry: ModelEntry) -> tuple[str, str, str, str, str, str, str]:
    card = entry.card
    if card is None:
        return (entry.name, entry.state, "", "", "", "", entry.problem or "no weights")
    size = sum(file.size_bytes for file in card.files)
    return (
        entry.name,
        entry.state,
        str(card.features.dimension),
        "yes" if card.logits and card.labels else "",
        "yes" if card.text else "",
        f"{size / 1e6:.1f}" if size else "",
        entry.problem or card.licence,
    )
