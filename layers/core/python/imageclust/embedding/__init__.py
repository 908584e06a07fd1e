"""Pictures to vectors: model cards, the registry, ONNX embedders and the built-in descriptor.

Importing this package loads neither onnxruntime, OpenCV nor numpy: the first use does.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from imageclust.embedding.cards import (
    PREPROCESSINGS,
    CardFile,
    ModelCard,
    Output,
    Resizing,
    Scaling,
    TextTower,
)
from imageclust.embedding.known import BUILTIN
from imageclust.embedding.onnx_model import OnnxEmbedder, OnnxModel, Outputs
from imageclust.embedding.preprocess import DEFAULT_PREPROCESSING
from imageclust.embedding.pull import Fetch, pull
from imageclust.embedding.registry import (
    Embedder,
    ModelEntry,
    ModelRegistry,
    open_embedder,
    open_model,
    open_text,
)

if TYPE_CHECKING:
    from imageclust.embedding.builtin import BuiltinDescriptor
    from imageclust.embedding.compare import Candidate, CompareRow, PairRule, rank_candidates
    from imageclust.embedding.text import TextEncoder

__all__ = [
    "BUILTIN",
    "DEFAULT_PREPROCESSING",
    "PREPROCESSINGS",
    "BuiltinDescriptor",
    "Candidate",
    "CardFile",
    "CompareRow",
    "Embedder",
    "Fetch",
    "ModelCard",
    "ModelEntry",
    "ModelRegistry",
    "OnnxEmbedder",
    "OnnxModel",
    "Output",
    "Outputs",
    "PairRule",
    "Resizing",
    "Scaling",
    "TextEncoder",
    "TextTower",
    "open_embedder",
    "open_model",
    "open_text",
    "pull",
    "rank_candidates",
]

_MODULES = {
    "BuiltinDescriptor": "builtin",
    "Candidate": "compare",
    "CompareRow": "compare",
    "PairRule": "compare",
    "TextEncoder": "text",
    "rank_candidates": "compare",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
