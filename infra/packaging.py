"""Lambda layers and code as deterministic zips, built without Docker from the lock file.

``uv export`` gives the locked, hashed requirements; ``layers/deps/layers.toml`` says which go in
which layer; ``uv pip install --python-platform`` unpacks the Linux arm64 wheels on any machine;
what Lambda never reads is left out. Zips are kept under ``build/`` by a digest of what goes in,
so a second synth builds nothing.

``python -m infra.packaging`` builds every layer and prints the unzipped sizes.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "lambda"
PYTHON = "3.13"
# numpy has no aarch64 wheel for the older manylinux2014; Lambda's Amazon Linux 2023 has glibc 2.34.
PLATFORM = "aarch64-manylinux_2_28"
LAMBDA_LIMIT = 250 * 1024 * 1024
"""Unzipped bytes of one function and its layers that Lambda accepts."""

NOT_SHIPPED = "local-only"

_PRUNED_FOLDERS = frozenset({"__pycache__", "tests", "bin"})
_PRUNED_SUFFIXES = frozenset({".pyi", ".pyx", ".pxd", ".h", ".hpp", ".c", ".cpp", ".pyc", ".a"})
# Developer tools of ONNX Runtime and data of OpenCV that no handler imports.
_PRUNED_TREES = (
    "onnxruntime/datasets",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
    "cv2/data",
)
# botocore describes some 400 services in 28 MB; these are the ones that adapters/aws calls.
SERVICES = frozenset(
    {
        "bedrock",
        "bedrock-runtime",
        "dynamodb",
        "events",
        "rekognition",
        "s3",
        "s3vectors",
        "scheduler",
        "sqs",
        "stepfunctions",
        "sts",
    }
)
_METADATA_KEPT = frozenset({"METADATA", "entry_points.txt"})


class PackagingError(Exception):
    """The layers cannot be built; the message says what to change."""


@dataclass(frozen=True)
class DependencyLayer:
    """One layer of third-party packages, as ``layers.toml`` names it."""

    name: str
    why: str
    budget_mib: int
    packages: tuple[str, ...]


@dataclass(frozen=True)
class Archive:
    """A zip for Lambda; ``digest`` names its content and becomes the asset's hash."""

    path: Path
    digest: str

    def unzipped_bytes(self) -> int:
        with zipfile.ZipFile(self.path) as archive:
            return sum(entry.file_size for entry in archive.infolist())


def dependency_layers() -> dict[str, DependencyLayer]:
    """Every group of ``layers/deps/layers.toml`` by name, the one that is not shipped included."""
    table = tomllib.loads((ROOT / "layers" / "deps" / "layers.toml").read_text("utf-8"))
    return {
        name: DependencyLayer(name, group["why"], group["budget_mib"], tuple(group["packages"]))
        for name, group in table.items()
    }


def locked_requirements() -> dict[str, str]:
    """Requirement lines, hashes included, of each run-time package in ``uv.lock``, by name.

    A package that is locked in two versions (one a Python version) has the lines of both; their
    markers choose.
    """
    exported = _uv(
        "export",
        "--frozen",
        "--offline",
        "--no-emit-project",
        "--no-default-groups",
        "--extra=aws",
        "--no-header",
        "--no-annotate",
    )
    found: dict[str, str] = {}
    for block in re.split(r"\n(?=\S)", exported.strip()):
        name = re.split(r"[=\s;\[]", block, maxsplit=1)[0]
        found[name] = found.get(name, "") + block + "\n"
    return found


def check_every_package_has_a_layer(
    layers: Iterable[DependencyLayer], locked: Iterable[str]
) -> None:
    """Raise PackagingError unless each locked package is in exactly one layer."""
    placed = [package for layer in layers for package in layer.packages]
    twice = sorted({package for package in placed if placed.count(package) > 1})
    missing = sorted(set(locked) - set(placed))
    unknown = sorted(set(placed) - set(locked))
    for problem, names in (
        ("are in two layers", twice),
        ("are locked but in no layer", missing),
        ("are in a layer but not locked", unknown),
    ):
        if names:
            raise PackagingError(f"layers/deps/layers.toml: {', '.join(names)} {problem}")


def build_dependency_layer(name: str) -> Archive:
    """The zip of one dependency layer, from the cache when its requirements did not change."""
    layers = dependency_layers()
    locked = locked_requirements()
    check_every_package_has_a_layer(layers.values(), locked)
    requirements = "".join(locked[package] for package in layers[name].packages)
    digest = _digest([requirements, PYTHON, PLATFORM, Path(__file__).read_text("utf-8")])
    target = BUILD / f"{name}-{digest}.zip"
    if not target.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD, prefix=f".{name}-") as scratch:
            _install(requirements, Path(scratch))
            _write_zip(target, _tree(Path(scratch) / "python", prefix="python"))
    return Archive(target, digest)


def library_archive() -> Archive:
    """The layer that holds the library itself."""
    return _archive_of("core", ROOT / "layers" / "core" / "python" / "imageclust", "python")


def functions_archive() -> Archive:
    """The handlers: one small zip that every function shares."""
    return _archive_of("functions", ROOT / "functions", "")


def unbuilt_archive() -> Archive:
    """Stands in for a dependency layer where only the template matters; never deploy it."""
    target = BUILD / "unbuilt.zip"
    if not target.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        _write_zip(target, [(PurePosixPath("python/unbuilt.txt"), b"IMAGECLUST_BUILD_LAYERS=0\n")])
    return Archive(target, "unbuilt")


def is_pruned(path: PurePosixPath) -> bool:
    """Whether a file of an installed package, relative to site-packages, is left out."""
    folders = path.parts[:-1]
    if _PRUNED_FOLDERS.intersection(folders) or path.suffix in _PRUNED_SUFFIXES:
        return True
    if folders and folders[0].endswith(".dist-info"):
        return len(folders) == 1 and path.name not in _METADATA_KEPT
    if folders[:2] == ("botocore", "data") and len(folders) > 2:
        return folders[2] not in SERVICES
    return any(path.is_relative_to(tree) for tree in _PRUNED_TREES)


def _install(requirements: str, scratch: Path) -> None:
    listing = scratch / "requirements.txt"
    listing.write_text(requirements, "utf-8")
    _uv(
        "pip",
        "install",
        "--no-build",
        "--no-deps",
        "--require-hashes",
        "--no-compile-bytecode",
        f"--python-platform={PLATFORM}",
        f"--python-version={PYTHON}",
        f"--target={scratch / 'python'}",
        f"--requirements={listing}",
    )


def _uv(*arguments: str) -> str:
    beside = Path(sys.executable).parent / "uv"
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise PackagingError("uv is not installed; `pip install uv` puts it beside Python")
    done = subprocess.run(  # noqa: S603 - arguments are ours
        [uv, "--quiet", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PackagingError(f"uv {' '.join(arguments[:2])} failed: {done.stderr.strip()}")
    return done.stdout


def _archive_of(name: str, folder: Path, prefix: str) -> Archive:
    files = [
        (PurePosixPath(prefix, folder.name, path), content)
        for path, content in _files(folder)
        if "__pycache__" not in path.parts and path.suffix != ".pyc"
    ]
    digest = _digest(part for path, content in files for part in (str(path), content))
    target = BUILD / f"{name}-{digest}.zip"
    if not target.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        _write_zip(target, files)
    return Archive(target, digest)


def _tree(folder: Path, *, prefix: str) -> Iterator[tuple[PurePosixPath, bytes]]:
    for path, content in _files(folder):
        if not is_pruned(path):
            yield PurePosixPath(prefix, path), content


def _files(folder: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield PurePosixPath(path.relative_to(folder).as_posix()), path.read_bytes()


def _write_zip(target: Path, files: Iterable[tuple[PurePosixPath, bytes]]) -> None:
    """Write all or nothing; the same files give the same bytes (fixed dates and modes)."""
    handle, scratch = tempfile.mkstemp(dir=target.parent, prefix=".zip-")
    try:
        with (
            os.fdopen(handle, "wb") as stream,
            zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive,
        ):
            for path, content in files:
                entry = zipfile.ZipInfo(str(path), date_time=(1980, 1, 1, 0, 0, 0))
                entry.external_attr = 0o644 << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, content)
        os.replace(scratch, target)
    except BaseException:
        os.unlink(scratch)
        raise


def _digest(parts: Iterable[str | bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()[:32]


def _main() -> None:
    for layer in dependency_layers().values():
        if layer.name != NOT_SHIPPED:
            archive = build_dependency_layer(layer.name)
            size = archive.unzipped_bytes() / 2**20
            print(f"{layer.name:12} {size:6.1f} MiB of {layer.budget_mib} allowed  {layer.why}")
    for name, archive in (("core", library_archive()), ("functions", functions_archive())):
        print(f"{name:12} {archive.unzipped_bytes() / 2**20:6.1f} MiB")


if __name__ == "__main__":
    _main()
