"""Vectors from Bedrock's multimodal embedding models, on demand."""

import base64
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from botocore.exceptions import ClientError
from numpy.typing import NDArray

from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.failures import code_of, translated
from imageclust.adapters.aws.pictures import jpeg_within
from imageclust.errors import CorruptData, InvalidInput, NotFound, Permanent, UnknownModel
from imageclust.models import JSON

_THREADS = 8
_MIN_SIDE, _MAX_SIDE = 50, 2048
_MAX_BYTES = 5 * 1024 * 1024
_PURPOSE = "CLUSTERING"


@dataclass(frozen=True)
class _Model:
    """How one model is asked: lengths it offers, its request body and where the vector is."""

    name: str
    dimensions: tuple[int, ...]
    body: Callable[[str, int], JSON]
    vector: Callable[[JSON], Any]


def _titan_body(picture: str, dimension: int) -> JSON:
    return {"inputImage": picture, "embeddingConfig": {"outputEmbeddingLength": dimension}}


def _nova_body(picture: str, dimension: int) -> JSON:
    return {
        "schemaVersion": "nova-multimodal-embed-v1",
        "taskType": "SINGLE_EMBEDDING",
        "singleEmbeddingParams": {
            "embeddingPurpose": _PURPOSE,
            "embeddingDimension": dimension,
            "image": {
                "detailLevel": "STANDARD_IMAGE",
                "format": "jpeg",
                "source": {"bytes": picture},
            },
        },
    }


_MODELS = {
    "amazon.titan-embed-image-v1": _Model(
        name="titan-embed-image-v1",
        dimensions=(256, 384, 1024),
        body=_titan_body,
        vector=lambda answer: answer["embedding"],
    ),
    "amazon.nova-2-multimodal-embeddings-v1:0": _Model(
        name="nova-2-multimodal-embeddings-v1",
        dimensions=(256, 384, 1024, 3072),
        body=_nova_body,
        vector=lambda answer: answer["embeddings"][0]["embedding"],
    ),
}


class BedrockEmbedder:
    """One ``InvokeModel`` an image; see ``imageclust.embedding.Embedder``.

    Args:
        clients: the AWS clients.
        model_id: Titan Multimodal Embeddings G1 or Nova Multimodal Embeddings, with or without
            the prefix of a region.
        dimension: length of the vectors, one that the model offers.
    """

    min_side = 512

    def __init__(self, clients: Clients, model_id: str, *, dimension: int = 1024) -> None:
        found = next((m for name, m in _MODELS.items() if model_id.endswith(name)), None)
        if found is None:
            raise UnknownModel(
                f"Bedrock model '{model_id}' is not known here; use one of {', '.join(_MODELS)}."
            )
        if dimension not in found.dimensions:
            raise UnknownModel(
                f"{model_id} gives vectors of {', '.join(map(str, found.dimensions))} "
                f"dimensions, not {dimension}."
            )
        self._clients = clients
        self._model_id = model_id
        self._model = found
        self.dimension = dimension
        purpose = f"-{_PURPOSE.lower()}" if found.name.startswith("nova") else ""
        self.key = f"bedrock-{found.name}-{dimension}{purpose}-s{self.min_side}-v1"

    def embed(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """``(n, dimension)`` float32, L2-normalised; a few requests at a time.

        The row of a picture that the model refuses is NaN.

        Raises:
            InvalidInput: the model refuses every picture, or is not open to this account.
            Throttled: the service kept asking to slow down.
        """
        if not len(images):
            return np.zeros((0, self.dimension), dtype=np.float32)
        with ThreadPoolExecutor(min(_THREADS, len(images))) as pool:
            answers = list(pool.map(self._embed, images))
        refused = [answer for answer in answers if isinstance(answer, InvalidInput)]
        if len(refused) == len(answers):
            raise refused[0]
        nothing = np.full(self.dimension, np.nan)
        rows = np.stack([nothing if isinstance(a, InvalidInput) else a for a in answers])
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(rows / np.where(lengths == 0, 1, lengths), dtype=np.float32)

    def _embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64] | InvalidInput:
        """The vector of one picture, or why the model does not take this one."""
        try:
            data = jpeg_within(pixels, min_side=_MIN_SIDE, max_side=_MAX_SIDE, max_bytes=_MAX_BYTES)
            text = self._ask(data)
        except (NotFound, UnknownModel):  # true of every picture
            raise
        except InvalidInput as error:
            return error
        try:
            row = np.asarray(self._model.vector(json.loads(text)), dtype=np.float64)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise CorruptData(f"{self._model_id} answered without a vector.") from error
        if row.shape != (self.dimension,) or not np.isfinite(row).all():
            raise CorruptData(f"{self._model_id} answered with a vector of shape {row.shape}.")
        return row

    def _ask(self, picture: bytes) -> bytes:
        body = self._model.body(base64.b64encode(picture).decode(), self.dimension)
        try:
            with translated(f"Bedrock model {self._model_id}", refused={"ValidationException"}):
                answer = self._clients.bedrock_runtime.invoke_model(
                    modelId=self._model_id,
                    body=json.dumps(body),
                    contentType="application/json",
                    accept="application/json",
                )
                return answer["body"].read()
        except Permanent as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and code_of(cause) == "AccessDeniedException":
                raise UnknownModel(
                    f"The Bedrock model {self._model_id} is not open to this account here: ask for "
                    f"access to it in the Bedrock console of this region, or choose another "
                    f"embedder. {error}"
                ) from error
            raise
