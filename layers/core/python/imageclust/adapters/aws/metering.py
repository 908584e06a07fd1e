"""Counts what this process buys of AWS, at the one place that every call passes: botocore's events.

Units are named as in the price file; tokens as ``tokens_in/MODEL`` with the model as it was called.
"""

import json
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import boto3

from imageclust.costs import embedding_figure

_LEAST_VECTOR_BYTES = 128 * 1024  # a PutVectors call is billed as at least so much
_OPERATIONS = {
    ("rekognition", "DetectLabels"): "rekognition_image",
    ("rekognition", "DetectModerationLabels"): "rekognition_moderation",
    ("s3", "PutObject"): "s3_put",
    ("s3", "CopyObject"): "s3_put",
    ("s3", "CreateMultipartUpload"): "s3_put",
    ("s3", "UploadPart"): "s3_put",
    ("s3", "CompleteMultipartUpload"): "s3_put",
    ("s3", "ListObjectsV2"): "s3_put",
    ("s3", "GetObject"): "s3_get",
    ("s3", "HeadObject"): "s3_get",
}
_TABLE_READS = {"GetItem", "BatchGetItem", "Query"}


class Meter:
    """Units used since the last ``take``, by figure; safe to share by threads."""

    def __init__(self) -> None:
        self._units: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, figure: str, quantity: float) -> None:
        """``quantity`` more units of ``figure``."""
        if quantity:
            with self._lock:
                self._units[figure] += quantity  # type: ignore[assignment]  # parts of a unit too

    def count_tokens(self, model: str, answer: Mapping[str, Any], *, batch: bool = False) -> None:
        """The tokens that a Converse answer says it took, from batch inference or on demand."""
        usage = answer.get("usage") or {}
        for figure, quantity in (("tokens_in", "inputTokens"), ("tokens_out", "outputTokens")):
            name = f"{figure}/{model}"
            self.add(f"batch_{name}" if batch else name, usage.get(quantity, 0))

    def take(self) -> dict[str, float]:
        """What was counted, and begin anew."""
        with self._lock:
            units, self._units = dict(self._units), Counter()
        return {figure: float(quantity) for figure, quantity in units.items()}

    def watch(self, session: boto3.Session) -> None:
        """Count the calls of every client that the session makes from now on."""
        session.events.register("provide-client-params", self._before)
        session.events.register("after-call", self._after)

    def _before(self, params: dict[str, Any], model: Any, context: Any, **_: Any) -> None:
        service, operation = model.service_model.service_name, model.name
        if service == "dynamodb" and "ReturnConsumedCapacity" in model.input_shape.members:
            params["ReturnConsumedCapacity"] = "TOTAL"
        elif service == "bedrock-runtime":
            context["imageclust_model"] = params["modelId"]
        elif service == "s3vectors" and operation == "PutVectors":
            context["imageclust_bytes"] = _vector_bytes(params["vectors"])

    def _after(self, http_response: Any, parsed: Any, model: Any, context: Any, **_: Any) -> None:
        if http_response.status_code >= 300:
            return
        service, operation = model.service_model.service_name, model.name
        if figure := _OPERATIONS.get((service, operation)):
            self.add(figure, 1)
            if "ImageProperties" in parsed:
                self.add("rekognition_properties", 1)
        elif service == "dynamodb":
            figure = "table_read" if operation in _TABLE_READS else "table_write"
            self.add(figure, _capacity(parsed))
        elif service == "bedrock-runtime":
            self._count_model(operation, context["imageclust_model"], parsed)
        elif service == "s3vectors" and operation == "PutVectors":
            self.add("vector_put_gb", context["imageclust_bytes"] / 1e9)

    def _count_model(self, operation: str, model: str, parsed: Mapping[str, Any]) -> None:
        if operation == "InvokeModel":
            self.add(embedding_figure(model), 1)
            return
        self.count_tokens(model, parsed)


def _capacity(parsed: Mapping[str, Any]) -> float:
    """Request units of an answer: one record, or a list of one a table."""
    told = parsed.get("ConsumedCapacity") or []
    each = told if isinstance(told, list) else [told]
    return sum(float(one.get("CapacityUnits", 0)) for one in each)


def _vector_bytes(vectors: Any) -> int:
    """Billed bytes of one call: four a number, the keys and the metadata."""
    size = sum(
        len(vector["key"])
        + 4 * len(vector["data"]["float32"])
        + len(json.dumps(vector.get("metadata") or {}))
        for vector in vectors
    )
    return max(size, _LEAST_VECTOR_BYTES)
