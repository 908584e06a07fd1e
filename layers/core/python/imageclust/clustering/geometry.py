"""Shared ground: unit rows, rotation, distinct rows, sums and centres of clusters."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from imageclust.clustering.parallel import in_parallel, one_blas_thread

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Labels = NDArray[np.int32]
Rows = NDArray[np.int64]

BLOCK = 8192
_SAME = 1e-5  # the distance of float32 rows of length one that rounding alone explains


def unit_rows(vectors: NDArray[Any]) -> Floats:
    """(n, d) float32 with rows of length one; a zero row stays zero."""
    rows = np.array(vectors, dtype=np.float32, order="C")
    # Scale by the largest entry first: squares of float32 overflow from 1e19 on.
    peak = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    np.divide(rows, peak, out=rows, where=peak > 0)
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    np.divide(rows, length, out=rows, where=length > 0)
    return rows


def centred_rows(vectors: NDArray[Any]) -> Floats:
    """(n, d) float32: the mean of all rows taken off, then rows of length one.

    What every image of a collection has in common says nothing of its groups and takes up most of
    each cosine; without it groups come apart better (benchmarks/README.md; Mu & Viswanath 2018).
    A row that is the mean, but for rounding, becomes zero. Two rows or fewer, and rows that are all
    the same, have nothing but their mean: they are only scaled.

    Args:
        vectors: (n, d) real numbers, rows of any length; left as they are.
    """
    rows = unit_rows(vectors)
    if len(rows) < 3:
        return rows
    middle = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    length = np.empty(len(rows), dtype=np.float32)
    for part in blocks(len(rows)):
        off = rows[part] - middle
        length[part] = np.sqrt(np.einsum("ij,ij->i", off, off))
    apart = length > _SAME
    if not apart.any():
        return rows
    rows -= middle
    rows[~apart] = 0.0
    np.divide(rows, length[:, None], out=rows, where=apart[:, None])
    return rows


def blocks(n: int, size: int = BLOCK) -> Iterator[slice]:
    """Slices that cover ``range(n)``."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def distinct_rows(rows: Floats) -> tuple[Rows, Rows]:
    """First row of each distinct content, in row order, and for each row its place among them."""
    n, d = rows.shape
    if d == 0:
        return np.zeros(min(n, 1), dtype=np.int64), np.zeros(n, dtype=np.int64)
    # + 0.0 turns -0.0 into 0.0, so equal values have equal bytes.
    keys = (rows + 0.0).view(np.dtype((np.void, rows.dtype.itemsize * d))).ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order].astype(np.int64), place[inverse].astype(np.int64)


def membership(labels: NDArray[Any], k: int) -> sparse.csr_matrix:
    """(k, n) sparse 0/1 matrix; rows labelled -1 belong to no cluster."""
    inside = np.flatnonzero(labels >= 0)
    values = np.ones(len(inside), dtype=np.float32)
    return sparse.csr_matrix((values, (labels[inside], inside)), shape=(k, len(labels)))


def cluster_sums(rows: Floats, labels: NDArray[Any], k: int) -> Floats:
    """(k, d) sums of the members' rows."""
    sums: Floats = membership(labels, k) @ rows
    return sums


def cluster_sizes(labels: NDArray[Any], k: int) -> Rows:
    """(k,) members of each cluster."""
    return np.bincount(labels[labels >= 0], minlength=k).astype(np.int64)


def cluster_means(rows: Floats, labels: NDArray[Any], k: int) -> Floats:
    """(k, d) means; an empty cluster has a zero row."""
    sizes = np.maximum(cluster_sizes(labels, k), 1).astype(np.float32)
    means: Floats = cluster_sums(rows, labels, k) / sizes[:, None]
    return means


def squared_distances(rows: Floats, centres: Floats) -> Floats:
    """(n, k) squared Euclidean distances, never negative."""
    own = np.einsum("ij,ij->i", rows, rows)[:, None]
    other = np.einsum("ij,ij->i", centres, centres)[None, :]
    result = np.empty((len(rows), len(centres)), dtype=np.float32)
    turned = np.ascontiguousarray(centres.T)

    def fill(part: slice) -> None:
        tile = result[part]
        np.matmul(rows[part], turned, out=tile)
        tile *= -2.0
        tile += own[part]
        tile += other
        np.maximum(tile, 0.0, out=tile)

    in_parallel(fill, blocks(len(rows)))
    return result


def nearest_centre(rows: Floats, centres: Floats) -> Labels:
    """(n,) the nearest centre of each row, ties to the lowest."""
    half = 0.5 * np.einsum("ij,ij->i", centres, centres)
    turned = np.ascontiguousarray(centres.T)
    labels = np.empty(len(rows), dtype=np.int32)

    def fill(part: slice) -> None:
        scores = rows[part] @ turned
        scores -= half
        labels[part] = scores.argmax(axis=1)

    in_parallel(fill, blocks(len(rows)))
    return labels


def rotate(
    rows: Floats, columns: int | None = None, *, centre: bool = True
) -> tuple[Floats, Floats]:
    """Centre (or not) and rotate to principal axes: first columns hold the most.

    Centred, distances stay; not centred, inner products stay too.

    Returns:
        (n, c) float32 coordinates and the (c,) variances, largest first; c is ``columns`` or
        min(n, d), beyond which every coordinate would be zero. The sign of each axis makes its
        largest entry positive, so that the result is one.
    """
    n, d = rows.shape
    centred = rows
    if centre:
        centred = rows - rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    kept = min(n, d) if columns is None else min(n, d, columns)
    with one_blas_thread():
        if n < d:
            # Fewer rows than columns: the small Gram matrix has the same spectrum.
            wide = centred.astype(np.float64)
            values, vectors = np.linalg.eigh(wide @ wide.T)
            axes = wide.T @ vectors[:, ::-1][:, :kept]
            # Axes without variance are rounding noise: they become zero, not unit, columns.
            length = np.linalg.norm(axes, axis=0)
            axes /= np.where(length > 1e-6 * length.max(initial=0.0), length, np.inf)
        else:
            parts = in_parallel(
                lambda part: (centred[part].T @ centred[part]).astype(np.float64), blocks(n)
            )
            values, vectors = np.linalg.eigh(sum(parts, np.zeros((d, d))))
            axes = vectors[:, ::-1][:, :kept]
    variances = np.maximum(values[::-1][:kept], 0.0) / max(n, 1)
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(kept)])
    turned = np.ascontiguousarray(axes * np.where(signs == 0, 1.0, signs), dtype=np.float32)
    result = np.empty((n, kept), dtype=np.float32)

    def fill(part: slice) -> None:
        np.matmul(centred[part], turned, out=result[part])

    in_parallel(fill, blocks(n))
    return result, variances.astype(np.float32)


def relabel_by_size(labels: NDArray[Any]) -> Labels:
    """Number clusters 0.. by size, largest first, ties to the lowest row; -1 stays."""
    inside = labels >= 0
    result = np.full(len(labels), -1, dtype=np.int32)
    if not inside.any():
        return result
    found, first, inverse, counts = np.unique(
        labels[inside], return_index=True, return_inverse=True, return_counts=True
    )
    place = np.empty(len(found), dtype=np.int32)
    place[np.lexsort((first, -counts))] = np.arange(len(found))
    result[inside] = place[inverse]
    return result


Progress = Callable[[float], None]
