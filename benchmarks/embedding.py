"""How well embedders group labelled photos, and how fast pictures become vectors.

Run: ``python benchmarks/embedding.py quality|speed [--shared FOLDER] [--model NAME]``.

``quality``: k-means at the true number of classes over L2-normalised vectors (scikit-learn, ten
starts, three seeds, in the first 256 principal components, which hold nearly all): mean and
standard deviation of the normalized mutual information, then the accuracy of the five nearest
neighbours. ``speed``: the whole path from bytes to vector against the straightforward peer (Pillow
decode at full size, resize, one onnxruntime call an image), timed in turn in one run; the best of
N counts.
"""

import argparse
import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from imageclust.embedding import (
    BUILTIN,
    PREPROCESSINGS,
    Embedder,
    ModelRegistry,
    OnnxEmbedder,
    open_embedder,
)
from imageclust.images import decode_image
from numpy.typing import NDArray
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import normalized_mutual_info_score

_SHARED = Path(__file__).parents[2] / "shared"
_SETS = ("houses_rooms", "caltech45", "clothing10", "aws_rooms", "art_procedural")
_SEEDS = 3
_COMPONENTS = 256
_THREADS = 2


def main() -> None:
    """Print the tables of one part as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["quality", "speed"])
    parser.add_argument("--shared", type=Path, default=_SHARED)
    parser.add_argument("--model", default="mobilenet_v2_1.0_224_w8")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    if not arguments.shared.is_dir():
        sys.exit(f"needs the labelled photos and models in {arguments.shared}")
    cv2.setNumThreads(1)
    registry = ModelRegistry(arguments.shared / "models")
    if arguments.part == "quality":
        _quality(arguments.shared / "data", registry, arguments.model)
    else:
        _speed(arguments.shared / "data", registry, arguments.model, arguments.repeat)


def _quality(data: Path, registry: ModelRegistry, model: str) -> None:
    embedders: list[tuple[str, Embedder]] = [
        (f"{model}, {name}", open_embedder(model, registry=registry, preprocess=name))
        for name in PREPROCESSINGS
    ]
    embedders.append((BUILTIN, open_embedder(BUILTIN, registry=registry)))
    side = max(embedder.min_side for _, embedder in embedders)
    print(f"| embedder | {' | '.join(_SETS)} | mean |")
    print(f"|---|{'---|' * (len(_SETS) + 1)}")
    photos = {name: _labelled(data / name, side) for name in _SETS}
    for title, embedder in embedders:
        cells, means = [], []
        for images, labels in photos.values():
            vectors = embedder.embed(images)
            turned = PCA(min(_COMPONENTS, *vectors.shape), random_state=0).fit_transform(vectors)
            scores = [_nmi(turned, labels, seed) for seed in range(_SEEDS)]
            means.append(np.mean(scores))
            near = _neighbour_accuracy(vectors, labels)
            cells.append(f"{np.mean(scores):.3f} ± {np.std(scores):.3f}, {near:.3f}")
        print(f"| {title} | {' | '.join(cells)} | {np.mean(means):.3f} |", flush=True)


def _labelled(folder: Path, side: int) -> tuple[list[NDArray[np.uint8]], NDArray[np.intp]]:
    with (folder / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    files = [(folder / "images" / row["file"]).read_bytes() for row in rows]
    with ThreadPoolExecutor(_THREADS) as pool:
        images = list(pool.map(lambda data: decode_image(data, min_side=side).pixels, files))
    return images, np.unique([row["label"] for row in rows], return_inverse=True)[1]


def _nmi(vectors: NDArray[np.float32], labels: NDArray[np.intp], seed: int) -> float:
    found = KMeans(int(labels.max()) + 1, n_init=10, random_state=seed).fit_predict(vectors)
    return float(normalized_mutual_info_score(labels, found))


def _neighbour_accuracy(vectors: NDArray[np.float32], labels: NDArray[np.intp]) -> float:
    near = vectors @ vectors.T
    np.fill_diagonal(near, -np.inf)
    votes = labels[np.argpartition(-near, 5, axis=1)[:, :5]]
    return float(np.mean([np.bincount(vote).argmax() for vote in votes] == labels))


def _speed(data: Path, registry: ModelRegistry, model: str, repeat: int) -> None:
    print(
        f"onnxruntime {onnxruntime.__version__}, OpenCV {cv2.__version__}, "
        f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, {_THREADS} threads\n"
    )
    small = [path.read_bytes() for path in sorted((data / "houses_rooms/images").glob("*"))[:200]]
    large = [
        path.read_bytes()
        for path in sorted((data / "decode_bench/images").glob("*.jpg"))
        if 11.5e6 <= np.prod(Image.open(path).size) <= 16.5e6
    ] * 6
    print("| whole path, bytes to vector | pictures | ours, ms each | peer, ms each | ratio |")
    print("|---|---|---|---|---|")
    for name in (model, model.replace("_w8", "_fp32")):
        if name not in {entry.name for entry in registry.list()}:
            continue
        embedder = open_embedder(name, registry=registry, threads=_THREADS)
        peer = _peer(embedder)
        for title, files in (("320 px", small), ("12-16 MP", large)):
            ours, theirs = _paired(
                partial(_whole_path, embedder, files),
                partial(_each, peer, files),
                repeat,
            )
            each = 1000 / len(files)
            print(
                f"| {name}, {title} | {len(files)} | {ours * each:.1f} | {theirs * each:.1f} "
                f"| {theirs / ours:.2f} |",
                flush=True,
            )
    _builtin_speed(registry, small, repeat)
    _import_time(repeat)


def _whole_path(embedder: Embedder, files: Sequence[bytes]) -> NDArray[np.float32]:
    with ThreadPoolExecutor(_THREADS) as pool:
        images = list(
            pool.map(lambda data: decode_image(data, min_side=embedder.min_side).pixels, files)
        )
    return embedder.embed(images)


def _each(
    peer: Callable[[bytes], NDArray[np.float32]], files: Sequence[bytes]
) -> list[NDArray[np.float32]]:
    return [peer(file) for file in files]


def _peer(embedder: Embedder) -> Callable[[bytes], NDArray[np.float32]]:
    """Pillow at full size, short side to 256, centre crop, one call with default options."""
    if not isinstance(embedder, OnnxEmbedder):
        raise TypeError("the peer needs an ONNX model")
    card = embedder.model.card
    session = onnxruntime.InferenceSession(
        str(embedder.model.path), providers=["CPUExecutionProvider"]
    )

    def embed(data: bytes) -> NDArray[np.float32]:
        picture = Image.open(BytesIO(data)).convert("RGB")
        scale = card.resizing.short_side / min(picture.size)
        picture = picture.resize(
            (round(picture.width * scale), round(picture.height * scale)),
            Image.Resampling.BILINEAR,
        )
        left, top = (picture.width - card.size) // 2, (picture.height - card.size) // 2
        square = picture.crop((left, top, left + card.size, top + card.size))
        values = (np.asarray(square, np.float32) - card.scaling.mean) / card.scaling.std
        batch = values.astype(np.float32).transpose(2, 0, 1)[None]
        (features,) = session.run([card.features.name], {session.get_inputs()[0].name: batch})
        return np.asarray(features[0] / np.linalg.norm(features[0]))

    return embed


def _paired(
    ours: Callable[[], object], theirs: Callable[[], object], repeat: int
) -> tuple[float, float]:
    best = [float("inf"), float("inf")]
    for _ in range(repeat):
        for at, work in enumerate((ours, theirs)):
            start = time.perf_counter()
            work()
            best[at] = min(best[at], time.perf_counter() - start)
    return best[0], best[1]


def _builtin_speed(registry: ModelRegistry, files: Sequence[bytes], repeat: int) -> None:
    images = [decode_image(data, min_side=320).pixels for data in files]
    descriptor = open_embedder(BUILTIN, registry=registry, threads=1)
    best = float("inf")
    for _ in range(repeat):
        # Processor time: the figure is for one core, whatever else the machine does.
        start = time.process_time()
        descriptor.embed(images)
        best = min(best, time.process_time() - start)
    print(f"\nBuilt-in descriptor at 320 px: {len(images) / best:.0f} images/s a core.")


def _import_time(repeat: int) -> None:
    code = "import time; t = time.perf_counter(); import imageclust.embedding; "
    code += "print(time.perf_counter() - t)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(max(repeat, 3))
    ]
    print(f"Import of imageclust.embedding: {min(times):.2f} s (no session, no OpenCV).")


if __name__ == "__main__":
    main()
