"""The clustering engine against named peers, each row in its own process.

    python benchmarks/clustering.py            # every row, the sizes of the table
    python benchmarks/clustering.py grid ward_10k
    python benchmarks/clustering.py --scale 0.25 --repeats 3 kmeans

Each row runs ours ``--repeats`` times (the median counts) and the peer once in the same process,
and prints wall seconds, processor seconds (all threads), the ratio of each, and peak memory. On a
busy machine trust the ratio of processor seconds.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from imageclust.clustering import ClusteringConfig, adjusted_rand_index, cluster_vectors
from imageclust.clustering.bounded import bounded_kmeans, bounded_start
from imageclust.clustering.density import dbscan_labels, hdbscan_labels, single_linkage
from imageclust.clustering.geometry import cluster_means, rotate
from imageclust.clustering.kmeans import inertia_of, kmeans
from imageclust.clustering.neighbours import neighbour_graph
from imageclust.clustering.quality import cosine_silhouettes
from imageclust.clustering.spanning import spanning_tree
from imageclust.clustering.streaming import cluster_shards
from imageclust.clustering.ward import ward_tree
from numpy.typing import NDArray

Row = Callable[["Bench"], dict[str, Any]]
FULL = 48_642


def embeddings(n: int, d: int = 512, *, seed: int = 0) -> NDArray[np.float32]:
    """(n, d) unit rows: 180 long-tailed anisotropic groups under 24 topics, 10 % background.

    Each group spreads along 28 axes of its own with falling scales; the background follows topics
    loosely.
    """
    groups, topics, inner = 180, 24, 28
    rng = np.random.default_rng(seed)
    top = rng.standard_normal((topics, d))
    top /= np.linalg.norm(top, axis=1, keepdims=True)
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    off = rng.standard_normal((groups, inner)) @ basis[:inner]
    centres = top[rng.integers(0, topics, groups)]
    centres += 0.8 * off / np.linalg.norm(off, axis=1, keepdims=True)
    share = 1.0 / np.arange(1, groups + 1) ** 0.8
    group = rng.choice(groups, n, p=share / share.sum())
    scales = np.exp(-np.arange(inner) / 10)
    rows = np.empty((n, d), dtype=np.float32)
    for name in range(groups):
        members = np.flatnonzero(group == name)
        axes = basis[:, rng.permutation(d)[:inner]].T
        spread = rng.uniform(0.3, 0.7) * rng.standard_normal((len(members), inner)) * scales
        rows[members] = centres[name] + spread @ axes
    rows += 0.01 * rng.standard_normal((n, d), dtype=np.float32)
    lost = np.flatnonzero(rng.random(n) < 0.1)
    loose = 1.35 * rng.standard_normal((len(lost), inner)) / np.sqrt(inner)
    rows[lost] = top[rng.integers(0, topics, len(lost))] + loose @ basis[:inner]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


@dataclass(frozen=True)
class Bench:
    """How large, and how often."""

    scale: float
    repeats: int
    peers: bool

    def size(self, n: int) -> int:
        return max(int(n * self.scale), 500)

    def ours(self, work: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
        wall, processor, made = [], [], None
        for _ in range(self.repeats):
            w, c = time.perf_counter(), time.process_time()
            made = work()
            wall.append(time.perf_counter() - w)
            processor.append(time.process_time() - c)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return made, {
            "wall_s": statistics.median(wall),
            "cpu_s": statistics.median(processor),
            "peak_mb": memory,
        }

    def against(self, mine: dict[str, Any], work: Callable[[], Any]) -> Any:
        if not self.peers:
            return None
        w, c = time.perf_counter(), time.process_time()
        made = work()
        mine["peer_wall_s"] = time.perf_counter() - w
        mine["peer_cpu_s"] = time.process_time() - c
        mine["ratio_wall"] = mine["peer_wall_s"] / mine["wall_s"]
        mine["ratio_cpu"] = mine["peer_cpu_s"] / mine["cpu_s"]
        return made


def grid(bench: Bench) -> dict[str, Any]:
    """The fast grid of all methods, every setting scored."""
    rows = embeddings(bench.size(FULL))
    result, row = bench.ours(lambda: cluster_vectors(rows, config=ClusteringConfig()))
    methods = sorted({entry.method for entry in result.search})
    return row | {"n": len(rows), "settings": result.tried, "won": result.method, "top": methods}


def silhouette(bench: Bench) -> dict[str, Any]:
    """Exact cosine silhouette against scikit-learn."""
    from sklearn.metrics import silhouette_samples

    rows = embeddings(bench.size(20_000))
    labels = kmeans(rotate(rows)[0], 72).labels
    mine, row = bench.ours(lambda: cosine_silhouettes(rows, labels))
    theirs = bench.against(row, lambda: silhouette_samples(rows, labels, metric="cosine"))
    if theirs is not None:
        row["largest_difference"] = float(np.abs(mine - theirs).max())
    return row | {"n": len(rows)}


def _ward(bench: Bench, n: int) -> dict[str, Any]:
    import fastcluster
    from scipy.cluster import hierarchy

    rows = embeddings(bench.size(n))
    tree, row = bench.ours(lambda: ward_tree(rows))
    wide = rows.astype(np.float64)
    other = dict(row)
    theirs = bench.against(row, lambda: fastcluster.linkage(wide, "ward"))
    bench.against(other, lambda: hierarchy.linkage(wide, "ward"))
    if theirs is not None:
        # The faster of the two counts.
        row["peer"] = "fastcluster"
        if other["peer_cpu_s"] < row["peer_cpu_s"]:
            row |= other | {"peer": "scipy"}
        row["largest_relative_height_difference"] = float(
            (np.abs(tree.heights - theirs[:, 2]) / theirs[:, 2]).max()
        )
    return row | {"n": len(rows)}


def ward_10k(bench: Bench) -> dict[str, Any]:
    """Ward without a cap, 10,000, against the faster of fastcluster and SciPy."""
    return _ward(bench, 10_000)


def ward_20k(bench: Bench) -> dict[str, Any]:
    """Ward without a cap, 20,000, against the faster of fastcluster and SciPy."""
    return _ward(bench, 20_000)


def ward_capped(bench: Bench) -> dict[str, Any]:
    """Ward with a cap of 1,000 at full size."""
    rows = embeddings(bench.size(FULL))
    cap = max(bench.size(1000), 10)
    tree, row = bench.ours(lambda: ward_tree(rows, max_size=cap))
    sizes = np.bincount(tree.cut(1))
    return row | {"n": len(rows), "clusters": len(sizes), "largest": int(sizes.max())}


def dbscan(bench: Bench) -> dict[str, Any]:
    """Six DBSCAN settings against six scikit-learn fits."""
    from sklearn.cluster import DBSCAN

    rows = embeddings(bench.size(20_000))
    cheap = rotate(rows, 48)[0]
    core = neighbour_graph(rows, 9, cheap=cheap).core_distances(4)
    settings = [
        (float(np.float32(eps)), samples)
        for samples in (5, 10)
        for eps in np.quantile(core, [0.5, 0.7, 0.9])
    ]

    def work() -> list[NDArray[np.int32]]:
        graph = neighbour_graph(rows, 12, cheap=rotate(rows, 48)[0])
        trees = {samples: spanning_tree(graph, samples - 1) for samples in (5, 10)}
        return [dbscan_labels(graph, trees[samples], eps=eps) for eps, samples in settings]

    mine, row = bench.ours(work)
    theirs = bench.against(
        row,
        lambda: [
            DBSCAN(eps=eps, min_samples=samples, metric="cosine").fit_predict(rows)
            for eps, samples in settings
        ],
    )
    if theirs is not None:
        row["different_labels"] = int(
            sum((a != b).sum() for a, b in zip(mine, theirs, strict=True))
        )
    return row | {"n": len(rows)}


def _hdbscan(bench: Bench, n: int) -> dict[str, Any]:
    import hdbscan as package

    rows = embeddings(bench.size(n))

    def work() -> Any:
        graph = neighbour_graph(rows, 12, cheap=rotate(rows, 48)[0])
        linkage = single_linkage(graph, spanning_tree(graph, 5))
        return hdbscan_labels(linkage, min_cluster_size=15)

    mine, row = bench.ours(work)
    # By default the package's tree is approximate; agreement is asked of the exact one.
    peer = package.HDBSCAN(min_cluster_size=15, min_samples=5, approx_min_span_tree=False)
    theirs = bench.against(row, lambda: peer.fit_predict(rows))
    if theirs is not None:
        row["ari"] = adjusted_rand_index(mine.labels, theirs)
        row["strength_difference"] = float(np.abs(mine.strengths - peer.probabilities_).max())
    return row | {"n": len(rows)}


def hdbscan_10k(bench: Bench) -> dict[str, Any]:
    """HDBSCAN against the hdbscan package, 10,000."""
    return _hdbscan(bench, 10_000)


def kmeans_72(bench: Bench) -> dict[str, Any]:
    """K-Means, k = 72, against scikit-learn with ten starts."""
    from sklearn.cluster import KMeans

    rows = embeddings(bench.size(FULL))
    mine, row = bench.ours(lambda: kmeans(rotate(rows)[0], 72))
    theirs = bench.against(row, lambda: KMeans(72, n_init=10, random_state=0).fit(rows))
    if theirs is not None:
        row["inertia_ratio"] = mine.inertia / float(theirs.inertia_)
    return row | {"n": len(rows)}


def _bounded(bench: Bench, n: int) -> dict[str, Any]:
    from k_means_constrained import KMeansConstrained

    rows = embeddings(bench.size(n))
    k = 50
    low, high = int(0.7 * len(rows) / k), int(1.3 * len(rows) / k) + 1

    def work() -> NDArray[np.int32]:
        turned = rotate(rows)[0]
        start = bounded_start(turned, k, min_size=low, max_size=high)
        return bounded_kmeans(turned, start, min_size=low, max_size=high)

    mine, row = bench.ours(work)
    peer = KMeansConstrained(k, size_min=low, size_max=high, n_init=1, random_state=0)
    theirs = bench.against(row, lambda: peer.fit(rows))
    sizes = np.bincount(mine)
    row["smallest"], row["largest"] = int(sizes.min()), int(sizes.max())
    if theirs is not None:
        own = inertia_of(rows, mine, cluster_means(rows, mine, k))
        row["inertia_ratio"] = own / float(theirs.inertia_)
    return row | {"n": len(rows), "bounds": [low, high]}


def bounded_5k(bench: Bench) -> dict[str, Any]:
    """Bounded K-Means against k-means-constrained, 5,000."""
    return _bounded(bench, 5_000)


def bounded_10k(bench: Bench) -> dict[str, Any]:
    """Bounded K-Means against k-means-constrained, 10,000."""
    return _bounded(bench, 10_000)


def million(bench: Bench) -> dict[str, Any]:
    """float16 shards on disk, 256 micro-clusters, 200 bounded clusters."""
    n = bench.size(1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        shards = []
        for number, start in enumerate(range(0, n, 50_000)):
            path = Path(folder, f"{number:03d}.npy")
            # The same groups in every shard (one seed), other rows (shuffled noise).
            part = embeddings(min(50_000, n - start), seed=7)
            part += 0.02 * np.random.default_rng(number).standard_normal(part.shape, dtype="f4")
            np.save(path, part.astype(np.float16))
            shards.append(np.load(path, mmap_mode="r"))
        mean = n / 200
        config = ClusteringConfig(clusters=200, min_size=int(mean / 3), max_size=int(mean * 3))
        labels, row = bench.ours(lambda: cluster_shards(shards, config=config, micro=256))
    sizes = np.bincount(labels)
    return row | {
        "n": n,
        "clusters": len(sizes),
        "smallest": int(sizes.min()),
        "largest": int(sizes.max()),
        "bounds": [config.min_size, config.max_size],
    }


ROWS: dict[str, Row] = {
    row.__name__: row
    for row in (
        grid,
        silhouette,
        ward_10k,
        ward_20k,
        ward_capped,
        dbscan,
        hdbscan_10k,
        kmeans_72,
        bounded_5k,
        bounded_10k,
        million,
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the table's sizes")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    names = asked.rows or list(ROWS)
    if asked.inside:
        bench = Bench(asked.scale, asked.repeats, not asked.no_peers)
        print(json.dumps(ROWS[names[0]](bench)))
        return
    for name in names:
        command = [sys.executable, __file__, name, "--inside"]
        command += ["--scale", str(asked.scale), "--repeats", str(asked.repeats)]
        command += ["--no-peers"] if asked.no_peers else []
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        row = json.loads(done.stdout)
        short = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()}
        print(f"{name:12} load {os.getloadavg()[0]:.1f} {json.dumps(short)}", flush=True)


if __name__ == "__main__":
    main()
