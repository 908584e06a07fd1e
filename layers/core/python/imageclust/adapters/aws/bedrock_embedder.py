"""Vectors from Bedrock's multimodal embedding models, on demand and by batch inference."""

import base64
import json
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from botocore.exceptions import ClientError
from numpy.typing import NDArray

from imageclust.adapters.aws.bedrock_jobs import (
    MAX_BYTES,
    MAX_RECORDS,
    BedrockJobs,
    answered,
    record_line,
)
from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.failures import code_of, translated
from imageclust.adapters.aws.pacing import Pace
from imageclust.adapters.aws.pictures import jpeg_within
from imageclust.costs import embedding_figure
from imageclust.errors import (
    CorruptData,
    InvalidInput,
    NotFound,
    Permanent,
    Throttled,
    UnknownModel,
)
from imageclust.models import JSON, parse_json_lines

_ATTEMPTS = 8
# One answer takes about a third of a second; so many requests under way reach the rate, also while
# some of the threads wait to try again.
_SECONDS_A_CALL = 1.2
_MAX_THREADS = 32
_MIN_SIDE, _MAX_SIDE = 50, 2048
# Far below what the models take: pictures come with a short side of 512 px, where this is more
# than quality 92 needs, and it bounds what a batch job's records weigh.
_MAX_BYTES = 256 * 1024
_PURPOSE = "CLUSTERING"
_PLAIN = np.full((320, 320, 3), 128, dtype=np.uint8)  # a picture that every model takes


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
        per_second: requests a second of this process; the account's quota is shared by all.
    """

    min_side = 512

    def __init__(
        self,
        clients: Clients,
        model_id: str,
        *,
        dimension: int = 1024,
        per_second: float = 30.0,
    ) -> None:
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
        self.model_id = model_id
        self._model = found
        self._pace = Pace(per_second)
        self._threads = min(_MAX_THREADS, max(1, math.ceil(per_second * _SECONDS_A_CALL)))
        self.dimension = dimension
        purpose = f"-{_PURPOSE.lower()}" if found.name.startswith("nova") else ""
        self.key = f"bedrock-{found.name}-{dimension}{purpose}-s{self.min_side}-v3"

    def embed(self, images: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """``(n, dimension)`` float32, L2-normalised; a few requests at a time, from the first on.

        The row of a picture that the model refuses is NaN.

        Raises:
            InvalidInput: the model refuses every picture, or is not open to this account.
            Throttled: the service kept asking to slow down.
        """
        return self._rows(self.request, images)

    def embed_requests(self, requests: Sequence[JSON]) -> NDArray[np.float32]:
        """The same for requests that were made before."""
        return self._rows(lambda request: request, requests)

    def request(self, pixels: NDArray[np.uint8]) -> JSON:
        """The body of the request for one picture. Raises InvalidInput when it has none."""
        data = jpeg_within(pixels, min_side=_MIN_SIDE, max_side=_MAX_SIDE, max_bytes=_MAX_BYTES)
        return self._model.body(base64.b64encode(data).decode(), self.dimension)

    def read(self, answer: Any) -> NDArray[np.float32]:
        """``(dimension,)`` float32, L2-normalised, from an answer's body. Raises CorruptData."""
        return _normalised(self._vector(answer)[None]).reshape(-1)

    def count_batch(self, images: int) -> None:
        """Note what a batch inference job was paid for."""
        self._clients.meter.add(f"batch_{embedding_figure(self.model_id)}", images)

    def _rows(self, make: Callable[[Any], JSON], items: Iterable[Any]) -> NDArray[np.float32]:
        with ThreadPoolExecutor(self._threads) as pool:
            rows = list(pool.map(lambda item: self._embed(make, item), items))
        if not rows:
            return np.zeros((0, self.dimension), dtype=np.float32)
        refused = [row for row in rows if isinstance(row, InvalidInput)]
        if len(refused) == len(rows) and isinstance(
            self._embed(self.request, _PLAIN), InvalidInput
        ):
            raise refused[0]  # it is not the pictures
        nothing = np.full(self.dimension, np.nan)
        return _normalised(np.stack([nothing if isinstance(r, InvalidInput) else r for r in rows]))

    def _embed(self, make: Callable[[Any], JSON], item: Any) -> NDArray[np.float64] | InvalidInput:
        """The vector of one picture, or why the model does not take this one."""
        try:
            text = self._ask(make(item))
        except (NotFound, UnknownModel):  # true of every picture
            raise
        except InvalidInput as error:
            return error
        try:
            answer = json.loads(text)
        except ValueError as error:
            raise CorruptData(f"{self.model_id} answered without a vector.") from error
        return self._vector(answer)

    def _vector(self, answer: Any) -> NDArray[np.float64]:
        try:
            row = np.asarray(self._model.vector(answer), dtype=np.float64)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise CorruptData(f"{self.model_id} answered without a vector.") from error
        if row.shape != (self.dimension,) or not np.isfinite(row).all():
            raise CorruptData(f"{self.model_id} answered with a vector of shape {row.shape}.")
        return row

    def _ask(self, body: JSON) -> bytes:
        return self._pace.call(lambda: self._invoke(body), attempts=_ATTEMPTS)

    def _invoke(self, body: JSON) -> bytes:
        try:
            with translated(f"Bedrock model {self.model_id}", refused={"ValidationException"}):
                answer = self._clients.bedrock_runtime.invoke_model(
                    modelId=self.model_id,
                    body=json.dumps(body),
                    contentType="application/json",
                    accept="application/json",
                )
                return answer["body"].read()
        except Permanent as error:
            code = code_of(error.__cause__) if isinstance(error.__cause__, ClientError) else ""
            if code == "ServiceQuotaExceededException":  # InvokeModel's other word for it
                raise Throttled(str(error)) from error
            if code == "AccessDeniedException":
                raise UnknownModel(
                    f"The Bedrock model {self.model_id} is not open to this account here: ask for "
                    f"access to it in the Bedrock console of this region, or choose another "
                    f"embedder. {error}"
                ) from error
            raise


class BedrockBatchEmbedder:
    """Batch inference jobs of type InvokeModel with the records of the on-demand requests, so
    the vectors are the same; ``recordId`` is the image's id.

    Args:
        embedder: the model and how it is asked.
        jobs: starts jobs.
    """

    records_a_job = min(MAX_RECORDS, MAX_BYTES // (_MAX_BYTES * 4 // 3 + 1_024))
    """What a job holds even if every picture weighs as much as it may."""

    def __init__(self, embedder: BedrockEmbedder, jobs: BedrockJobs) -> None:
        self._embedder = embedder
        self._jobs = jobs
        self.key = embedder.key
        self.dimension = embedder.dimension
        self.min_side = embedder.min_side

    def record(self, image_id: str, pixels: NDArray[np.uint8]) -> bytes:
        """One line of a job's input. Raises InvalidInput when the picture makes no request."""
        return record_line(image_id, self._embedder.request(pixels))

    def submit(self, *, job: str, source: str, output: str) -> None:
        """Start the job over a folder of records. Idempotent by name."""
        self._jobs.submit(
            job=job,
            model=self._embedder.model_id,
            kind="InvokeModel",
            source=source,
            output=output,
        )

    def join(self, records: bytes, outputs: Sequence[bytes]) -> dict[str, NDArray[np.float32]]:
        """A vector for each record by image id: the job's where it has one, else on demand.

        Answers come in any order; those that failed, are missing, make no sense or answer a
        record that was never asked are as if they were not there. Of two for one record the
        first counts. The vector of a picture that the model refuses again is NaN.

        Raises:
            InvalidInput: the model is not open to this account.
            Throttled: the service kept asking to slow down.
        """
        asked = {line["recordId"]: line["modelInput"] for line in parse_json_lines(records)}
        found: dict[str, NDArray[np.float32]] = {}
        for data in outputs:
            for image_id, answer in answered(data):
                if image_id in asked and image_id not in found:
                    try:
                        found[image_id] = self._embedder.read(answer)
                    except CorruptData:
                        continue
        self._embedder.count_batch(len(found))
        missing = [image_id for image_id in asked if image_id not in found]
        again = self._embedder.embed_requests([asked[image_id] for image_id in missing])
        return found | dict(zip(missing, again, strict=True))


def _normalised(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths == 0, 1, lengths), dtype=np.float32)
