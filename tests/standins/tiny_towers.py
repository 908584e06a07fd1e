"""A model of pictures and words as real ONNX files with a trained tokenizer, made in a moment.

Pictures are the mean of each channel, 0..1; a word of ``COLOURS`` is that colour, any other token
nearly nothing, and a text the sum of its tokens. So "red" lies beside red pictures.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from imageclust.embedding import ModelCard
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

SIZE, CONTEXT, PAD, END = 16, 8, "<pad>", "<end>"
COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}
CORPUS = [
    "a red house and a green tree",
    "the blue sea under a red sky",
    "green grass, blue water, red earth",
    "a photo of a red red red thing",
    "blue and green and blue again",
] * 20


def make_towers(
    folder: Path,
    name: str = "tiny_towers",
    *,
    kind: Literal["bpe", "unigram"] = "bpe",
    mask: bool = True,
    ids: Literal["int64", "int32"] = "int64",
    **changes: Any,
) -> ModelCard:
    """Write NAME.onnx, NAME.text.onnx, NAME.tokenizer.json and NAME.json; returns the card.

    ``mask`` gives the text tower an attention mask beside the ids; without it, its filling counts
    as the nothing that it is. ``changes`` go into the card's text part.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = folder / f"{name}.tokenizer.json"
    train_tokenizer(kind).save(str(tokenizer))
    image, text = folder / f"{name}.onnx", folder / f"{name}.text.onnx"
    onnx.save(_image_tower(name), image)
    onnx.save(_text_tower(name, table_of(tokenizer), mask=mask, ids=ids), text)
    value = {
        "arch": "mean colour and colour words",
        "licence": "MIT",
        **_file(image),
        "input": {
            "layout": f"NCHW float32 [N,3,{SIZE},{SIZE}], dynamic N",
            "colour": "RGB",
            "scale": "x/255",
            "resize": {
                "short_side": SIZE,
                "size": SIZE,
                "interpolation": "antialiased bicubic",
            },
        },
        "outputs": {"features": {"name": "image_embeds", "dimension": 3}},
        "preprocess": "center_crop",
        "text": {
            **_file(text),
            "tokenizer": _file(tokenizer),
            "output": {"name": "text_embeds", "dimension": 3},
            "context": CONTEXT,
            "pad": PAD,
            "lower_case": True,
            **changes,
        },
    }
    card = ModelCard.from_json(value)
    (folder / f"{name}.json").write_text(json.dumps(card.to_json()))
    return card


def train_tokenizer(kind: Literal["bpe", "unigram"]) -> Tokenizer:
    """A tokenizer of ``CORPUS`` that ends each text with ``<end>``; it keeps the case as it is."""
    special = [PAD, END, "<unk>"]
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=120,
            special_tokens=special,
            end_of_word_suffix="</w>",
            show_progress=False,
        )
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=60, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    tokenizer.train_from_iterator(CORPUS, trainer)
    end = tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, end)]
    )
    # As published files do, for another use than ours.
    tokenizer.enable_padding(length=20, pad_id=end, pad_token=END)
    tokenizer.enable_truncation(5)
    return tokenizer


def table_of(tokenizer: Path) -> NDArray[np.float32]:
    """(tokens, 3) float32: what each token adds to a text."""
    vocabulary = Tokenizer.from_file(str(tokenizer)).get_vocab()
    table = np.random.default_rng(5).normal(0, 0.02, (len(vocabulary), 3)).astype(np.float32)
    for token, place in vocabulary.items():
        word = token.removesuffix("</w>").removeprefix("▁")
        if word in COLOURS:
            table[place] = COLOURS[word]
    table[vocabulary[PAD]] = 0
    return table


def _image_tower(name: str) -> onnx.ModelProto:
    return _model(
        name,
        [
            helper.make_node("GlobalAveragePool", ["pixel_values"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["image_embeds"]),
        ],
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["N", 3])],
        [],
    )


def _text_tower(
    name: str, table: NDArray[np.float32], *, mask: bool, ids: Literal["int64", "int32"]
) -> onnx.ModelProto:
    kind = TensorProto.INT64 if ids == "int64" else TensorProto.INT32
    inputs = [helper.make_tensor_value_info("input_ids", kind, ["N", CONTEXT])]
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["rows"])]
    last = "rows"
    if mask:
        inputs.append(helper.make_tensor_value_info("attention_mask", kind, ["N", CONTEXT]))
        nodes += [
            helper.make_node("Cast", ["attention_mask"], ["said"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["said", "end"], ["column"]),
            helper.make_node("Mul", ["rows", "column"], ["kept"]),
        ]
        last = "kept"
    nodes.append(helper.make_node("ReduceSum", [last, "middle"], ["text_embeds"], keepdims=0))
    return _model(
        name,
        nodes,
        inputs,
        [helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT, ["N", 3])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([2]), "end"),
            numpy_helper.from_array(np.array([1]), "middle"),
        ],
    )


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: list[onnx.TensorProto],
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, name, inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _file(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
