"""Which pairs of pictures are worth comparing pixel by pixel, among all n²/2.

Two nets: vectors that point the same way (crops, borders, small turns), and perceptual hashes that
differ in few bits in one of the eight orientations (grey, blurred, strongly compressed, mirrored
or turned copies, which vectors miss).
"""

import numpy as np
from numpy.typing import NDArray

Pairs = NDArray[np.int64]

_TILE = 1024
_MOST_REST = 0.1
_BANDS = 4
_BAND_BITS = 16
HASH_RADIUS = 10
"""Bits. Of four bands of 16 one has at most one error: always up to seven, mostly up to ten (of
pairs at eight bits 96 in 100, at ten 78, as errors fall by chance)."""


def cosine_pairs(
    vectors: NDArray[np.float32], *, floor: float, budget: int
) -> tuple[Pairs, NDArray[np.float32], float]:
    """All pairs of rows with cosine at least ``floor``.

    Args:
        vectors: (n, d) float32, rows of length 1; rows of zeros never match.
        floor: least cosine, above 0.
        budget: at most about so many pairs: with more, the floor rises to the best of them.

    Returns pairs (m, 2) with first < second, their cosines (m,), and the floor in the end. Exact:
    where a few principal directions hold most of the length, products of those and a bound for
    the rest (Cauchy and Schwarz) tell which few pairs need the whole product.
    """
    n = len(vectors)
    short = _shortened(vectors)
    wide = vectors if short is None else short
    found: list[Pairs] = []
    scores: list[NDArray[np.float32]] = []
    count = 0
    buffer = np.empty((_TILE, _TILE), np.float32)
    for top in range(0, n, _TILE):
        rows = wide[top : top + _TILE]
        for left in range(top, n, _TILE):
            columns = wide[left : left + _TILE]
            whole = len(rows) == len(columns) == _TILE
            # A fresh large output for each tile would cost more than the product itself.
            product = np.matmul(rows, columns.T, out=buffer if whole else None)
            i, j = np.nonzero(product >= floor)
            score = product[i, j]
            if left == top:
                upper = i < j
                i, j, score = i[upper], j[upper], score[upper]
            if short is not None and len(i):
                score = _products(vectors, i + top, j + left)
                enough = score >= floor
                i, j, score = i[enough], j[enough], score[enough]
            if len(i):
                found.append(np.stack([i + top, j + left], axis=1))
                scores.append(score)
                count += len(i)
            if count > 2 * budget:
                pairs, score = np.concatenate(found), np.concatenate(scores)
                floor = float(np.partition(score, count - budget)[count - budget])
                kept = score >= floor
                # Exact ties at the new floor could fill the budget for ever; step over them.
                if kept.sum() > 2 * budget:
                    kept = score > floor
                    floor = float(np.nextafter(np.float32(floor), np.float32(2)))
                found, scores, count = [pairs[kept]], [score[kept]], int(kept.sum())
    if not found:
        return np.empty((0, 2), np.int64), np.empty(0, np.float32), floor
    return np.concatenate(found), np.concatenate(scores), floor


def _shortened(vectors: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """(n, p + 1): p principal coordinates and the length of the rest; None if that is no gain.

    The product of two such rows is at least that of the rows themselves.
    """
    n, d = vectors.shape
    if n < 4 * _TILE or d < 256:
        return None
    sample = vectors[:: max(1, n // 4096)]
    energy, directions = np.linalg.eigh(sample.T @ sample)
    rest = 1 - np.cumsum(energy[::-1]) / max(float(energy.sum()), 1e-12)
    p = int(np.argmax(rest <= _MOST_REST)) + 1
    if p > d // 3:
        return None
    short = np.empty((n, p + 1), np.float32)
    axes = np.ascontiguousarray(directions[:, ::-1][:, :p], dtype=np.float32)
    for start in range(0, n, _TILE):
        rows = vectors[start : start + _TILE]
        seen = rows @ axes
        short[start : start + _TILE, :p] = seen
        left = np.maximum(0, np.sum(rows * rows, axis=1) - np.sum(seen * seen, axis=1))
        # A little more than what is left, for the rounding of the products.
        short[start : start + _TILE, p] = np.sqrt(left + 1e-5)
    return short


def _products(
    vectors: NDArray[np.float32], a: NDArray[np.intp], b: NDArray[np.intp]
) -> NDArray[np.float32]:
    answer = np.empty(len(a), np.float32)
    for start in range(0, len(a), 8192):
        rows = slice(start, start + 8192)
        answer[rows] = np.einsum("ij,ij->i", vectors[a[rows]], vectors[b[rows]])
    return answer


def hash_pairs(phashes: NDArray[np.uint64], *, radius: int = HASH_RADIUS, budget: int) -> Pairs:
    """Pairs of rows whose 64-bit hashes differ in at most ``radius`` bits in some orientation.

    Multi-index hashing (Norouzi, Punjani and Fleet, 2012): two hashes within 7 bits agree in one
    of four 16-bit bands up to one bit, and most of those within 10 do. Rows with one and the same
    hash are chained rather than paired all with all. A hash of 0 means a picture without structure
    and matches nothing.

    Args:
        phashes: (n,) uint64, signs of the lowest 8 × 8 cosine coefficients, row by row.
        radius: 0 to 10; all pairs within 7 are found, of those beyond most.
        budget: at most so many pairs; with more, the most distant hashes are given up.

    Returns pairs (m, 2) with first < second, sorted.
    """
    if not 0 <= radius <= HASH_RADIUS:
        raise ValueError(f"radius must lie between 0 and {HASH_RADIUS}, not {radius}")
    rows = np.flatnonzero(phashes)
    values, first, inverse = np.unique(phashes[rows], return_index=True, return_inverse=True)
    by_value = np.argsort(inverse, kind="stable")
    same = inverse[by_value][1:] == inverse[by_value][:-1]
    chained = np.stack([rows[by_value[:-1][same]], rows[by_value[1:][same]]], axis=1)
    close, distance = _close_hashes(values, radius)
    while len(close) > budget:
        keep = distance < distance.max()
        close, distance = close[keep], distance[keep]
    pairs = np.concatenate([chained, rows[first][close]]).reshape(-1, 2)
    return np.unique(np.sort(pairs, axis=1), axis=0)


def orientations(phashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """(n,) hashes → (8, n): what each would be for the mirrored and turned picture.

    Mirroring negates the odd cosine coefficients along its axis, and so their signs (the median
    that the hash compares with is close to 0); turning swaps the axes. No second hash is stored.
    """
    odd = np.arange(8) % 2 == 1
    shifts = np.arange(63, -1, -1, dtype=np.uint64)
    bits = ((phashes[:, None] >> shifts) & np.uint64(1)).astype(bool).reshape(-1, 8, 8)
    answers = []
    for turned in (bits, bits.transpose(0, 2, 1)):
        for across in (False, True):
            for down in (False, True):
                flip = (across & odd)[None, :] ^ (down & odd)[:, None]
                variant = (turned ^ flip).reshape(-1, 64).astype(np.uint64)
                answers.append((variant << shifts).sum(axis=1, dtype=np.uint64))
    return np.stack(answers)


def _close_hashes(values: NDArray[np.uint64], radius: int) -> tuple[Pairs, NDArray[np.uint8]]:
    """Pairs of places in the sorted distinct ``values`` within ``radius``, with their distance."""
    turned = orientations(values)
    single = [0, *(1 << bit for bit in range(_BAND_BITS))]
    found: list[Pairs] = [np.empty((0, 2), np.int64)]
    distances: list[NDArray[np.uint8]] = [np.empty(0, np.uint8)]
    for band in range(_BANDS):
        shift = np.uint64(band * _BAND_BITS)
        key = ((values >> shift) & np.uint64(0xFFFF)).astype(np.int64)
        order = np.argsort(key, kind="stable")
        starts = np.searchsorted(key[order], np.arange((1 << _BAND_BITS) + 1))
        for hashes in turned:
            wanted = ((hashes >> shift) & np.uint64(0xFFFF)).astype(np.int64)
            for error in single:
                bucket = wanted ^ error
                low, high = starts[bucket], starts[bucket + 1]
                for a, b in _expand(low, high):
                    other = order[b]
                    away = np.bitwise_count(hashes[a] ^ values[other])
                    near = (away <= radius) & (a < other)
                    found.append(np.stack([a[near], other[near]], axis=1))
                    distances.append(away[near])
    pairs, distance = np.concatenate(found), np.concatenate(distances)
    # One pair may be met in several bands and orientations: keep its least distance.
    order = np.lexsort((distance, pairs[:, 1], pairs[:, 0]))
    pairs, distance = pairs[order], distance[order]
    new = np.ones(len(pairs), bool)
    new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return pairs[new], distance[new]


def _expand(
    low: NDArray[np.intp], high: NDArray[np.intp], at_once: int = 4_000_000
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Ranges ``low[i]:high[i]`` as flat (i, place) arrays, in pieces of bounded size."""
    sizes = high - low
    total = np.cumsum(sizes)
    pieces = []
    start = 0
    while start < len(sizes):
        done = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, done + at_once, side="right")))
        part = sizes[start:stop]
        owner = np.repeat(np.arange(start, stop), part)
        offset = np.arange(len(owner)) - np.repeat(np.cumsum(part) - part, part)
        pieces.append((owner, low[owner] + offset))
        start = stop
    return pieces
