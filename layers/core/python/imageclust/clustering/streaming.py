"""Clustering of more vectors than fit in memory: shards, micro-clusters, then bounded clusters.

Two levels: K-Means into a few hundred micro-clusters by passes over float16 or float32 shards
(which may be memory-mapped), then Ward on the weighted micro-centres, then one bounded assignment
of all rows. Only one block of rows is in memory at a time, and a table of each row's nearest
centres.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imageclust.clustering.config import ClusteringConfig, feasible_clusters
from imageclust.clustering.geometry import (
    Doubles,
    Floats,
    Labels,
    blocks,
    cluster_means,
    cluster_sizes,
    cluster_sums,
    relabel_by_size,
    rotate,
    unit_rows,
)
from imageclust.clustering.kmeans import kmeans
from imageclust.clustering.parallel import in_parallel
from imageclust.clustering.ward import ward_tree
from imageclust.errors import InvalidInput

_SAMPLE = 20_000
_BLOCK = 8192
_PASSES = 3
_PRICE_PASSES = 60
_CHOICES = 16


@dataclass(frozen=True, eq=False)
class _Offers:
    """(n, w) names and costs of each row's nearest centres, and the (k,) price of each centre."""

    names: NDArray[Any]
    costs: Floats
    prices: Floats

    def priced(self, rows: slice | NDArray[np.int64]) -> Floats:
        """(r, w) what each offer costs with its price."""
        total: Floats = self.costs[rows] + self.prices[self.names[rows]]
        return total


@dataclass(frozen=True, eq=False)
class MicroClusters:
    """(m, d) float32 centres, (m,) sizes, and (n,) int32 labels of the rows."""

    centres: Floats
    sizes: NDArray[np.int64]
    labels: Labels


def micro_clusters(
    shards: Sequence[NDArray[Any]], count: int, *, seed: int = 0, passes: int = _PASSES
) -> MicroClusters:
    """K-Means over shards: seeds from a sample, then a few passes over all rows.

    Args:
        shards: (n_i, d) float16 or float32 arrays, rows of any length (scaled to one here).
        count: number of micro-clusters; fewer when there are fewer rows.
        seed: of the sample and the seeding.
        passes: passes over all rows; the last one only labels.

    Raises:
        InvalidInput: no rows, or shards of different widths.
    """
    n = sum(len(shard) for shard in shards)
    if n == 0 or len({shard.shape[1] for shard in shards}) != 1:
        raise InvalidInput("shards must hold at least one row and all have the same width")
    rng = np.random.default_rng((seed, 41))
    sample = _rows_at(shards, np.sort(rng.choice(n, min(n, _SAMPLE), replace=False)))
    count = min(count, len(sample))
    fit = kmeans(rotate(sample)[0], count, seed=seed)
    centres = cluster_means(sample, fit.labels, count)
    labels = np.zeros(n, dtype=np.int32)
    sizes = cluster_sizes(fit.labels, count)
    for _ in range(max(passes, 1)):
        sums, sizes = _pass(shards, centres, labels)
        # A centre that no row chose stays where it was.
        filled = sizes > 0
        centres = centres.copy()
        centres[filled] = (sums[filled] / sizes[filled, None]).astype(np.float32)
    return MicroClusters(centres, sizes, labels)


def cluster_shards(
    shards: Sequence[NDArray[Any]],
    *,
    config: ClusteringConfig,
    micro: int = 256,
    progress: Callable[[float], None] | None = None,
) -> Labels:
    """(n,) labels 0..k-1 of all rows within the size bounds, largest cluster first.

    ``config.clusters`` or ``config.target_size`` gives k; else the bounds or the number of
    micro-clusters do. Ward merges micro-clusters under the cap; where bounds still fail, rows move
    to a near centre at the least regret. Every row is in exactly one cluster.

    Raises:
        InvalidInput: shards that do not fit together.
        InfeasibleBounds: no clustering meets the bounds.
    """
    report = progress or _silent
    n = sum(len(shard) for shard in shards)
    low, high = feasible_clusters(n, config)
    if n == 0:
        return np.zeros(0, dtype=np.int32)
    groups = micro_clusters(shards, min(max(micro, low), n), seed=config.seed)
    report(0.6)
    used = np.flatnonzero(groups.sizes)
    k = min(max(low, min(high, len(used) // 2)), high)
    tree = ward_tree(groups.centres[used], sizes=groups.sizes[used], max_size=config.max_size)
    merged = tree.cut(k)
    centres = _weighted_means(groups.centres[used], groups.sizes[used], merged)
    centres = _exactly(centres, k, groups.centres[used])
    min_size, max_size = config.min_size or 1, config.max_size or n
    labels = _bounded_rows(shards, centres, min_size, max_size)
    report(1.0)
    return relabel_by_size(labels)


def _rows_at(shards: Sequence[NDArray[Any]], picks: NDArray[np.int64]) -> Floats:
    parts, start = [], 0
    for shard in shards:
        inside = picks[(picks >= start) & (picks < start + len(shard))] - start
        parts.append(unit_rows(shard[inside]))
        start += len(shard)
    return np.concatenate(parts)


def _tiles(shards: Sequence[NDArray[Any]]) -> list[tuple[NDArray[Any], slice, int]]:
    """Blocks of every shard, with the number of the first row."""
    tiles, start = [], 0
    for shard in shards:
        tiles += [(shard, part, start + part.start) for part in blocks(len(shard), _BLOCK)]
        start += len(shard)
    return tiles


def _pass(
    shards: Sequence[NDArray[Any]], centres: Floats, labels: Labels
) -> tuple[Doubles, NDArray[np.int64]]:
    """Label every row in place; sums and sizes of the clusters."""
    k = len(centres)
    half = 0.5 * np.einsum("ij,ij->i", centres, centres)
    turned = np.ascontiguousarray(centres.T)
    sums = np.zeros(centres.shape)
    tiles = _tiles(shards)

    def work(tile: tuple[NDArray[Any], slice, int]) -> Floats:
        shard, part, start = tile
        rows = unit_rows(shard[part])
        scores = rows @ turned
        scores -= half
        own = scores.argmax(axis=1)
        labels[start : start + len(rows)] = own
        return cluster_sums(rows, own, k)

    # In small batches: sums are added in the order of the rows, and few wait in memory.
    for batch in range(0, len(tiles), 16):
        for part in in_parallel(work, tiles[batch : batch + 16]):
            sums += part
    return sums, cluster_sizes(labels, k)


def _weighted_means(centres: Floats, sizes: NDArray[np.int64], labels: Labels) -> Floats:
    weighted = (centres * sizes[:, None]).astype(np.float32)
    k = int(labels.max()) + 1
    total = np.bincount(labels, weights=sizes, minlength=k)[:, None]
    return (cluster_sums(weighted, labels, k) / total).astype(np.float32)


def _exactly(centres: Floats, k: int, spare: Floats) -> Floats:
    """``k`` centres: the cap may leave Ward more, which are cut; it never leaves fewer."""
    if len(centres) >= k:
        return centres[:k]
    more = spare[np.arange(k - len(centres)) % len(spare)]
    return np.concatenate([centres, more])


def _bounded_rows(
    shards: Sequence[NDArray[Any]], centres: Floats, min_size: int, max_size: int
) -> Labels:
    """Rows choose the cheapest of their nearest centres at prices that hold the sizes.

    The costs of the nearest few centres of each row are kept (float32), the others counted as one
    step dearer than the farthest kept, so that every row can go anywhere if it must.
    """
    k = len(centres)
    n = sum(len(shard) for shard in shards)
    width = min(_CHOICES, k)
    names = np.empty((n, width), dtype=np.int16 if k < 2**15 else np.int32)
    costs = np.empty((n, width), dtype=np.float32)
    half = 0.5 * np.einsum("ij,ij->i", centres, centres)
    turned = np.ascontiguousarray(centres.T)

    def work(tile: tuple[NDArray[Any], slice, int]) -> None:
        shard, part, start = tile
        scores = half - unit_rows(shard[part]) @ turned
        near = np.argpartition(scores, width - 1, axis=1)[:, :width]
        here = slice(start, start + len(scores))
        names[here] = near
        costs[here] = 2.0 * np.take_along_axis(scores, near, axis=1)

    in_parallel(work, _tiles(shards))
    prices = _sparse_prices(names, costs, k, min_size, max_size)
    offers = _Offers(names, costs, prices)
    return _repair(_cheapest(offers), offers, min_size=min_size, max_size=max_size)


def _cheapest(offers: _Offers) -> Labels:
    labels = np.empty(len(offers.names), dtype=np.int32)
    for part in blocks(len(labels), 1 << 16):
        best = offers.priced(part).argmin(axis=1)
        labels[part] = offers.names[part][np.arange(len(best)), best]
    return labels


def _sparse_prices(
    names: NDArray[Any], costs: Floats, k: int, min_size: int, max_size: int
) -> Floats:
    """Raise the price of what is too full and lower that of what is too empty, ever more gently."""
    prices = np.zeros(k, dtype=np.float32)
    sample = slice(None, None, max(len(names) // 100_000, 1))
    some, dear = names[sample], costs[sample]
    scale = len(names) / len(some)
    step = float(np.std(dear)) if dear.size else 0.0
    for turn in range(_PRICE_PASSES):
        sizes = cluster_sizes(_cheapest(_Offers(some, dear, prices)), k) * scale
        over = np.maximum(sizes - max_size, 0) / max_size
        under = np.maximum(min_size - sizes, 0) / max(min_size, 1)
        if not (over.any() or under.any()):
            break
        pull = np.clip(over, 0, 1) - np.clip(under, 0, 1)
        prices += (step * 0.5 / (1 + turn / 8) * pull).astype(np.float32)
    return prices


def _repair(labels: Labels, offers: _Offers, *, min_size: int, max_size: int) -> Labels:
    """Move the rows that lose least until every size is within its bounds.

    Each turn one cluster gives up its whole excess, or is filled, so it ends: a cluster that was
    mended takes no more than its room later.
    """
    k = len(offers.prices)
    sizes = cluster_sizes(labels, k)
    while (sizes > max_size).any():
        cluster = int(sizes.argmax())
        rows = np.flatnonzero(labels == cluster)
        room = max_size - sizes
        loss = _losses(rows, offers, allowed=room > 0)
        _send(rows, loss, labels, sizes, count=int(sizes[cluster] - max_size), room=room)
    while (sizes < min_size).any():
        cluster = int(sizes.argmin())
        rows = np.flatnonzero((sizes > min_size)[labels])
        loss = _loss_of(rows, cluster, labels, offers)
        order = rows[np.argsort(loss, kind="stable")]
        for row in order:
            if sizes[cluster] >= min_size:
                break
            if sizes[labels[row]] > min_size:
                sizes[labels[row]] -= 1
                sizes[cluster] += 1
                labels[row] = cluster
    return labels


def _losses(rows: NDArray[np.int64], offers: _Offers, *, allowed: NDArray[np.bool_]) -> Floats:
    """(r, k) priced cost of each allowed cluster; far ones cost as much as the farthest kept."""
    far = offers.costs[rows].max(axis=1, initial=0.0)[:, None] + 1.0
    table = (far + offers.prices).astype(np.float32)
    np.put_along_axis(table, offers.names[rows].astype(np.int64), offers.priced(rows), 1)
    loss: Floats = table - table.min(axis=1, keepdims=True)
    loss[:, ~allowed] = np.inf
    return loss


def _loss_of(rows: NDArray[np.int64], cluster: int, labels: Labels, offers: _Offers) -> Floats:
    """(r,) what each row loses by going to one cluster, in blocks: there may be millions."""
    loss = np.empty(len(rows), dtype=np.float32)
    for part in blocks(len(rows), 1 << 16):
        mine = rows[part]
        names, priced = offers.names[mine], offers.priced(mine)
        far = offers.costs[mine].max(axis=1) + 1.0 + offers.prices[cluster]
        there = np.where(names == cluster, priced, np.inf).min(axis=1)
        own = np.where(names == labels[mine, None], priced, np.inf).min(axis=1)
        stay = np.where(np.isfinite(own), own, priced.max(axis=1))
        loss[part] = np.where(np.isfinite(there), there, far) - stay
    return loss


def _send(
    rows: NDArray[np.int64],
    loss: Floats,
    labels: Labels,
    sizes: NDArray[np.int64],
    *,
    count: int,
    room: NDArray[np.int64],
) -> None:
    """Send ``count`` of the rows away, cheapest first, never beyond the room of a cluster."""
    source = int(labels[rows[0]])
    left = room.copy()
    left[source] = 0
    while count > 0:
        loss[:, left <= 0] = np.inf
        target = loss.argmin(axis=1)
        least = loss[np.arange(len(rows)), target]
        order = np.argsort(least, kind="stable")[:count]
        for at in order:
            goal = int(target[at])
            if left[goal] > 0:
                labels[rows[at]] = goal
                left[goal] -= 1
                sizes[goal] += 1
                sizes[source] -= 1
                loss[at] = np.inf
                count -= 1


def _silent(share: float) -> None:
    """No one asked for progress."""
