"""Pictures to vectors: model cards, the registry, ONNX embedders and the built-in descriptor.

Importing this package loads neither onnxruntime nor OpenCV: the first use does.
"""

from imageclust.embedding.builtin import BUILTIN, BuiltinDescriptor
from imageclust.embedding.cards import ModelCard, Output, Resizing, Scaling
from imageclust.embedding.compare import Candidate, CompareRow, PairRule, rank_candidates
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
