"""S3 Vectors as documented: moto's index plus queries, filters, limits and conflicts."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from moto.s3vectors import urls
from moto.s3vectors.models import s3vectors_backends
from moto.s3vectors.responses import S3VectorsResponse

from tests.standins.endpoint import AwsError, served

PAGE = 100
_ACCOUNT = "123456789012"


class FakeS3Vectors:
    """Cosine queries in pages of a hundred, exact; refuses what the service refuses.

    ``puts`` lists how many vectors each PutVectors call brought, ``deletes`` how many keys each
    DeleteVectors call.
    """

    def __init__(self) -> None:
        self.puts: list[int] = []
        self.deletes: list[int] = []
        self.throttle_next = 0
        self._non_filterable: dict[str, set[str]] = {}

    @contextmanager
    def serve(self) -> Iterator["FakeS3Vectors"]:
        """Answer what writes, lists and queries vectors while moto is on."""
        operations = {
            "CreateIndex": self._create_index,
            "PutVectors": self._put_vectors,
            "QueryVectors": self._query_vectors,
            "ListVectors": self._list_vectors,
            "DeleteVectors": self._delete_vectors,
        }
        with served(
            S3VectorsResponse, "s3vectors", operations, routes=urls.url_paths, route="/{name}"
        ):
            yield self

    @property
    def _backend(self) -> Any:
        return s3vectors_backends[_ACCOUNT]["aws"]

    def _create_index(self, request: dict[str, Any]) -> dict[str, Any]:
        self._maybe_throttle()
        bucket = self._backend.get_vector_bucket(request["vectorBucketName"])
        if any(i.index_name == request["indexName"] for i in bucket.indexes.values()):
            raise AwsError("ConflictException", "An index with the specified name already exists")
        self._backend.create_index(
            vector_bucket_name=request["vectorBucketName"],
            vector_bucket_arn=None,
            index_name=request["indexName"],
            dimension=request["dimension"],
            data_type=request["dataType"],
            distance_metric=request["distanceMetric"],
        )
        configured = request.get("metadataConfiguration", {})
        self._non_filterable[request["indexName"]] = set(
            configured.get("nonFilterableMetadataKeys", ())
        )
        return {"indexArn": self._index(request).index_arn}

    def _put_vectors(self, request: dict[str, Any]) -> dict[str, Any]:
        self._maybe_throttle()
        index, vectors = self._index(request), request["vectors"]
        if not 1 <= len(vectors) <= 500:
            raise AwsError("ValidationException", "1 to 500 vectors a call")
        if len(json.dumps(vectors)) > 20 * 1024 * 1024:
            raise AwsError("ValidationException", "Request payload above 20 MiB")
        if len({vector["key"] for vector in vectors}) < len(vectors):
            raise AwsError("ValidationException", "Duplicate keys in one request")
        hidden = self._non_filterable.get(request["indexName"], set())
        for vector in vectors:
            values = np.asarray(vector["data"]["float32"], dtype=np.float32)
            if not np.isfinite(values).all() or not values.any():
                raise AwsError("ValidationException", "Cosine needs finite vectors, not zero")
            metadata = vector.get("metadata", {})
            open_part = {k: v for k, v in metadata.items() if k not in hidden}
            if len(json.dumps(metadata)) > 40 * 1024 or len(json.dumps(open_part)) > 2048:
                raise AwsError("ValidationException", "Metadata above its limit")
            if any(v is None or isinstance(v, dict) for v in metadata.values()):
                raise AwsError("ValidationException", "Metadata of a type that is not supported")
        self.puts.append(len(vectors))
        self._backend.put_vectors(
            vector_bucket_name=request["vectorBucketName"],
            index_name=request["indexName"],
            index_arn=None,
            vectors=vectors,
        )
        del index
        return {}

    def _query_vectors(self, request: dict[str, Any]) -> dict[str, Any]:
        self._maybe_throttle()
        index = self._index(request)
        if not 1 <= request["topK"] <= 10_000:
            raise AwsError("ValidationException", "topK must be 1 to 10000")
        aim = np.asarray(request["queryVector"]["float32"], dtype=np.float64)
        if len(aim) != index.dimension:
            raise AwsError("ValidationException", "Query vector of another dimension")
        hidden = self._non_filterable.get(request["indexName"], set())
        ranked = []
        for vector in index.vectors.values():
            if not _matches(vector.metadata or {}, request.get("filter", {}), hidden):
                continue
            row = np.asarray(vector.data["float32"], dtype=np.float64)
            cosine = row @ aim / (np.linalg.norm(row) * np.linalg.norm(aim))
            ranked.append((float(np.float32(1 - cosine)), vector))
        ranked.sort(key=lambda pair: pair[0])
        ranked = ranked[: request["topK"]]
        start = int(base64.b64decode(request.get("nextToken", "MA==")))
        answer: dict[str, Any] = {"vectors": [], "distanceMetric": "cosine"}
        for distance, vector in ranked[start : start + PAGE]:
            match: dict[str, Any] = {"key": vector.key}
            if request.get("returnDistance"):
                match["distance"] = distance
            if request.get("returnMetadata"):
                match["metadata"] = vector.metadata or {}
            answer["vectors"].append(match)
        if start + PAGE < len(ranked):
            answer["nextToken"] = base64.b64encode(str(start + PAGE).encode()).decode()
        return answer

    def _list_vectors(self, request: dict[str, Any]) -> dict[str, Any]:
        self._maybe_throttle()
        assert not request.get("returnData"), "needs s3vectors:GetVectors"
        assert not request.get("returnMetadata"), "needs s3vectors:GetVectors"
        listed = list(self._index(request).vectors)
        most = request.get("maxResults", 500)
        if not 1 <= most <= 1000:
            raise AwsError("ValidationException", "maxResults must be 1 to 1000")
        start = int(base64.b64decode(request.get("nextToken", "MA==")))
        answer: dict[str, Any] = {"vectors": [{"key": k} for k in listed[start : start + most]]}
        if start + most < len(listed):
            answer["nextToken"] = base64.b64encode(str(start + most).encode()).decode()
        return answer

    def _delete_vectors(self, request: dict[str, Any]) -> dict[str, Any]:
        self._maybe_throttle()
        index, names = self._index(request), request["keys"]
        if not 1 <= len(names) <= 500:
            raise AwsError("ValidationException", "1 to 500 keys a call")
        for name in names:
            index.vectors.pop(name, None)
        self.deletes.append(len(names))
        return {}

    def _index(self, request: dict[str, Any]) -> Any:
        return self._backend.get_index(request["vectorBucketName"], request["indexName"], None)

    def _maybe_throttle(self) -> None:
        if self.throttle_next:
            self.throttle_next -= 1
            raise AwsError("TooManyRequestsException", "Please reduce your request rate")


def _matches(metadata: dict[str, Any], wanted: dict[str, Any], hidden: set[str]) -> bool:
    for name, test in wanted.items():
        if name == "$and":
            if not all(_matches(metadata, part, hidden) for part in test):
                return False
            continue
        if name in hidden:
            raise AwsError("ValidationException", f"Metadata key {name} is not filterable")
        assert set(test) == {"$eq"}, f"the stand-in knows $eq only, not {test}"
        found = metadata.get(name)
        values = found if isinstance(found, list) else [found]
        if not any(type(v) is type(test["$eq"]) and v == test["$eq"] for v in values):
            return False
    return True
