"""Labels beside vectors, so that both count in one distance.

Cosine of two fused rows = (1 - weight) · cosine of the vectors + weight · cosine of the labels.
Raw scores set beside 0/1 labels, as is often done, leave one of the two without any say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from imageclust.errors import InvalidInput
from imageclust.labels.record import Label
from imageclust.late import np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse

# Measured: MobileNetV2 features and labels, k-means at true k, NMI over five labelled sets
# (benchmarks/README.md). Labels of the network that made the vectors add little to them; from .1
# on, what the classifier gets wrong costs more.
DEFAULT_WEIGHT = 0.03
MAX_LABEL_DIMENSIONS = 64


def label_block(labels: Sequence[Sequence[Label]]) -> sparse.csr_matrix:
    """Labels as a sparse matrix (n, vocabulary) float32 with rows of length 1.

    A value is the square root of the label's confidence (0 to 1) times its inverse frequency,
    log((1+n) / (1+images that have it)): what every picture shows tells nothing. The root keeps
    one sure label from drowning the rest; it measured better. A parent counts as a label with at
    least the confidence of its child, so "Beagle" and "Poodle" are near through "Dog". Columns are
    the names in alphabetical order; an image without labels has an empty row.
    """
    # SciPy loads at the first use: a run whose clustering is stored never needs it.
    from scipy import sparse

    rows = [_with_parents(image) for image in labels]
    names = sorted({name for row in rows for name in row})
    column = {name: place for place, name in enumerate(names)}
    starts = np.cumsum([0, *(len(row) for row in rows)])
    places = np.array([column[name] for row in rows for name in row], np.int32)
    values = np.sqrt([share for row in rows for share in row.values()], dtype=np.float64)
    block = sparse.csr_matrix((values, places, starts), shape=(len(rows), len(names)))
    frequency = np.bincount(places, minlength=len(names))
    block = block @ sparse.diags(np.sqrt(np.log((1 + len(rows)) / (1 + frequency))))
    block.eliminate_zeros()
    length = np.sqrt(np.asarray(block.multiply(block).sum(axis=1)).ravel())
    block = sparse.diags(1 / np.where(length > 0, length, 1)) @ block
    answer = sparse.csr_matrix(block, dtype=np.float32)
    answer.sort_indices()
    return answer


def fuse(
    vectors: NDArray[np.float32],
    labels: sparse.csr_matrix,
    *,
    weight: float = DEFAULT_WEIGHT,
    dimensions: int = MAX_LABEL_DIMENSIONS,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Vectors with labels beside them: (n, d) and (n, vocabulary) → (n, d + r) float32.

    Args:
        vectors: (n, d) float32, rows of length 1.
        labels: what ``label_block`` made; stays sparse until it is projected.
        weight: say of the labels, 0 (the vectors come back as they are) to 1 (labels alone).
        dimensions: r is at most this; a larger vocabulary is projected on its first singular
            vectors (Halko, Martinsson and Tropp, 2011).
        seed: of the projection.

    Rows have length 1; an image without labels keeps its vector. Raises InvalidInput.
    """
    if vectors.ndim != 2 or labels.shape[0] != len(vectors):
        raise InvalidInput(f"vectors {vectors.shape} and labels {labels.shape} do not fit")
    if not 0 <= weight <= 1:
        raise InvalidInput(f"weight must lie between 0 and 1, not {weight}")
    if dimensions < 1:
        raise InvalidInput(f"dimensions must be at least 1, not {dimensions}")
    if weight == 0:
        return vectors
    return _fuse(vectors, labels, weight, dimensions, seed)


def project(labels: sparse.csr_matrix, *, dimensions: int, seed: int) -> NDArray[np.float32]:
    """(n, vocabulary) sparse → (n, at most ``dimensions``) float32 with nearly the best inner
    products: a vocabulary that is small enough as it is, else its first singular directions by
    random projection with four power iterations.
    """
    if labels.shape[1] <= dimensions:
        return np.asarray(labels.toarray(), dtype=np.float32)
    rng = np.random.default_rng(seed)
    extra = min(dimensions + 16, *labels.shape)
    basis = labels @ rng.standard_normal((labels.shape[1], extra))
    for _ in range(4):
        basis, _ = np.linalg.qr(labels @ (labels.T @ np.linalg.qr(basis)[0]))
    _, _, directions = np.linalg.svd((labels.T @ basis).T, full_matrices=False)
    return np.asarray(labels @ directions[:dimensions].T, dtype=np.float32)


def _fuse(
    vectors: NDArray[np.float32],
    labels: sparse.csr_matrix,
    weight: float,
    dimensions: int,
    seed: int,
) -> NDArray[np.float32]:
    shown = project(labels, dimensions=dimensions, seed=seed)
    n, d = vectors.shape
    fused = np.empty((n, d + shown.shape[1]), np.float32)
    np.multiply(vectors, np.float32(np.sqrt(1 - weight)), out=fused[:, :d])
    np.multiply(shown, np.float32(np.sqrt(weight)), out=fused[:, d:])
    bare = np.diff(labels.indptr) == 0
    fused[bare, :d] = vectors[bare]
    length = np.linalg.norm(fused, axis=1, keepdims=True)
    fused /= np.where(length > 0, length, 1)
    return fused


def _with_parents(image: Sequence[Label]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for label in image:
        for name in (label.name, *label.parents):
            shares[name] = max(shares.get(name, 0.0), label.confidence / 100)
    return shares
