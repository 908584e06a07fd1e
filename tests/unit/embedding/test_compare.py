"""The ranked table of configurations."""

import numpy as np
import pytest
from imageclust.embedding.compare import (
    Candidate,
    PairRule,
    knn_agreement,
    pairs_satisfied,
    rank_candidates,
)
from imageclust.errors import InvalidInput

LABELS = np.repeat([0, 1], 10)
APART = np.repeat([[1.0, 0.0], [0.0, 1.0]], 10, axis=0)


def candidate(name: str, composite: float, labels: np.ndarray = LABELS) -> Candidate:
    metrics = {"composite": composite, "silhouette": 0.5, "balance": 1.0}
    return Candidate(name, APART, labels, metrics, 1.0)


def test_the_best_composite_ranks_first() -> None:
    rows = rank_candidates([candidate("a", 0.4), candidate("b", 0.9), candidate("c", float("nan"))])
    assert [(row.rank, row.name) for row in rows] == [(1, "b"), (2, "a"), (3, "c")]
    assert rows[0].knn_agreement == 1.0
    assert rows[0].clusters == 2
    assert rows[0].pairs_satisfied is None
    assert rows[0].to_json()["name"] == "b"


def test_the_users_pairs_outrank_the_score() -> None:
    swapped = LABELS.copy()
    swapped[0] = 1
    rules = [PairRule(0, 1, together=True), PairRule(0, 19, together=False)]
    rows = rank_candidates([candidate("a", 0.9, swapped), candidate("b", 0.4)], pairs=rules)
    assert [(row.name, row.pairs_satisfied) for row in rows] == [("b", 1.0), ("a", 0.0)]


def test_outliers_are_never_together() -> None:
    labels = np.array([-1, -1, 0])
    assert pairs_satisfied(labels, [PairRule(0, 1, together=True)]) == 0.0
    assert pairs_satisfied(labels, [PairRule(0, 1, together=False)]) == 1.0


def test_neighbour_agreement_against_a_plain_loop() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(60, 5))
    labels = rng.integers(-1, 4, 60)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    shares = []
    for row in np.flatnonzero(labels >= 0):
        near = unit @ unit[row]
        near[row] = -2
        shares.append(np.mean(labels[np.argsort(-near)[:5]] == labels[row]))
    assert knn_agreement(vectors, labels) == pytest.approx(np.mean(shares))


def test_nothing_and_one_picture() -> None:
    assert rank_candidates([]) == []
    assert knn_agreement(np.ones((1, 2)), np.array([0])) == 0.0
    assert knn_agreement(np.ones((4, 2)), np.full(4, -1)) == 0.0


def test_configurations_must_cover_the_same_pictures() -> None:
    short = Candidate("short", APART[:5], LABELS[:5], {}, 1.0)
    with pytest.raises(InvalidInput, match="same 20 pictures"):
        rank_candidates([candidate("a", 0.5), short])
    with pytest.raises(InvalidInput, match="names no two"):
        rank_candidates([candidate("a", 0.5)], pairs=[PairRule(3, 3, together=True)])
