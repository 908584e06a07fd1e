"""Ranking embedders: which vectors group these pictures best."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imageclust.embedding.preprocess import l2_normalised
from imageclust.errors import InvalidInput

_NEIGHBOURS = 5
_TILE = 2048


@dataclass(frozen=True)
class Candidate:
    """One configuration with what came of it.

    ``vectors``: ``(n, d)`` float; ``labels``: ``(n,)`` int, -1 = outlier; ``metrics``: the
    clustering's own (``composite``, ``silhouette``, ``balance`` are used); ``seconds``: embedding
    and clustering.
    """

    name: str
    vectors: NDArray[Any]
    labels: NDArray[Any]
    metrics: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class PairRule:
    """Rows ``first`` and ``second`` must share a cluster (``together``) or must not."""

    first: int
    second: int
    together: bool


@dataclass(frozen=True)
class CompareRow:
    """One line of the ranked table; ``rank`` 1 is the best.

    ``knn_agreement``: the mean share of a picture's five nearest neighbours in its own cluster.
    ``pairs_satisfied``: the share of the pair rules that hold; None when there are none.
    """

    rank: int
    name: str
    composite: float
    silhouette: float
    balance: float
    knn_agreement: float
    pairs_satisfied: float | None
    clusters: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The line as a plain dict."""
        return asdict(self)


def rank_candidates(
    candidates: Sequence[Candidate], *, pairs: Sequence[PairRule] = ()
) -> list[CompareRow]:
    """The candidates as a ranked table.

    Pair rules are the user's own words, so the share that holds ranks first; then the composite
    score, then neighbour agreement, then time, then the name.

    Raises:
        InvalidInput: candidates disagree on the number of pictures, or a pair names no row.
    """
    if not candidates:
        return []
    n = len(candidates[0].labels)
    for candidate in candidates:
        if candidate.vectors.ndim != 2 or not len(candidate.vectors) == len(candidate.labels) == n:
            raise InvalidInput(f"Every configuration must cover the same {n} pictures.")
    for pair in pairs:
        if not (0 <= pair.first < n and 0 <= pair.second < n and pair.first != pair.second):
            raise InvalidInput(f"The pair {pair.first}, {pair.second} names no two pictures.")
    rows = [_row(candidate, pairs) for candidate in candidates]
    rows.sort(
        key=lambda row: (
            -(row.pairs_satisfied or 0.0),
            -_or_worst(row.composite),
            -row.knn_agreement,
            row.seconds,
            row.name,
        )
    )
    return [CompareRow(**{**asdict(row), "rank": position}) for position, row in enumerate(rows, 1)]


def knn_agreement(vectors: NDArray[Any], labels: NDArray[Any], *, k: int = _NEIGHBOURS) -> float:
    """Mean share of the k nearest neighbours (cosine) in a picture's own cluster; 0..1.

    Outliers (-1) are not counted, but they may be neighbours. 0 for fewer than two pictures.
    """
    rows = l2_normalised(vectors)
    n = len(rows)
    k = min(k, n - 1)
    inside = np.flatnonzero(labels >= 0)
    if k < 1 or len(inside) == 0:
        return 0.0
    agreed = 0
    for start in range(0, len(inside), _TILE):
        part = inside[start : start + _TILE]
        near = rows[part] @ rows.T
        near[np.arange(len(part)), part] = -np.inf
        nearest = np.argpartition(-near, k - 1, axis=1)[:, :k]
        agreed += int((labels[nearest] == labels[part][:, None]).sum())
    return agreed / (k * len(inside))


def pairs_satisfied(labels: NDArray[Any], pairs: Sequence[PairRule]) -> float | None:
    """Share of the pair rules that hold; two outliers are not together. None without rules."""
    if not pairs:
        return None
    held = sum(
        (labels[pair.first] == labels[pair.second] and labels[pair.first] >= 0) == pair.together
        for pair in pairs
    )
    return float(held) / len(pairs)


def _row(candidate: Candidate, pairs: Sequence[PairRule]) -> CompareRow:
    labels = np.asarray(candidate.labels)
    return CompareRow(
        rank=0,
        name=candidate.name,
        composite=float(candidate.metrics.get("composite", math.nan)),
        silhouette=float(candidate.metrics.get("silhouette", math.nan)),
        balance=float(candidate.metrics.get("balance", math.nan)),
        knn_agreement=knn_agreement(candidate.vectors, labels),
        pairs_satisfied=pairs_satisfied(labels, pairs),
        clusters=len(np.unique(labels[labels >= 0])),
        seconds=candidate.seconds,
    )


def _or_worst(value: float) -> float:
    return value if math.isfinite(value) else -math.inf
