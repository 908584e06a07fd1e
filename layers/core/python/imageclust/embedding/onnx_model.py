"""ONNX models with a card: features for clustering and logits for labels, from one inference."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imageclust.embedding.cards import ModelCard
from imageclust.embedding.preprocess import (
    check_pixels,
    check_preprocessing,
    l2_normalised,
    min_side,
    network_input,
    views,
)
from imageclust.errors import CorruptData, InvalidInput
from imageclust.late import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imageclust.embedding.preprocess import Pixels

#: Part of every embedder key: raise it when a change here changes any vector.
PIPELINE_VERSION = 2
_DEVICES = ("cpu", "cuda")
# Measured on MobileNetV2 with two cores: chunks of 2 to 4 stay in the cache, and one
# single-threaded inference a core also overlaps the preprocessing.
_CPU_CHUNK = 4
_CUDA_CHUNK = 64


@dataclass(frozen=True)
class Outputs:
    """What one inference gives.

    ``features``: ``(n, d) float32``, L2-normalised. ``logits``: ``(n, classes) float32`` as the
    network gives them, or None when the model has no classes.
    """

    features: NDArray[np.float32]
    logits: NDArray[np.float32] | None


class OnnxModel:
    """One ONNX file with its card. The session is made at the first use and kept.

    Args:
        card: the model's card.
        path: the ONNX file; its digest is checked against the card before it is loaded.
        preprocess: a name from ``PREPROCESSINGS``, or ``default``.
        threads: CPU threads; 0 means one a core.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(
        self,
        card: ModelCard,
        path: Path,
        *,
        preprocess: str = "default",
        threads: int = 0,
        device: str = "cpu",
    ) -> None:
        if device not in _DEVICES:
            raise InvalidInput(f"The device must be one of {', '.join(_DEVICES)}, not {device!r}.")
        if threads < 0:
            raise InvalidInput("The number of threads must be 0 (one a core) or more.")
        self.card = card
        self.path = Path(path)
        self.preprocess = check_preprocessing(preprocess, card)
        self.threads = threads or os.cpu_count() or 1
        self.device = device
        self._session: Any = None
        self._lock = threading.Lock()

    @property
    def min_side(self) -> int:
        """Short side, in pixels, that decoding must provide (or the picture's own, if smaller)."""
        return min_side(self.card.resizing, self.preprocess)

    def run(self, images: Sequence[Pixels]) -> Outputs:
        """Features and logits of n images, ``(h, w, 3) uint8`` RGB each, in one inference."""
        for image in images:
            check_pixels(image)
        card = self.card
        if len(images) == 0:
            features = np.zeros((0, card.features.dimension), dtype=np.float32)
            logits = np.zeros((0, card.logits.dimension), np.float32) if card.logits else None
            return Outputs(features, logits)
        session = self._loaded()
        step = _CPU_CHUNK if self.device == "cpu" else _CUDA_CHUNK
        chunks = [images[start : start + step] for start in range(0, len(images), step)]
        if len(chunks) == 1 or self.threads == 1:
            parts = [self._run_chunk(session, chunk) for chunk in chunks]
        else:
            with ThreadPoolExecutor(min(self.threads, len(chunks))) as pool:
                parts = list(pool.map(lambda chunk: self._run_chunk(session, chunk), chunks))
        features = l2_normalised(np.concatenate([part[0] for part in parts]))
        if card.logits is None:
            return Outputs(features, None)
        return Outputs(features, np.concatenate([part[1] for part in parts]))

    def features(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        """``(n, d) float32``, L2-normalised."""
        return self.run(images).features

    def logits(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        """``(n, classes) float32``; InvalidInput when the model has no classes."""
        logits = self.run(images).logits
        if logits is None:
            raise InvalidInput(f"The model {self.card.name} has no classes to label with.")
        return logits

    def _run_chunk(self, session: Any, images: Sequence[Pixels]) -> list[NDArray[np.float32]]:
        """Features (not normalised) and, if any, logits of a chunk, averaged over views."""
        card = self.card
        squares: list[Pixels] = []
        starts: list[int] = []
        for image in images:
            starts.append(len(squares))
            squares.extend(views(image, card.resizing, self.preprocess))
        names = [card.features.name] + ([card.logits.name] if card.logits else [])
        outputs = self._inferred(session, names, network_input(squares, card))
        # Pooled features often keep their two spatial axes of length 1.
        outputs = [part.reshape(len(part), -1) if part.size else part for part in outputs]
        widths = [card.features.dimension] + ([card.logits.dimension] if card.logits else [])
        for part, width, name in zip(outputs, widths, names, strict=True):
            if part.shape != (len(squares), width):
                raise InvalidInput(
                    f"The model {card.name} gives {name!r} of shape {part.shape}; "
                    f"its card promises {(len(squares), width)}."
                )
            if not np.isfinite(part).all():
                raise CorruptData(f"The model {card.name} gives values that are not finite.")
        if len(squares) == len(images):
            return outputs
        counts = np.diff([*starts, len(squares)])[:, None].astype(np.float32)
        return [
            np.asarray(np.add.reduceat(part, starts, axis=0) / counts, dtype=np.float32)
            for part in outputs
        ]

    def _inferred(
        self, session: Any, names: list[str], values: NDArray[np.float32]
    ) -> list[NDArray[np.float32]]:
        """The named outputs for n squares; a file that takes one at a time gets them so."""
        from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

        (entry,) = session.get_inputs()
        single = len(entry.shape) > 0 and entry.shape[0] == 1
        parts = [values[at : at + 1] for at in range(len(values))] if single else [values]
        try:
            found = [session.run(names, {entry.name: part}) for part in parts]
        except InvalidArgument as error:
            raise InvalidInput(
                f"The model {self.card.name} does not take pictures as its card says, "
                f"{self.card.layout} of {self.card.size} px: {' '.join(str(error).split())}"
            ) from error
        return [
            np.concatenate([np.asarray(part, dtype=np.float32) for part in output])
            for output in zip(*found, strict=True)
        ]

    def _loaded(self) -> Any:
        with self._lock:
            if self._session is None:
                check_digest(self.path, self.card.sha256)
                self._session = _open_session(self.card, self.path, self.device)
            return self._session


class OnnxEmbedder:
    """The features of an ONNX model as an embedder.

    ``key`` names the weights, the preprocessing, the size and the version of this code.
    """

    def __init__(self, model: OnnxModel) -> None:
        card = model.card
        self.model = model
        self.dimension = card.features.dimension
        self.min_side = model.min_side
        self.key = (
            f"{card.name}-{card.sha256[:12]}-{model.preprocess}-{card.size}-v{PIPELINE_VERSION}"
        )

    def embed(self, images: Iterable[Pixels]) -> NDArray[np.float32]:
        """``(n, dimension) float32``, L2-normalised."""
        return self.model.features(list(images))

    def run(self, images: Sequence[Pixels]) -> Outputs:
        """Features and logits from one inference."""
        return self.model.run(images)


def check_digest(path: Path, sha256: str) -> None:
    """Raise InvalidInput unless the file is there and has this SHA-256."""
    if not path.is_file():
        raise InvalidInput(f"There is no model file {path}.")
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise InvalidInput(
            f"{path.name} does not match its card: SHA-256 {found[:12]}… instead of "
            f"{sha256[:12]}…; fetch the file again or mend the card."
        )


def _open_session(card: ModelCard, path: Path, device: str) -> Any:
    source = _exposed(path, card) if card.features.internal else path
    session = start_session(source, path.name, config=card.session_config, device=device)
    found = {output.name for output in session.get_outputs()}
    wanted = {card.features.name} | ({card.logits.name} if card.logits else set())
    if len(session.get_inputs()) != 1 or not wanted <= found:
        raise InvalidInput(
            f"{path.name} does not fit its card: it has {len(session.get_inputs())} input(s) and "
            f"outputs {sorted(found)}, the card names {sorted(wanted)}."
        )
    return session


def start_session(
    source: Path | bytes,
    name: str,
    *,
    config: Sequence[tuple[str, str]] = (),
    device: str = "cpu",
) -> Any:
    """An onnxruntime session of one thread over a file or its bytes; InvalidInput if it cannot be.

    Args:
        source: the ONNX file.
        name: what errors call it.
        config: session entries, see ``ModelCard.session_config``.
        device: ``cpu`` or ``cuda``.
    """
    import onnxruntime

    available = onnxruntime.get_available_providers()
    if device == "cuda" and "CUDAExecutionProvider" not in available:
        raise InvalidInput(
            "The device 'cuda' needs the onnxruntime-gpu package and a CUDA driver; use 'cpu'."
        )
    options = onnxruntime.SessionOptions()
    # One thread an inference: the parallelism is across images (see OnnxModel.run).
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for key, value in config:
        options.add_session_config_entry(key, value)
    providers = ["CPUExecutionProvider"]
    if device == "cuda":
        providers.insert(0, "CUDAExecutionProvider")
    # onnxruntime's exceptions share no base class of their own.
    from onnxruntime.capi import onnxruntime_pybind11_state as faults

    try:
        given = source if isinstance(source, bytes) else str(source)
        session = onnxruntime.InferenceSession(given, options, providers=providers)
    except (
        faults.Fail,
        faults.InvalidArgument,
        faults.InvalidGraph,
        faults.InvalidProtobuf,
        faults.NotImplemented,
        faults.RuntimeException,
    ) as error:
        raise InvalidInput(f"{name} cannot be loaded as a model: {error}") from error
    if device == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        raise InvalidInput("The CUDA provider could not start; use the device 'cpu'.")
    return session


def _exposed(path: Path, card: ModelCard) -> bytes:
    """The model with the card's inner tensor added to the graph's outputs.

    Protocol buffers merge a message that is given twice by appending its repeated fields, so a
    second ``graph`` (field 7 of ModelProto) that holds one more ``output`` (field 12 of
    GraphProto, a ValueInfoProto with only its name, field 1) is enough: no ONNX library needed.
    """
    return path.read_bytes() + _field(7, _field(12, _field(1, card.features.name.encode())))


def _field(number: int, payload: bytes) -> bytes:
    """One length-delimited protocol buffer field."""
    length, size = len(payload), b""
    while length > 127:
        size += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + payload
