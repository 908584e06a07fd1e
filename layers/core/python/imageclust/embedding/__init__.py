"""Pictures to vectors: model cards, the registry, ONNX embedders and the built-in descriptor.

Importing this package loads neither onnxruntime, OpenCV nor numpy: the first use does.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from imageclust.embedding.cards import ModelCard, Output, Resizing, Scaling
from imageclust.embedding.known import BUILTIN
from imageclust.embedding.onnx_model import OnnxEmbedder, OnnxModel, Outputs
from imageclust.embedding.preprocess import DEFAULT_PREPROCESSING, PREPROCESSINGS
from imageclust.embedding.pull import Fetch, pull
from imageclust.embedding.registry import (
    Embedder,
    ModelEntry,
    ModelRegistry,
    open_embedder,
    open_model,
)

if TYPE_CHECKING:
    from imageclust.embedding.builtin import BuiltinDescriptor
    from imageclust.embedding.compare import Candidate, CompareRow, PairRule, rank_candidates

__all__ = [
    "BUILTIN",
    "DEFAULT_PREPROCESSING",
    "PREPROCESSINGS",
    "BuiltinDescriptor",
    "Candidate",
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
    "open_embedder",
    "open_model",
    "pull",
    "rank_candidates",
]

_MODULES = {
    "BuiltinDescriptor": "builtin",
    "Candidate": "compare",
    "CompareRow": "compare",
    "PairRule": "compare",
    "rank_candidates": "compare",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
