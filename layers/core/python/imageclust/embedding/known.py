"""Models that ``models pull`` can fetch.

An entry is a card with the publisher's address of the very file and the SHA-256 that the
publisher states: never an address or a digest from memory. Any other model can be added from a
file with its card.
"""

from imageclust.embedding.cards import ModelCard, Output, Resizing, Scaling

_RESNET50 = ModelCard(
    name="resnet50-v1-12",
    file="resnet50-v1-12.onnx",
    # As the repository's own Git LFS pointer states it (commit below).
    sha256="ab65bdc02c5b3123eb3cdf6dac01742438517d8635d4f233913b2be1c70db3b6",
    size_bytes=102_576_419,
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
            "repo": "onnx/models",
            "commit": "652f4e4af7975c8e7a505c4b6e0f8ac72d8260ea",
            "path": "vision/classification/resnet/model/resnet50-v1-12.onnx",
            "sha256": "ab65bdc02c5b3123eb3cdf6dac01742438517d8635d4f233913b2be1c70db3b6",
        },
    ),
    url=(
        "https://github.com/onnx/models/raw/main/validated/vision/classification/resnet/"
        "model/resnet50-v1-12.onnx"
    ),
    trained_on="ILSVRC-2012 (ImageNet)",
)

KNOWN_MODELS: tuple[ModelCard, ...] = (_RESNET50,)
