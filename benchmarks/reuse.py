"""What a second run over an unchanged folder costs, against the first.

Run: ``python benchmarks/reuse.py [--shared FOLDER] [--photos N] [--embedder NAME]``.

The command line runs twice (then once more with one photo added) over N photos and one state
folder, each time in a fresh process: seconds of the whole command, of each state, and how many
images were embedded. Then the time of importing the embed handler in a fresh interpreter.

Python keeps its compiled modules in a folder of this benchmark, and a run over a few other photos
fills it first, as any earlier use of the program does; ``--cold`` compiles anew in every process,
as where PYTHONDONTWRITEBYTECODE is set.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
_SHARED = _ROOT.parent / "shared"
_SET = "houses_rooms"


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=_SHARED)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--embedder", default="mobilenet_v2_1.0_224_w8")
    parser.add_argument("--cold", action="store_true", help="keep no compiled modules")
    arguments = parser.parse_args()
    if not arguments.shared.is_dir():
        sys.exit(f"needs the photos and models in {arguments.shared}")
    source = arguments.shared / "data" / _SET / "images"
    files = sorted(path for path in source.rglob("*") if path.is_file())
    used, spare = files[: arguments.photos], files[arguments.photos]
    few = files[arguments.photos + 1 :][:20]
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        for number, path in enumerate(used):
            shutil.copy(path, photos / f"{number:05d}{path.suffix}")
        environment = {**os.environ, "IMAGECLUST_MODELS": str(arguments.shared / "models")}
        environment["PYTHONDONTWRITEBYTECODE"] = "1" if arguments.cold else ""
        environment["PYTHONPYCACHEPREFIX"] = str(Path(folder) / "compiled")
        others = Path(folder) / "before" / "photos"
        others.mkdir(parents=True)
        for path in few:
            shutil.copy(path, others)
        for _ in range(2):
            _run(others, others.parent, arguments.embedder, environment)
        first = _run(photos, Path(folder), arguments.embedder, environment)
        second = _run(photos, Path(folder), arguments.embedder, environment)
        shutil.copy(spare, photos / "new.jpg")
        third = _run(photos, Path(folder), arguments.embedder, environment)
        imported = _import_seconds("functions.embed", environment)
    print(
        f"| run over {len(used)} photos | embedded | wall, s | ratio | processor, s | ratio "
        "| states, s |"
    )
    print("|---|---|---|---|---|---|---|")
    for title, (wall, spent, record) in (("first", first), ("again", second), ("one more", third)):
        states = ", ".join(
            f"{name} {took:.2f}" for name, took in record["seconds"].items() if took >= 0.01
        )
        print(
            f"| {title} | {record['images']['to_embed']} | {wall:.2f} | {first[0] / wall:.1f}× "
            f"| {spent:.2f} | {first[1] / spent:.1f}× | {states} |"
        )
    print(f"\nImport of functions.embed: {imported:.2f} s.")


def _run(
    photos: Path, folder: Path, embedder: str, environment: dict[str, str]
) -> tuple[float, float, dict[str, Any]]:
    """Wall-clock and processor seconds of one command, and its record."""
    command = [sys.executable, "-m", "local.cli", "run", str(photos), "--json"]
    command += ["--home", str(folder / "home"), "--out", str(folder / "out")]
    command += ["--embedder", embedder]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, check=False)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if done.returncode:
        sys.exit(done.stderr.decode())
    return wall, spent, json.loads(done.stdout)


def _import_seconds(module: str, environment: dict[str, str]) -> float:
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True,
                             cwd=_ROOT, env=environment).stdout)
        for _ in range(5)
    ]  # fmt: skip
    return min(times)


if __name__ == "__main__":
    main()
