"""Nearest neighbours in S3 Vectors."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.failures import translated
from imageclust.adapters.vectors import (
    NON_FILTERABLE,
    check_filter,
    check_index,
    check_metadata,
    check_query,
    check_vectors,
)
from imageclust.errors import Conflict, InvalidInput
from imageclust.models import JSON
from imageclust.ports import VectorMatch

_MAX_VECTORS = 500
_MAX_LISTED = 1_000
# The limit is 20 MiB; a float32 takes at most 24 characters of JSON.
_MAX_BYTES = 18 * 1024 * 1024
_BYTES_A_NUMBER = 24


class S3VectorsIndex:
    """Indexes of one vector bucket, cosine distance.

    Args:
        clients: the AWS clients.
        bucket: the vector bucket.
    """

    def __init__(self, clients: Clients, bucket: str) -> None:
        self._clients = clients
        self._bucket = bucket

    def create(self, index: str, dimension: int) -> None:
        """Make the index; the same dimension again is no error, another raises InvalidInput."""
        check_index(index, dimension)
        try:
            with translated(f"The index '{index}'"):
                self._clients.s3vectors.create_index(
                    vectorBucketName=self._bucket,
                    indexName=index,
                    dataType="float32",
                    dimension=dimension,
                    distanceMetric="cosine",
                    metadataConfiguration={"nonFilterableMetadataKeys": list(NON_FILTERABLE)},
                )
        except Conflict:
            found = self._dimension(index)
            if found != dimension:
                raise InvalidInput(
                    f"The index '{index}' has dimension {found}, not {dimension}."
                ) from None

    def put(
        self, index: str, ids: Sequence[str], vectors: NDArray[np.float32], metadata: Sequence[JSON]
    ) -> None:
        """Insert or replace vectors; of an id that comes twice the last one stays."""
        rows = check_vectors(ids, vectors, metadata, dimension=self._dimension(index))
        last = list({name: number for number, name in enumerate(ids)}.values())
        texts = [check_metadata(metadata[number]) for number in last]
        widest = max((len(text) for text in texts), default=0)
        a_call = _MAX_BYTES // (rows.shape[1] * _BYTES_A_NUMBER + widest + 2_000)
        # Equal parts: S3 Vectors charges at least 128 KB a call, so no call should be tiny.
        calls = -(-len(last) // min(_MAX_VECTORS, a_call))
        for numbers in np.array_split(np.asarray(last, dtype=np.intp), calls) if calls else ():
            with translated(f"The index '{index}'"):
                self._clients.s3vectors.put_vectors(
                    vectorBucketName=self._bucket,
                    indexName=index,
                    vectors=[
                        {
                            "key": ids[number],
                            "data": {"float32": rows[number].tolist()},
                            "metadata": json.loads(json.dumps(metadata[number])),
                        }
                        for number in numbers.tolist()
                    ],
                )

    def query(
        self,
        index: str,
        vector: NDArray[np.float32],
        *,
        top_k: int,
        where: Mapping[str, Any] | None = None,
    ) -> tuple[VectorMatch, ...]:
        """The ``top_k`` nearest, nearest first, ties by id; answers come in pages of a hundred."""
        check_filter(where or {})
        aim = check_query(vector, dimension=np.size(vector), top_k=top_k)
        extra: dict[str, Any] = {}
        tests = [{name: {"$eq": value}} for name, value in (where or {}).items()]
        if tests:
            extra["filter"] = tests[0] if len(tests) == 1 else {"$and": tests}
        found: list[VectorMatch] = []
        while True:
            # What the service finds invalid is the vector's dimension: the rest is checked.
            with translated(f"The index '{index}'", invalid=InvalidInput):
                answer = self._clients.s3vectors.query_vectors(
                    vectorBucketName=self._bucket,
                    indexName=index,
                    topK=top_k,
                    queryVector={"float32": aim.tolist()},
                    returnDistance=True,
                    returnMetadata=True,
                    **extra,
                )
            found += [
                VectorMatch(match["key"], match["distance"], dict(match.get("metadata") or {}))
                for match in answer["vectors"]
            ]
            if not answer.get("nextToken") or len(found) >= top_k:
                break
            extra["nextToken"] = answer["nextToken"]
        return tuple(sorted(found, key=lambda match: (match.distance, match.id))[:top_k])

    def keep(self, index: str, ids: Collection[str]) -> None:
        """Remove every vector but those of ``ids``. One that is not there is no error."""
        check_index(index, 1)
        wanted = frozenset(ids)
        pages = self._clients.s3vectors.get_paginator("list_vectors").paginate(
            vectorBucketName=self._bucket,
            indexName=index,
            PaginationConfig={"PageSize": _MAX_LISTED},
        )
        with translated(f"The index '{index}'"):
            # The whole list first: the index should not change under its pages.
            gone = [
                vector["key"]
                for page in pages
                for vector in page["vectors"]
                if vector["key"] not in wanted
            ]
            for start in range(0, len(gone), _MAX_VECTORS):
                self._clients.s3vectors.delete_vectors(
                    vectorBucketName=self._bucket,
                    indexName=index,
                    keys=gone[start : start + _MAX_VECTORS],
                )

    def _dimension(self, index: str) -> int:
        check_index(index, 1)
        with translated(f"The index '{index}'"):
            answer = self._clients.s3vectors.get_index(
                vectorBucketName=self._bucket, indexName=index
            )
        return answer["index"]["dimension"]
