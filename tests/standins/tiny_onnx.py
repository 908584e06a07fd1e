"""A classifier of four colours as a real ONNX file with its card and labels, made in a moment."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from imageclust.embedding import ModelCard
from onnx import TensorProto, helper, numpy_helper

LABELS = [
    {"index": 0, "name": "red thing", "parents": ["Thing"]},
    {"index": 1, "name": "green thing", "parents": ["Thing"]},
    {"index": 2, "name": "blue thing", "parents": ["Thing"]},
    {"index": 3, "name": "grey", "parents": []},
]
SIZE = 16


def make_colour_model(folder: Path, name: str = "tiny_colours") -> tuple[ModelCard, Path, Path]:
    """Write NAME.onnx, NAME.json and NAME_labels.json; returns the card and two paths.

    Features are the mean of each channel in 0..1; the logits tell which channel stands out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = 30 * np.array([[2, -1, -1], [-1, 2, -1], [-1, -1, 2], [0, 0, 0]], dtype=np.float32)
    bias = np.array([0, 0, 0, 8], dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["features"]),
            helper.make_node("Gemm", ["features", "w", "b"], ["logits"], transB=1),
        ],
        name,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 3]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4]),
        ],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = folder / f"{name}.onnx"
    onnx.save(model, path)
    labels = folder / f"{name}_labels.json"
    labels.write_text(json.dumps(LABELS))
    card = ModelCard.from_json(
        {
            "arch": "mean colour",
            "licence": "MIT",
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
            "labels": labels.name,
            "input": {
                "layout": f"NCHW float32 [N,3,{SIZE},{SIZE}], dynamic N",
                "colour": "RGB",
                "scale": "x/255",
                "resize": {"short_side": SIZE, "size": SIZE},
            },
            "outputs": {
                "features": {"name": "features", "dimension": 3},
                "logits": {"name": "logits", "dimension": 4},
            },
        }
    )
    (folder / f"{name}.json").write_text(json.dumps(card.to_json()))
    return card, path, labels
