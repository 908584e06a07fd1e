"""Tiny ONNX models with cards, made on the spot."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

MakeModel = Callable[..., Path]


def card_of(file: Path, **changes: Any) -> dict[str, Any]:
    card: dict[str, Any] = {
        "arch": "a test network",
        "licence": "MIT",
        "source": [{"repo": "made here"}],
        "input": {
            "layout": "NCHW float32 [N,3,8,8], dynamic N",
            "colour": "RGB",
            "scale": "(x-127.5)/127.5  i.e. [-1,1]",
            "resize": "short side 10, centre crop 8",
        },
        "outputs": {"features": "[N,3]", "logits": "[N,2]"},
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "bytes": file.stat().st_size,
    }
    card.update(changes)
    return card


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Write NAME.onnx and NAME.json into tmp_path/given; returns the card's path.

    The network's features are the channel means; its logits are red - blue and blue - red.
    """

    def make(
        name: str = "tiny", *, give_features: bool = True, batch: str | int = "N", **changes: Any
    ) -> Path:
        folder = tmp_path / "given"
        folder.mkdir(exist_ok=True)
        weights = np.array([[1, -1], [0, 0], [-1, 1]], dtype=np.float32)
        size = 8
        shape: list[str | int] = [batch, 3, size, size]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])]
        if give_features:
            outputs.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 3]))
        graph = helper.make_graph(
            [
                helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
                helper.make_node("Flatten", ["pooled"], ["features"]),
                helper.make_node("MatMul", ["features", "w"], ["logits"]),
            ],
            "tiny",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
            outputs,
            [helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.ravel())],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
        file = folder / f"{name}.onnx"
        onnx.save(model, file)
        card = folder / f"{name}.json"
        card.write_text(json.dumps(card_of(file, **changes)), encoding="utf-8")
        return card

    return make
