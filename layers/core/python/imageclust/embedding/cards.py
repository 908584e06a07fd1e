"""The model card: everything about an ONNX file that changes the vectors it gives.

A card is a JSON file beside the ONNX file. Two spellings of the preprocessing are read: a
structured one (written by ``ModelCard.to_json``) and the few prose forms that published cards
use, each matched strictly. Anything else is refused: a card that is half understood gives
vectors that are quietly wrong.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from imageclust.errors import InvalidInput

_NUMBER = r"(\d+(?:\.\d+)?)"
_TRIPLE = rf"\({_NUMBER}, ?{_NUMBER}, ?{_NUMBER}\)"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LAYOUT = re.compile(r"(NCHW|NHWC) float32 \[N,(\d+),(\d+),(\d+)\](?:, dynamic N)?")
_OUTPUT = re.compile(r"\[N,(\d+)\](?: .*)?", re.DOTALL)
_RESIZE = re.compile(
    r"short side (\d+)(?: (bilinear|bicubic))?, centre crop (\d+)"
    r"(?: \(verified\))?(?:; plain squash to \d+ also works)?"
)
_SQUASH = re.compile(r"squash to (\d+)(?: (bilinear|bicubic))?")
_SESSION_HINT = re.compile(r"add_session_config_entry\('(session\.[a-z_]+)', ?'([A-Za-z0-9_]+)'\)")
#: The first two average areas where they reduce; ``antialiased`` ones are Pillow's filters, which
#: widen instead, as the publishers of two-tower models resize.
_INTERPOLATIONS = ("bilinear", "bicubic", "antialiased bilinear", "antialiased bicubic")
_LONGEST_CONTEXT = 4096
#: So that a folder's listing tells towers and tokenizers from models and cards.
TEXT_SUFFIX, TOKENIZER_SUFFIX = ".text.onnx", ".tokenizer.json"

#: Each way to make the network's square input from a picture, and how many squares it makes.
#: ``center_crop``: the publisher's rule. ``squeeze``: the same, after half of the aspect ratio
#: is squeezed out, so that less of a wide or tall picture is cut off. ``resize``: squashed to the
#: square. ``letterbox``: whole, on grey. ``two_views``: the mean of the centre crop and of the
#: squeezed picture without margin; the best grouping, at twice the time.
PREPROCESSINGS: dict[str, int] = {
    "squeeze": 1,
    "center_crop": 1,
    "resize": 1,
    "letterbox": 1,
    "two_views": 2,
}

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Scaling:
    """Pixel values to network input: ``(x * factor - mean) / std``, in the card's colour order.

    ``x`` is 0..255; ``mean`` and ``std`` have one value a channel.
    """

    factor: float = 1.0
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Resizing:
    """The publisher's rule: short side to ``short_side`` pixels, then a centre crop of ``size``.

    ``short_side`` 0 means that the whole picture is squashed to the square.
    """

    short_side: int
    size: int
    interpolation: str = "bilinear"


@dataclass(frozen=True)
class Output:
    """One output of the network: its name in the graph and its width.

    ``internal`` means a tensor inside the graph that the file does not give out by itself.
    """

    name: str
    dimension: int
    internal: bool = False


@dataclass(frozen=True)
class CardFile:
    """One file of a model: a bare name in the card's folder, its digest, and where it comes from.

    ``url`` is the publisher's address of this very file, or empty; ``size_bytes`` 0 is unknown.
    """

    file: str
    sha256: str
    url: str = ""
    size_bytes: int = 0


@dataclass(frozen=True)
class TextTower:
    """The network that brings text into the space of the picture features.

    Text goes through the ``tokenizer`` (a Hugging Face ``tokenizer.json``), is cut to ``context``
    tokens, special ones included, and filled up to it with the token ``pad``. ``lower_case`` means
    that the publisher lower-cases before a tokenizer that does not do it itself.
    """

    weights: CardFile
    tokenizer: CardFile
    output: Output
    context: int
    pad: str
    lower_case: bool = False


@dataclass(frozen=True)
class ModelCard:
    """What one ONNX file is, where it comes from and how pictures must reach it.

    ``name`` is the file's name without ``.onnx``; ``file`` and ``labels`` are bare file names in
    the card's folder; ``source`` lists where the weights came from (free-form records); ``url``
    is the publisher's address of this very file (digest ``sha256``) or empty; ``session_config``
    are onnxruntime session entries that the publisher advises. ``preprocess`` is the way from a
    picture to a square that ``default`` means for this model, empty for the usual one. ``text`` is
    the other tower of a model of pictures and text. ``labels_file`` is the label file with its
    digest, where the publisher of the labels is known.
    """

    name: str
    file: str
    sha256: str
    licence: str
    arch: str
    colour: str
    layout: str
    scaling: Scaling
    resizing: Resizing
    features: Output
    logits: Output | None = None
    labels: str = ""
    source: tuple[Mapping[str, str], ...] = ()
    url: str = ""
    size_bytes: int = 0
    trained_on: str = ""
    session_config: tuple[tuple[str, str], ...] = ()
    preprocess: str = ""
    text: TextTower | None = None
    labels_file: CardFile | None = None

    @property
    def files(self) -> tuple[CardFile, ...]:
        """Every file of the model that has a digest: pictures, text and its tokenizer, labels."""
        image = CardFile(self.file, self.sha256, self.url, self.size_bytes)
        text = (self.text.weights, self.text.tokenizer) if self.text else ()
        return (image, *text, *((self.labels_file,) if self.labels_file else ()))

    @property
    def size(self) -> int:
        """Side of the square input, pixels."""
        return self.resizing.size

    @classmethod
    def from_json(cls, value: object) -> "ModelCard":
        """Read a card (parsed JSON). InvalidInput names the field that is not understood."""
        card = _mapping(value, "the card")
        file = _text(card, "file")
        if not _FILE.fullmatch(file) or not file.endswith(".onnx"):
            raise InvalidInput(f"Model card: 'file' must be a bare .onnx file name, not {file!r}.")
        if file.endswith(TEXT_SUFFIX):
            raise InvalidInput(
                f"Model card: {file!r} is the name of a text tower; give the model another."
            )
        where = f"Model card of {file}"
        name = file.removesuffix(".onnx").lower()
        if not _NAME.fullmatch(name):
            raise InvalidInput(f"{where}: a model name has only letters, digits, '.', '_' and '-'.")
        labels, labels_file = _parse_labels(card, where)
        entry = _mapping(card.get("input"), f"{where}: 'input'")
        layout, size = _parse_layout(entry, where)
        colour = _text(entry, "colour")
        if colour not in {"RGB", "BGR"}:
            raise InvalidInput(f"{where}: 'colour' must be RGB or BGR, not {colour!r}.")
        resizing = _parse_resize(entry.get("resize"), where)
        if resizing.size != size:
            raise InvalidInput(
                f"{where}: the resize rule ends at {resizing.size} px but the input is {size} px."
            )
        outputs = _mapping(card.get("outputs"), f"{where}: 'outputs'")
        if "features" not in outputs:
            raise InvalidInput(f"{where}: 'outputs' must name the features.")
        features = _parse_output(outputs, "features", where)
        return cls(
            name=name,
            file=file,
            sha256=_parse_digest(card, where),
            licence=_text(card, "licence"),
            arch=_text(card, "arch", default=""),
            colour=colour,
            layout=layout,
            scaling=_parse_scale(entry.get("scale"), where),
            resizing=resizing,
            features=features,
            logits=_parse_output(outputs, "logits", where) if outputs.get("logits") else None,
            labels=labels,
            labels_file=labels_file,
            source=_parse_source(card.get("source", []), where),
            url=_parse_url(_text(card, "url", default=""), where),
            size_bytes=_whole(card.get("bytes", 0), "bytes", where),
            trained_on=_text(card, "trained_on", default=""),
            session_config=_parse_session(card, where),
            preprocess=_parse_preprocess(card, where),
            text=_parse_text_tower(card, features, where, file.removesuffix(".onnx")),
        )

    @classmethod
    def parse(cls, text: str | bytes) -> "ModelCard":
        """Read a card from JSON text."""
        try:
            value = json.loads(text)
        except ValueError as error:
            raise InvalidInput(f"The model card is not JSON ({error}).") from error
        return cls.from_json(value)

    def to_json(self) -> dict[str, Any]:
        """The card in the structured form; ``from_json`` reads it back equal."""
        channels_first = self.layout == "NCHW"
        shape = [3, self.size, self.size] if channels_first else [self.size, self.size, 3]
        outputs = {"features": asdict(self.features)}
        if self.logits:
            outputs["logits"] = asdict(self.logits)
        text = {"text": _text_tower_json(self.text)} if self.text else {}
        return {
            "arch": self.arch,
            "licence": self.licence,
            "source": [dict(item) for item in self.source],
            "url": self.url,
            "input": {
                "layout": f"{self.layout} float32 [N,{shape[0]},{shape[1]},{shape[2]}], dynamic N",
                "colour": self.colour,
                "scale": {
                    "factor": self.scaling.factor,
                    "mean": list(self.scaling.mean),
                    "std": list(self.scaling.std),
                },
                "resize": {
                    "short_side": self.resizing.short_side,
                    "size": self.resizing.size,
                    "interpolation": self.resizing.interpolation,
                },
            },
            "outputs": outputs,
            "session_config": dict(self.session_config),
            "file": self.file,
            "bytes": self.size_bytes,
            "sha256": self.sha256,
            "labels": _file_json(self.labels_file) if self.labels_file else self.labels,
            "trained_on": self.trained_on,
            "preprocess": self.preprocess,
            **text,
        }


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{what} must be a JSON object.")
    return value


def _text(card: Mapping[str, Any], field: str, *, default: str | None = None) -> str:
    value = card.get(field, default)
    if not isinstance(value, str):
        raise InvalidInput(f"Model card: {field!r} is missing or is not text.")
    return value


def _whole(value: object, field: str, where: str, *, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidInput(f"{where}: {field!r} must be a whole number of at least {least}.")
    return value


def _number(value: object, field: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"{where}: {field!r} must be a number.")
    return float(value)


def _triple(value: object, field: str, where: str) -> Triple:
    if not isinstance(value, list) or len(value) != 3:
        raise InvalidInput(f"{where}: {field!r} must be a list of three numbers.")
    first, second, third = (_number(item, field, where) for item in value)
    return first, second, third


def _parse_layout(entry: Mapping[str, Any], where: str) -> tuple[str, int]:
    text = _text(entry, "layout")
    match = _LAYOUT.fullmatch(text)
    if match:
        layout, shape = match[1], [int(match[i]) for i in (2, 3, 4)]
        channels, height, width = shape if layout == "NCHW" else (shape[2], shape[0], shape[1])
        if channels == 3 and height == width > 0:
            return layout, height
    raise InvalidInput(
        f"{where}: the layout {text!r} is not understood; "
        "write for example 'NCHW float32 [N,3,224,224]'."
    )


def _scaled(factor: float, mean: Triple, std: Triple) -> Scaling:
    return Scaling(factor=factor, mean=mean, std=std)


_SCALE_FORMS: tuple[tuple[re.Pattern[str], Callable[[list[float]], Scaling]], ...] = (
    (
        re.compile(rf"\(x-{_NUMBER}\)/{_NUMBER}(?:\s+i\.e\. \[-?\d,\d\])?"),
        lambda n: _scaled(1.0, (n[0], n[0], n[0]), (n[1], n[1], n[1])),
    ),
    (
        re.compile(rf"x - {_TRIPLE}, no division"),
        lambda n: _scaled(1.0, (n[0], n[1], n[2]), (1.0, 1.0, 1.0)),
    ),
    (
        re.compile(r"x/255"),
        lambda _: _scaled(1 / 255, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ),
    (
        re.compile(rf"\(x/255 - {_TRIPLE}\)/{_TRIPLE}"),
        lambda n: _scaled(1 / 255, (n[0], n[1], n[2]), (n[3], n[4], n[5])),
    ),
)


def _parse_scale(value: object, where: str) -> Scaling:
    if isinstance(value, str):
        for pattern, build in _SCALE_FORMS:
            match = pattern.fullmatch(value.strip())
            if match:
                return _checked_scaling(build([float(group) for group in match.groups()]), where)
    elif isinstance(value, Mapping):
        scaling = Scaling(
            factor=_number(value.get("factor", 1.0), "factor", where),
            mean=_triple(value.get("mean", [0, 0, 0]), "mean", where),
            std=_triple(value.get("std", [1, 1, 1]), "std", where),
        )
        return _checked_scaling(scaling, where)
    raise InvalidInput(
        f"{where}: the scale {value!r} is not understood; write for example "
        '{"factor": 0.00392156862745098, "mean": [0.485, 0.456, 0.406], '
        '"std": [0.229, 0.224, 0.225]}.'
    )


def _checked_scaling(scaling: Scaling, where: str) -> Scaling:
    if scaling.factor <= 0 or min(scaling.std) <= 0:
        raise InvalidInput(f"{where}: the scale's factor and std must be above 0.")
    return scaling


def _parse_resize(value: object, where: str) -> Resizing:
    if isinstance(value, str):
        match = _RESIZE.fullmatch(value.strip())
        if match:
            short, size = int(match[1]), int(match[3])
            return _checked_resizing(Resizing(short, size, match[2] or "bilinear"), where)
        match = _SQUASH.fullmatch(value.strip())
        if match:
            return _checked_resizing(Resizing(0, int(match[1]), match[2] or "bilinear"), where)
    elif isinstance(value, Mapping):
        resizing = Resizing(
            short_side=_whole(value.get("short_side"), "short_side", where),
            size=_whole(value.get("size"), "size", where, least=1),
            interpolation=str(value.get("interpolation", "bilinear")),
        )
        return _checked_resizing(resizing, where)
    raise InvalidInput(
        f"{where}: the resize rule {value!r} is not understood; write for example "
        '{"short_side": 256, "size": 224} (short_side 0 squashes the whole picture).'
    )


def _checked_resizing(resizing: Resizing, where: str) -> Resizing:
    if resizing.interpolation not in _INTERPOLATIONS:
        raise InvalidInput(f"{where}: the interpolation must be one of {list(_INTERPOLATIONS)}.")
    if resizing.size > 4096 or resizing.short_side > 4096:
        raise InvalidInput(f"{where}: an input above 4096 px is not supported.")
    if 0 < resizing.short_side < resizing.size:
        raise InvalidInput(f"{where}: the short side must be at least the crop size.")
    return resizing


def _parse_output(outputs: Mapping[str, Any], kind: str, where: str) -> Output:
    value = outputs[kind]
    if isinstance(value, str):
        match = _OUTPUT.fullmatch(value)
        if match and int(match[1]) > 0:
            return Output(kind, int(match[1]))
    elif isinstance(value, Mapping):
        dimension = _whole(value.get("dimension"), "dimension", where, least=1)
        internal = value.get("internal", False)
        if not isinstance(internal, bool) or (internal and kind != "features"):
            raise InvalidInput(f"{where}: 'internal' is true or false, and for features only.")
        return Output(_text(value, "name", default=kind), dimension, internal)
    raise InvalidInput(
        f"{where}: the output {kind!r} is not understood; "
        'write for example {"name": "pooled", "dimension": 2048}.'
    )


def _parse_source(value: object, where: str) -> tuple[Mapping[str, str], ...]:
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise InvalidInput(f"{where}: 'source' must be a list of objects.")
    return tuple({str(key): str(field) for key, field in item.items()} for item in value)


def _parse_digest(card: Mapping[str, Any], where: str) -> str:
    sha256 = _text(card, "sha256").lower()
    if not _SHA256.fullmatch(sha256):
        raise InvalidInput(f"{where}: 'sha256' must be 64 hexadecimal digits.")
    return sha256


def _parse_labels(card: Mapping[str, Any], where: str) -> tuple[str, CardFile | None]:
    value = card.get("labels", "")
    digested = isinstance(value, Mapping)
    name = _text(value, "file") if digested else _text(card, "labels", default="")
    if name and not _FILE.fullmatch(name):
        raise InvalidInput(f"{where}: 'labels' must be a bare file name, not {name!r}.")
    return name, _parse_file(value, name, f"{where}: 'labels'") if digested else None


def _parse_preprocess(card: Mapping[str, Any], where: str) -> str:
    name = _text(card, "preprocess", default="")
    if name and name not in PREPROCESSINGS:
        raise InvalidInput(
            f"{where}: 'preprocess' must be one of {', '.join(PREPROCESSINGS)}, not {name!r}."
        )
    return name


def _parse_text_tower(
    card: Mapping[str, Any], features: Output, where: str, stem: str
) -> TextTower | None:
    if card.get("text") is None:
        return None
    value = _mapping(card["text"], f"{where}: 'text'")
    where = f"{where}: 'text'"
    context = _whole(value.get("context"), "context", where, least=2)
    if context > _LONGEST_CONTEXT:
        raise InvalidInput(f"{where}: a context above {_LONGEST_CONTEXT} tokens is not supported.")
    lower_case = value.get("lower_case", False)
    if not isinstance(lower_case, bool):
        raise InvalidInput(f"{where}: 'lower_case' is true or false.")
    output = _parse_output(value, "output", where)
    if output.dimension != features.dimension:
        raise InvalidInput(
            f"{where}: text has {output.dimension} dimensions and pictures {features.dimension}: "
            "the towers of one model share one space."
        )
    return TextTower(
        weights=_parse_file(value, stem + TEXT_SUFFIX, where),
        tokenizer=_parse_file(
            _mapping(value.get("tokenizer"), f"{where}: 'tokenizer'"),
            stem + TOKENIZER_SUFFIX,
            where,
        ),
        output=output,
        context=context,
        pad=_text(value, "pad"),
        lower_case=lower_case,
    )


def _parse_file(entry: Mapping[str, Any], name: str, where: str) -> CardFile:
    file = _text(entry, "file")
    if file != name:
        raise InvalidInput(f"{where}: 'file' must be {name!r}, not {file!r}.")
    return CardFile(
        file=file,
        sha256=_parse_digest(entry, f"{where}: {file}"),
        url=_parse_url(_text(entry, "url", default=""), where),
        size_bytes=_whole(entry.get("bytes", 0), "bytes", where),
    )


def _text_tower_json(text: TextTower) -> dict[str, Any]:
    return {
        **_file_json(text.weights),
        "tokenizer": _file_json(text.tokenizer),
        "output": {"name": text.output.name, "dimension": text.output.dimension},
        "context": text.context,
        "pad": text.pad,
        "lower_case": text.lower_case,
    }


def _file_json(file: CardFile) -> dict[str, Any]:
    return {
        "file": file.file,
        "sha256": file.sha256,
        "url": file.url,
        "bytes": file.size_bytes,
    }


def _parse_url(url: str, where: str) -> str:
    if url and not url.startswith("https://"):
        raise InvalidInput(f"{where}: 'url' must begin with https://.")
    return url


def _parse_session(card: Mapping[str, Any], where: str) -> tuple[tuple[str, str], ...]:
    entries: dict[str, str] = {}
    if "session_config" in card:
        entries.update(_mapping(card["session_config"], f"{where}: 'session_config'"))
    entries.update(_SESSION_HINT.findall(_text(card, "runtime_hint", default="")))
    for key, value in entries.items():
        if not key.startswith("session.") or not isinstance(value, str):
            raise InvalidInput(f"{where}: session entry {key!r} is not a 'session.' text setting.")
    return tuple(sorted(entries.items()))
