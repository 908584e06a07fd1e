"""Models that ``models pull`` can fetch.

An entry is a card with the publisher's address of each file at one revision, and the size and
SHA-256 that public projects record for it, each read in at least three of them: never an address
or a digest from memory. Any other model can be added from a file with its card.
"""

from imageclust.embedding.cards import (
    CardFile,
    ModelCard,
    Output,
    Resizing,
    Scaling,
    TextTower,
)

_IMAGENET = Scaling(factor=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

#: Name of the built-in descriptor wherever an embedder is named.
BUILTIN = "builtin"

_CLASSES = CardFile(
    "imagenet1k_classes.txt",
    "1f386e0d1cb6e28b9c2dac651c3dea6801e98ad1b41a14ce6bb1a093d72069f5",
    "https://raw.githubusercontent.com/pytorch/hub/"
    "a6fc887fbbbda0dd37c440bf8a145f1da6707d6b/imagenet_classes.txt",
    10_472,
)

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
    scaling=_IMAGENET,
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
    labels=_CLASSES.file,
    labels_file=_CLASSES,
)

_MOBILENETV2_REVISION = "23a2a25eaaa6fcd61865414c8a1acf13dda66b7a"
_MOBILENETV2_SHA256 = "c0c3f76d93fa3fd6580652a45618618a220fced18babf65774ed169de0432ad5"
_MOBILENETV2 = ModelCard(
    name="mobilenetv2-12",
    file="mobilenetv2-12.onnx",
    sha256=_MOBILENETV2_SHA256,
    size_bytes=13_964_571,
    licence="Apache-2.0",
    arch="MobileNetV2 1.0: 1280-d pooled features and the 1000-class head",
    colour="RGB",
    layout="NCHW",
    scaling=_IMAGENET,
    resizing=Resizing(short_side=256, size=224),
    # The flattened pool before the last Gemm; the file gives only the logits out.
    features=Output("472", 1280, internal=True),
    logits=Output("output", 1000),
    source=(
        {
            "repo": "onnxmodelzoo/mobilenetv2-12 (the ONNX project's home of onnx/models)",
            "commit": _MOBILENETV2_REVISION,
            "path": "mobilenetv2-12.onnx",
            "sha256": _MOBILENETV2_SHA256,
        },
    ),
    url=(
        "https://huggingface.co/onnxmodelzoo/mobilenetv2-12/resolve/"
        f"{_MOBILENETV2_REVISION}/mobilenetv2-12.onnx"
    ),
    trained_on="ILSVRC-2012 (ImageNet)",
    labels=_CLASSES.file,
    labels_file=_CLASSES,
)

_CLIP_REVISION = "d15189d7028b43f1d3e65039190477f6af591c2a"
_CLIP_URL = f"https://huggingface.co/Xenova/clip-vit-base-patch32/resolve/{_CLIP_REVISION}"
_CLIP = ModelCard(
    name="clip-vit-b32",
    file="clip-vit-b32.onnx",
    sha256="fd6e1402a588279d1723c7534d4bcba5bc0b14b47dfab0e46f8c47b8270d7d40",
    size_bytes=351_685_709,
    licence="MIT",
    arch="CLIP ViT-B/32 of OpenAI: pictures and English text in one space of 512 dimensions",
    colour="RGB",
    layout="NCHW",
    scaling=Scaling(
        factor=1 / 255,
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    ),
    resizing=Resizing(short_side=224, size=224, interpolation="antialiased bicubic"),
    features=Output("image_embeds", 512),
    source=(
        {
            "repo": "Xenova/clip-vit-base-patch32 (full precision, from openai/CLIP)",
            "commit": _CLIP_REVISION,
            "path": "onnx/vision_model.onnx, onnx/text_model.onnx, tokenizer.json",
        },
    ),
    url=f"{_CLIP_URL}/onnx/vision_model.onnx",
    trained_on="400 million pictures with text from the web (not published)",
    # The towers were trained on one rule: another moves pictures away from their words.
    preprocess="center_crop",
    text=TextTower(
        weights=CardFile(
            "clip-vit-b32.text.onnx",
            "3f6571f5bad13a97c469c1622e1cfc4d9aef78b79fdbfcff804ca357bfada8cc",
            f"{_CLIP_URL}/onnx/text_model.onnx",
            254_058_553,
        ),
        tokenizer=CardFile(
            "clip-vit-b32.tokenizer.json",
            "f7f3b7af117d467b58374797691a6438d3e6b9e9cef800dfd5dced7f697a90cd",
            f"{_CLIP_URL}/tokenizer.json",
            2_224_119,
        ),
        output=Output("text_embeds", 512),
        context=77,
        pad="<|endoftext|>",
    ),
)

_SIGLIP2_REVISION = "ba1f3b0843f24bc5417d38e19c37b287d719b2f4"
_SIGLIP2_URL = (
    "https://huggingface.co/onnx-community/siglip2-base-patch16-224-ONNX/resolve/"
    f"{_SIGLIP2_REVISION}"
)
_SIGLIP2 = ModelCard(
    name="siglip2-base-patch16-224",
    file="siglip2-base-patch16-224.onnx",
    sha256="c0573e3f4140c3a7c4e9cc5912bd6b26a033b46a6a8e8af26cbea262b163bcad",
    size_bytes=371_807_752,
    licence="Apache-2.0",
    arch="SigLIP 2 base of Google: pictures and text of many languages in one space of 768",
    colour="RGB",
    layout="NCHW",
    scaling=Scaling(factor=1 / 255, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    resizing=Resizing(short_side=0, size=224, interpolation="antialiased bilinear"),
    features=Output("pooler_output", 768),
    source=(
        {
            "repo": "onnx-community/siglip2-base-patch16-224-ONNX (full precision, from "
            "google/siglip2-base-patch16-224, whose licence it is: the export states none)",
            "commit": _SIGLIP2_REVISION,
            "path": "onnx/vision_model.onnx, onnx/text_model.onnx, tokenizer.json",
        },
    ),
    url=f"{_SIGLIP2_URL}/onnx/vision_model.onnx",
    trained_on="WebLI (not published)",
    preprocess="resize",
    text=TextTower(
        weights=CardFile(
            "siglip2-base-patch16-224.text.onnx",
            "baf12d941beabafafb14f7b4adb38dc15be18681b964a84410ec53d9d65e6293",
            f"{_SIGLIP2_URL}/onnx/text_model.onnx",
            1_129_469_657,
        ),
        tokenizer=CardFile(
            "siglip2-base-patch16-224.tokenizer.json",
            "cb9140fae3ac5122c972d37adf83e1248471a38147ad76f8215c8872c6fd8322",
            f"{_SIGLIP2_URL}/tokenizer.json",
            34_363_039,
        ),
        output=Output("pooler_output", 768),
        context=64,
        pad="<pad>",
        # Its tokenizer file does not, and the model was trained on lower case.
        lower_case=True,
    ),
)

KNOWN_MODELS: tuple[ModelCard, ...] = (_RESNET50, _MOBILENETV2, _CLIP, _SIGLIP2)
