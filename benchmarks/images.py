"""Reading pictures: reduced decoding against full decoding, and memory over hostile files.

Run: ``python benchmarks/images.py [--shared FOLDER] [--repeat N]``. Figures are ratios within one
run: each pair is timed in turn on one thread, and the least processor time of N counts. Photos, the
model and the hostile files are looked for beside the checkout; without them a made picture stands
in for the photos, and the rows that need the others say so.
"""

import argparse
import io
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from imageclust.errors import RejectedImage
from imageclust.images import DecodePool, ProcessOptions, decode_image, fingerprint, thumbnail
from PIL import Image, ImageOps

_SHARED = Path(__file__).parents[2] / "shared"
_SIDE = 224
_WHOLE = 10**6
_MEGAPIXELS = (11.5, 16.5)

Pixels = npt.NDArray[np.uint8]


def main() -> None:
    """Print every row as a line of a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=_SHARED)
    parser.add_argument("--repeat", type=int, default=7)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    photos = _large_photos(arguments.shared)
    print(f"OpenCV {cv2.__version__}, Python {sys.version.split()[0]}, one thread, {_SIDE} px\n")
    print("| picture | full decode + resize, ms | reduced, ms | ratio | Pillow full, ms | ratio |")
    print("|---|---|---|---|---|---|")
    for name, data in photos.items():
        print(_decode_row(name, data, arguments.repeat))
    _features(arguments.shared, photos)
    _stages(photos, arguments.repeat)
    _hostile(arguments.shared)


def _large_photos(shared: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted((shared / "data" / "decode_bench" / "images").glob("*.jpg")):
        data = path.read_bytes()
        decoded = decode_image(data, min_side=8)
        if _MEGAPIXELS[0] <= decoded.width * decoded.height / 1e6 <= _MEGAPIXELS[1]:
            found[path.name] = data
    if not found:
        found["made, 12.2 MP, baseline"] = _made(progressive=False)
        found["made, 12.2 MP, progressive"] = _made(progressive=True)
    return found


def _made(*, progressive: bool) -> bytes:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (4032, 3024), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    picture += rng.integers(-12, 13, picture.shape, dtype=np.int16)
    options = [cv2.IMWRITE_JPEG_QUALITY, 88, cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    _, encoded = cv2.imencode(".jpg", np.clip(picture, 0, 255).astype(np.uint8), options)
    return bytes(encoded)


def _full(data: bytes) -> Pixels:
    """The whole picture decoded, then brought to size: what the reduction is measured against."""
    pixels = decode_image(data, min_side=_WHOLE).pixels
    scale = _SIDE / min(pixels.shape[:2])
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _pillow(data: bytes) -> Pixels:
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    scale = _SIDE / min(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR), np.uint8)


def _reduced(data: bytes) -> Pixels:
    return decode_image(data, min_side=_SIDE).pixels


def _decode_row(name: str, data: bytes, repeat: int) -> str:
    jobs: list[Callable[[], object]] = [partial(job, data) for job in (_full, _reduced, _pillow)]
    full, reduced, pillow = _in_turn(jobs, repeat)
    return (
        f"| {name} | {full:.0f} | {reduced:.1f} | {full / reduced:.1f}× "
        f"| {pillow:.0f} | {pillow / reduced:.1f}× |"
    )


def _in_turn(jobs: list[Callable[[], object]], repeat: int) -> list[float]:
    """Least processor time of each job in ms; they take turns, so that load hits all alike."""
    best = [float("inf")] * len(jobs)
    for _ in range(repeat):
        for index, job in enumerate(jobs):
            start = time.thread_time()
            job()
            best[index] = min(best[index], 1000 * (time.thread_time() - start))
    return best


def _features(shared: Path, photos: dict[str, bytes]) -> None:
    model = shared / "models" / "mobilenet_v2_1.0_224_fp32.onnx"
    if not model.exists():
        print("\nFeature agreement: needs the MobileNetV2 model beside the checkout.")
        return
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])

    def feature(pixels: Pixels) -> npt.NDArray[np.float32]:
        top, left = ((side - _SIDE) // 2 for side in pixels.shape[:2])
        crop = pixels[top : top + _SIDE, left : left + _SIDE].astype(np.float32)
        batch = ((crop - 127.5) / 127.5).transpose(2, 0, 1)[None]
        vector = session.run(["features"], {"input": batch})[0][0]
        return np.asarray(vector / np.linalg.norm(vector), np.float32)

    print("\n| picture | cosine of features, reduced against full | largest pixel difference |")
    print("|---|---|---|")
    for name, data in photos.items():
        full, reduced = _full(data), _reduced(data)
        agreement = float(feature(full) @ feature(reduced))
        apart = int(np.abs(full.astype(np.int16) - reduced).max())
        print(f"| {name} | {agreement:.4f} | {apart} |")


def _stages(photos: dict[str, bytes], repeat: int) -> None:
    print("\n| picture | decode to 320 px, ms | fingerprint, ms | thumbnail, ms |")
    print("|---|---|---|---|")
    for name, data in photos.items():
        decoded = decode_image(data)
        jobs: list[Callable[[], object]] = [
            partial(decode_image, data),
            partial(fingerprint, decoded, data),
            partial(thumbnail, decoded),
        ]
        times = _in_turn(jobs, repeat)
        print(f"| {name} | " + " | ".join(f"{milliseconds:.1f}" for milliseconds in times) + " |")


def _hostile(shared: Path) -> None:
    folder = shared / "data" / "nasty" / "files"
    if not folder.exists():
        print("\nPeak memory: needs the hostile files beside the checkout.")
        return
    outcomes: Counter[str] = Counter()
    start = time.perf_counter()
    with DecodePool(workers=2, options=ProcessOptions()) as pool:
        for outcome in pool.map(sorted(folder.iterdir())):
            outcomes[outcome.kind if isinstance(outcome, RejectedImage) else "decoded"] += 1
    seconds = time.perf_counter() - start
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"\nHostile files: {sum(outcomes.values())} in {seconds:.1f} s, {dict(outcomes)}.")
    print(f"Peak memory of the largest of 2 decoding processes: {largest:.0f} MB.")


if __name__ == "__main__":
    main()
