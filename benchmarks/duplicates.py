"""Duplicates: time and memory over a large collection, and quality by transform.

    python benchmarks/duplicates.py [--images 50000] [--dimension 1280] [--latency 15]
                                    [--skip-large] [--skip-quality]

The large collection is made here: random pictures with vectors in clusters, one in twenty of them
a re-encoded, cropped, mirrored, turned or blurred copy of another. What is measured is the whole
step: thumbnails (WebP) come one a request from a stand-in of a store that answers after
``--latency`` milliseconds and are decoded in that time. The quality table needs the near-duplicate
photos and a model in ``../shared``; the peers are one threshold on the perceptual
hash and one on the cosine, as tools for this commonly use.
"""

import argparse
import csv
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnxruntime
from imageclust.duplicates import Pictures, Thresholds, find_duplicates
from imageclust.duplicates.candidates import cosine_pairs, hash_pairs
from imageclust.images import decode_image, fingerprint, thumbnail
from imageclust.keys import thumbnail_key
from imageclust.steps.copies import find_copies
from imageclust.steps.gather import Gathered
from numpy.typing import NDArray

SHARED = Path(__file__).resolve().parents[2] / "shared"
SIDE = 256
Image = NDArray[np.uint8]


def make_picture(seed: int) -> Image:
    """A picture of its own: soft random colours with some sharp detail."""
    rng = np.random.default_rng(seed)
    soft = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    picture = cv2.resize(soft, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    detail = rng.integers(-60, 61, (40, 40, 1)).astype(np.float32)
    fine = cv2.resize(detail, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    made: Image = np.clip(picture + fine[:, :, None], 0, 255).astype(np.uint8)
    return made


def copy_of(picture: Image, how: int) -> Image:
    h, w = picture.shape[:2]
    if how == 0:
        _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 20])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    if how == 1:
        return picture[h // 12 : -h // 12, w // 12 : -w // 12]
    if how == 2:
        return np.ascontiguousarray(picture[:, ::-1])
    if how == 3:
        return np.ascontiguousarray(np.rot90(picture))
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 2))


def large_collection(n: int, d: int) -> tuple[Pictures, Callable[[int], Image], NDArray[np.int64]]:
    rng = np.random.default_rng(7)
    origin = np.arange(n)
    copies = rng.choice(np.arange(1, n), n // 20, replace=False)
    sources = np.setdiff1d(np.arange(n), copies)
    origin[copies] = rng.choice(sources, len(copies))

    def picture(row: int) -> Image:
        made = make_picture(int(origin[row]))
        return made if origin[row] == row else copy_of(made, row % 5)

    # The energy of the directions falls as that of MobileNetV2's features on photos does (192 hold
    # about nine tenths). Clusters with cosine .65 within, and one picture in five in a scene of
    # five: look-alikes with cosine .9, other pictures to the eye, as rows of houses are.
    spectrum = (0.994 ** np.arange(d)).astype(np.float32)
    spectrum *= np.sqrt(d / np.sum(spectrum**2))
    centres = rng.normal(size=(200, d)).astype(np.float32) * spectrum
    vectors = np.empty((n, d), np.float32)
    group = rng.integers(0, 200, n)
    for start in range(0, n, 5000):
        rows = slice(start, min(start + 5000, n))
        noise = rng.normal(size=(rows.stop - start, d)).astype(np.float32) * spectrum
        vectors[rows] = centres[group[rows]] + 0.73 * noise
    for row in range(0, n - 5, 25):
        scene = rng.normal(size=(4, d)).astype(np.float32) * spectrum
        vectors[row + 1 : row + 5] = vectors[row] + 0.58 * scene
    for row in copies:
        # Turned and blurred copies have far vectors; the rest stay near.
        far = 0.9 if row % 5 in (3, 4) else 0.3
        vectors[row] = vectors[origin[row]] + far * rng.normal(size=d) * spectrum
    phashes = np.array([int(phash_of(picture(row)), 16) for row in range(n)], np.uint64)
    return Pictures(phashes, vectors), picture, origin


def phash_of(picture: Image) -> str:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    low = cv2.dct(cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA))[:8, :8].ravel()
    bits = low > np.median(low[1:])
    bits[0] = False
    return f"{int(''.join('1' if bit else '0' for bit in bits), 2):016x}"


class SlowStore:
    """Thumbnails by address, each after the latency of a request; everything else is in memory."""

    def __init__(self, thumbnails: dict[str, bytes], latency: float) -> None:
        self.thumbnails, self.latency = thumbnails, latency
        self.written: dict[str, bytes] = {}
        self.reads: list[str] = []

    def read(self, uri: str) -> bytes:
        if uri in self.written:
            return self.written[uri]
        self.reads.append(uri)
        time.sleep(self.latency)
        return self.thumbnails[uri.rpartition("/")[2]]

    def size(self, uri: str) -> int | None:
        return len(self.written[uri]) if uri in self.written else None

    def write(self, uri: str, data: bytes) -> None:
        self.written[uri] = data


def measure_large(n: int, d: int, latency: float) -> None:
    pictures, picture, origin = large_collection(n, d)
    ids = tuple(f"{row:064x}" for row in range(n))
    store = SlowStore(
        {
            thumbnail_key(ids[row]).rpartition("/")[2]: webp(picture(row))
            for row in rows_in_question(pictures)
        },
        latency,
    )
    facts = {
        image_id: {
            "width": SIDE,
            "height": SIDE,
            "fingerprint": {"phash": f"{phash:016x}", "sharpness": 0.5},
        }
        for image_id, phash in zip(ids, pictures.phashes.tolist(), strict=True)
    }
    gathered = Gathered(ids, {}, lambda: np.asarray(pictures.vectors), lambda: facts)
    services = SimpleNamespace(store=store, settings=SimpleNamespace(data_bucket="data"))
    before = memory("VmRSS")
    # Forget the peak of making the collection (proc(5), clear_refs).
    Path("/proc/self/clear_refs").write_text("5")
    start, worked = time.perf_counter(), time.process_time()
    copies = find_copies(services, gathered, "some-model", sizes=dict.fromkeys(ids, 1))  # type: ignore[arg-type]
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    peak = memory("VmHWM")
    members: dict[str, list[int]] = defaultdict(list)
    for row, image_id in enumerate(ids):
        members[copies.keepers.get(image_id, image_id)].append(row)
    truth = pairs_of(_groups_by(origin.tolist()))
    found = pairs_of(tuple(group) for group in members.values())
    more = (peak - before) / 1024
    print(f"{n} images, vectors of {d}: {seconds:.1f} s ({worked:.1f} s of processor time)")
    print(f"  {more:.0f} MB more at the peak")
    print(
        f"  {len(store.reads)} reads of {1000 * latency:.0f} ms, {len(set(store.reads))} thumbnails"
    )
    print(f"  compared {copies.compared} pairs, cosine from {copies.cosine_floor:.3f}")
    print(f"  {quality(found, truth)}, {len(copies.similar)} look-alikes")


def rows_in_question(pictures: Pictures) -> list[int]:
    """Rows whose thumbnails will be asked for."""
    n = len(pictures.phashes)
    unit = pictures.vectors / np.linalg.norm(pictures.vectors, axis=1, keepdims=True)
    near, _, _ = cosine_pairs(unit, floor=Thresholds.for_size(n).cosine - 1e-3, budget=8 * n)
    rows = np.unique(np.concatenate([near, hash_pairs(pictures.phashes, budget=8 * n)]))
    return [int(row) for row in rows]


def webp(picture: Image) -> bytes:
    _, data = cv2.imencode(".webp", picture[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, 80])
    return data.tobytes()


def memory(name: str) -> int:
    """VmRSS (now) or VmHWM (peak) of this process in KB; Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def measure_quality() -> None:
    folder = SHARED / "data" / "near_duplicates"
    model = SHARED / "models" / "mobilenet_v2_1.0_224_w8.onnx"
    if not folder.exists() or not model.exists():
        print("quality by transform: needs ../shared")
        return
    rows = list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    thumbs, vectors, hashes, pixels, sharp, sizes = [], [], [], [], [], []
    for row in rows:
        data = (folder / "images" / row["file"]).read_bytes()
        decoded = decode_image(data, min_side=256)
        facts = fingerprint(decoded, data)
        hashes.append(int(facts.phash, 16))
        sharp.append(facts.sharpness)
        sizes.append(len(data))
        pixels.append(decoded.width * decoded.height)
        thumbs.append(thumbnail(decoded))
        vectors.append(session.run(["features"], {"input": centre_crop(decoded.pixels)})[0][0])

    @cache
    def shown(i: int) -> Image:
        return decode_image(thumbs[i]).pixels

    phashes, features = np.array(hashes, np.uint64), np.array(vectors, np.float32)
    pictures = Pictures(phashes, features, np.array(pixels), np.array(sharp), np.array(sizes))
    report = find_duplicates(pictures, shown)
    truth = pairs_of(_groups_by([row["group"] for row in rows]))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    away = np.bitwise_count(phashes[:, None] ^ phashes[None, :])
    ours = pairs_of(report.groups)
    by_hash = closure(np.argwhere(np.triu(away <= 10, 1)))
    by_cosine = closure(np.argwhere(np.triu(unit @ unit.T >= 0.85, 1)))
    print(f"near_duplicates, {len(rows)} images, {len(truth)} pairs")
    for name, found in (
        ("imageclust", ours),
        ("perceptual hash within 10 bits", by_hash),
        ("cosine from .85", by_cosine),
    ):
        print(f"  {name}: {quality(found, truth)}")
    kinds = [row["transform"] for row in rows]
    total: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for a, b in truth:
        kind = " ".join(sorted({kinds[a], kinds[b]} - {"orig"})) or "orig"
        if "orig" in (kinds[a], kinds[b]) or kind == "real":
            for place, found in enumerate((truth, ours, by_hash, by_cosine)):
                total[kind][place] += (a, b) in found
    print("| transform | pairs with the original | imageclust | hash | cosine |")
    print("|---|---|---|---|---|")
    for kind in sorted(total):
        print(f"| {kind} | " + " | ".join(str(value) for value in total[kind]) + " |")
    print(json.dumps({"similar": len(report.similar), "compared": report.compared}))


def centre_crop(pixels: Image) -> NDArray[np.float32]:
    h, w = pixels.shape[:2]
    scale = 256 / min(h, w)
    size = (max(256, round(w * scale)), max(256, round(h * scale)))
    flag = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    image = cv2.resize(pixels, size, interpolation=flag)
    y, x = (image.shape[0] - 224) // 2, (image.shape[1] - 224) // 2
    crop = image[y : y + 224, x : x + 224].astype(np.float32)
    return np.ascontiguousarray(((crop - 127.5) / 127.5).transpose(2, 0, 1))[None]


def _groups_by(names: list[str] | list[int]) -> list[tuple[int, ...]]:
    members: dict[object, list[int]] = defaultdict(list)
    for place, name in enumerate(names):
        members[name].append(place)
    return [tuple(group) for group in members.values()]


def pairs_of(groups: Iterable[tuple[int, ...]]) -> set[tuple[int, int]]:
    return {pair for group in groups for pair in itertools.combinations(group, 2)}


def closure(pairs: NDArray[np.int64]) -> set[tuple[int, int]]:
    root: dict[int, int] = {}

    def find(x: int) -> int:
        while root.setdefault(x, x) != x:
            x = root[x]
        return x

    for a, b in pairs.tolist():
        root[find(b)] = find(a)
    return pairs_of(
        tuple(sorted(x for x in list(root) if find(x) == top)) for top in {find(x) for x in root}
    )


def quality(found: set[tuple[int, int]], truth: set[tuple[int, int]]) -> str:
    right = len(found & truth)
    return f"precision {right / max(1, len(found)):.3f}, recall {right / max(1, len(truth)):.3f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--dimension", type=int, default=1280)
    parser.add_argument("--latency", type=float, default=15, metavar="MS")
    parser.add_argument("--skip-large", action="store_true")
    parser.add_argument("--skip-quality", action="store_true")
    options = parser.parse_args()
    if not options.skip_quality:
        measure_quality()
    if not options.skip_large:
        measure_large(options.images, options.dimension, options.latency / 1000)
