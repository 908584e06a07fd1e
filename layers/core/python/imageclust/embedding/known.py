"""Models that ``models pull`` can fetch.

An entry is a card with the publisher's address of the very file and the SHA-256 that the
publisher states: never an address or a digest from memory. Any other model can be added from a
file with its card.
"""

from imageclust.embedding.cards import ModelCard, Output, Resizing, Scaling

#: Name of the built-in descriptor wherever an embedder is named.
BUILTIN = "builtin"

_RESNET50_REVISION = "1f95315d8bd3b3ca2ceabe54d274e0cdf5a83bbe"
_RESNET50_SHA256 = "3f03fdef724b22947eed826f1eef1dc5c34151bb4c37d634f1db89dfa2dd1526"
_RESNET50 = ModelCard(
    name="resnet50-v1-12",
    file="resnet50-v1-12.onnx",
    # Size and digest of this revision as three independent public projects record them. An
    # earlier file of the same name (102,576,419 bytes, SHA-256 ab65bdc0…) is another one.
    sha256=_RESNET50_SHA256,
    size_bytes=102_576_593,
    licence="Apache-2.0",
    arch="ResNet50 v1: 2048-d pooled features and the 1000-class head",
    colour="RGB",
    layout="NCHW",
    scaling=Scaling(factor=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    resizing=Resizing(short_side=256, size=224),
    # The file gives only the logits out; the pooled features are a tensor inside it.
    features=Output("resnetv17_pool1_fwd", 2048, internal=True),
    logits=Output("resnetv17_dense0_fwd", 1000),
    source=(
        {
            "repo": "onnxmodelzoo/resnet50-v1-12 (the ONNX project's home of onnx/models)",
            "commit": _RESNET50_REVISION,
            "path": "resnet50-v1-12.onnx",
            "sha256": _RESNET50_SHA256,
        },
    ),
    url=(
        "https://huggingface.co/onnxmodelzoo/resnet50-v1-12/resolve/"
        f"{_RESNET50_REVISION}/resnet50-v1-12.onnx"
    ),
    trained_on="ILSVRC-2012 (ImageNet)",
)

KNOWN_MODELS: tuple[ModelCard, ...] = (_RESNET50,)
