"""How good the chosen clusterings and the flat maps are, on labelled photos.

Run: ``python benchmarks/quality.py choice|maps [--shared FOLDER] [--model NAME]``.

``choice``: normalized mutual information of ``auto`` / ``fast`` with k not given, and of
scikit-learn's k-means at the true k (ten starts), for seeds 0 to 4; vectors of the default
preprocessing, all photos of each set. ``maps``: PCA against t-SNE in the plane: trustworthiness
(five neighbours), the share of photos whose five nearest agree on the true label, and processor
seconds; ``placed`` fits a third of the photos and places the rest. Then 50,000 synthetic rows.
"""

import argparse
import csv
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from imageclust.clustering import (
    ClusteringConfig,
    cluster_vectors,
    maps,
    normalized_mutual_information,
)
from imageclust.clustering.geometry import rotate, unit_rows
from imageclust.embedding import ModelRegistry, open_embedder
from imageclust.images import decode_image
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sklearn.cluster import KMeans
from sklearn.manifold import trustworthiness

_SHARED = Path(__file__).parents[2] / "shared"
_SETS = ("houses_rooms", "caltech45", "art_procedural", "clothing10", "aws_rooms")
_SEEDS = range(5)
_BAR = 0.05
_EVERY_CLUSTER = 8

Photos = tuple[NDArray[np.float32], NDArray[np.str_]]


def main() -> None:
    """Print the tables of one part as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["choice", "maps"])
    parser.add_argument("--shared", type=Path, default=_SHARED)
    parser.add_argument("--model", default="mobilenet_v2_1.0_224_w8")
    arguments = parser.parse_args()
    if not arguments.shared.is_dir():
        sys.exit(f"needs the labelled photos and models in {arguments.shared}")
    embedder = open_embedder(
        arguments.model, registry=ModelRegistry(arguments.shared / "models"), preprocess="default"
    )
    part = _choice if arguments.part == "choice" else _maps
    part({name: _embedded(arguments.shared / "data" / name, embedder) for name in _SETS})


def _embedded(folder: Path, embedder: Any) -> Photos:
    with (folder / "labels.csv").open() as lines:
        rows = list(csv.DictReader(lines))

    def read(row: dict[str, str]) -> NDArray[np.uint8]:
        data = (folder / "images" / row["file"]).read_bytes()
        return decode_image(data, min_side=embedder.min_side).pixels

    with ThreadPoolExecutor(2) as pool:
        pixels = list(pool.map(read, rows))
    return unit_rows(embedder.embed(pixels)), np.array([row["label"] for row in rows])


def _choice(sets: dict[str, Photos]) -> None:
    print("| set | clusters: true, found | auto, seeds 0 to 4 | k-means at true k | holds |")
    print("|---|---|---|---|---|")
    for name, (rows, truth) in sets.items():
        k = len(np.unique(truth))
        ours, peer, found = [], [], []
        for seed in _SEEDS:
            result = cluster_vectors(rows, config=ClusteringConfig(seed=seed))
            found.append(len(result.clusters))
            ours.append(normalized_mutual_information(result.labels, truth))
            labels = KMeans(k, n_init=10, random_state=seed).fit_predict(rows)
            peer.append(normalized_mutual_information(labels, truth))
        holds = sum(own >= other - _BAR for own, other in zip(ours, peer, strict=True))
        print(
            f"| {name} | {k}, {' '.join(map(str, found))} | {_figures(ours)} | {_figures(peer)} "
            f"| {holds} of {len(ours)} |",
            flush=True,
        )


def _maps(sets: dict[str, Photos]) -> None:
    print("| set | map | trustworthiness | 5-NN agreement | processor s |")
    print("|---|---|---|---|---|")
    for name, (rows, truth) in sets.items():
        few = np.arange(0, len(rows), _EVERY_CLUSTER)
        whole = maps.FITTED
        for title, fitted in (("PCA", 0), ("t-SNE", whole), ("placed", len(rows) // 3)):
            started = time.process_time()
            if fitted:
                maps.FITTED = fitted
                flat = maps.tsne_map(rows, few[: fitted // 4], seed=0)
                maps.FITTED = whole
            else:
                flat, _ = rotate(rows, 2)
            spent = time.process_time() - started
            if flat is None:
                raise AssertionError("the sets are large enough for a map")
            kept = trustworthiness(rows, flat, n_neighbors=5)
            print(
                f"| {name} | {title} | {kept:.3f} | {_agreement(flat, truth):.3f} | {spent:.1f} |",
                flush=True,
            )
    rng = np.random.default_rng(0)
    many = rng.standard_normal((200, 512))[np.repeat(np.arange(200), 250)]
    rows = unit_rows(many + rng.standard_normal(many.shape))
    started = time.process_time()
    maps.tsne_map(rows, np.arange(0, len(rows), 50), seed=0)
    print(f"\n50,000 × 512: {time.process_time() - started:.1f} processor s")


def _agreement(flat: NDArray[np.float32], truth: NDArray[np.str_]) -> float:
    """Share of rows whose label is the commonest of their five nearest in the plane."""
    _, near = cKDTree(flat).query(flat, 6)
    classes = np.unique(truth, return_inverse=True)[1]
    votes = classes[near[:, 1:]]
    commonest = np.array([np.bincount(row).argmax() for row in votes])
    return float((commonest == classes).mean())


def _figures(values: list[float]) -> str:
    return " ".join(f"{value:.3f}"[1:] for value in values)


if __name__ == "__main__":
    main()
