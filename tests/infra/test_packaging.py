"""Layers: what is in them, how big they are, that what is left out is not missed."""

import importlib.metadata
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from infra import packaging
from infra.constructs.handlers import SHAPES
from infra.packaging import (
    LAMBDA_LIMIT,
    NOT_SHIPPED,
    ROOT,
    SERVICES,
    DependencyLayer,
    PackagingError,
    build_dependency_layer,
    check_every_package_has_a_layer,
    dependency_layers,
    functions_archive,
    is_pruned,
    library_archive,
    locked_requirements,
)

SHIPPED = [name for name in dependency_layers() if name != NOT_SHIPPED]


def test_every_locked_package_is_in_one_layer() -> None:
    check_every_package_has_a_layer(dependency_layers().values(), locked_requirements())


@pytest.mark.parametrize(
    ("first", "second", "locked", "message"),
    [
        (["a"], ["a"], ["a"], "a are in two layers"),
        (["a"], [], ["a", "b"], "b are locked but in no layer"),
        (["a"], ["c"], ["a"], "c are in a layer but not locked"),
    ],
)
def test_a_wrong_layer_file_stops_the_build(
    first: list[str], second: list[str], locked: list[str], message: str
) -> None:
    layers = [DependencyLayer("x", "", 1, tuple(first)), DependencyLayer("y", "", 1, tuple(second))]
    with pytest.raises(PackagingError, match=message):
        check_every_package_has_a_layer(layers, locked)


def test_requirements_carry_hashes_and_both_versions_of_a_forked_package() -> None:
    numpy = locked_requirements()["numpy"]
    assert numpy.count("numpy==") == len(re.findall(r"python_full_version", numpy)) or (
        numpy.count("numpy==") == 1
    )
    assert "--hash=sha256:" in numpy


@pytest.mark.parametrize(
    ("path", "pruned"),
    [
        ("numpy/tests/test_a.py", True),
        ("numpy/testing/__init__.py", False),
        ("numpy/f2py/__init__.py", False),
        ("numpy/_core/include/numpy/arrayobject.h", True),
        ("scipy.libs/libopenblas.so", False),
        ("botocore/data/s3/2006-03-01/service-2.json.gz", False),
        ("botocore/data/ec2/2016-11-15/service-2.json.gz", True),
        ("botocore/data/endpoints.json", False),
        ("onnxruntime/transformers/optimizer.py", True),
        ("onnxruntime/capi/_ld_preload.py", False),
        ("cv2/data/haarcascade_eye.xml", True),
        ("boto3-1.0.dist-info/METADATA", False),
        ("boto3-1.0.dist-info/RECORD", True),
        ("boto3-1.0.dist-info/licenses/LICENSE", False),
        ("bin/f2py", True),
    ],
)
def test_what_is_left_out(path: str, pruned: bool) -> None:
    assert is_pruned(PurePosixPath(path)) is pruned


def test_every_service_that_the_adapters_call_is_kept() -> None:
    adapters = ROOT / "layers" / "core" / "python" / "imageclust" / "adapters" / "aws"
    text = "".join(path.read_text("utf-8") for path in sorted(adapters.rglob("*.py")))
    import botocore.session

    known = set(botocore.session.get_session().get_available_services())
    named = set(re.findall(r'"([a-z0-9-]+)"', text)) & known
    assert named, "the adapters name the services that they call"
    assert named <= SERVICES


def test_code_archives_hold_the_code_and_nothing_else() -> None:
    with zipfile.ZipFile(library_archive().path) as archive:
        names = archive.namelist()
    assert "python/imageclust/wiring.py" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".onnx")]
    with zipfile.ZipFile(functions_archive().path) as archive:
        assert {f"functions/{name}.py" for name in SHAPES} <= set(archive.namelist())


def test_the_same_files_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaging, "BUILD", tmp_path / "first")
    first = library_archive()
    monkeypatch.setattr(packaging, "BUILD", tmp_path / "second")
    second = library_archive()
    assert first.digest == second.digest
    assert first.path.read_bytes() == second.path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_layer_builds_within_its_budget(name: str) -> None:
    archive = build_dependency_layer(name)
    mib = archive.unzipped_bytes() / 2**20
    assert mib <= dependency_layers()[name].budget_mib
    with zipfile.ZipFile(archive.path) as opened:
        names = opened.namelist()
    libraries = [name for name in names if re.search(r"cpython-\d+-", name)]
    assert all("cpython-313-aarch64-linux-gnu" in library for library in libraries)
    assert all(name.startswith("python/") for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("function", SHAPES)
def test_function_and_its_layers_fit_in_lambda(function: str) -> None:
    archives = [
        functions_archive(),
        library_archive(),
        *(build_dependency_layer(layer) for layer in SHAPES[function].layers),
    ]
    assert len(archives) - 1 <= 5  # layers that a function may have
    assert sum(archive.unzipped_bytes() for archive in archives) < LAMBDA_LIMIT


_IMPORT = """
import importlib, sys

absent = set(sys.argv[1].split(","))

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"{name} is in no layer of this function", name=name)

sys.meta_path.insert(0, Refuse())

from imageclust.embedding import BUILTIN
from imageclust.settings import Settings
from imageclust.wiring import aws_services

services = aws_services(Settings())
for name in sys.argv[2:]:
    importlib.import_module("functions." + name)
    if name in ("plan_run", "embed"):
        assert services.open_embedder(BUILTIN, "default").key
    if name in ("plan_run", "label"):
        assert services.open_labeler("rekognition").key
    if name == "cluster":  # what it loads only where it needs it
        import cv2, numpy
        from imageclust.clustering import cluster_vectors
        from imageclust.duplicates import find_duplicates
        from imageclust.images import decode_image
        from imageclust.labels.fusion import fuse, label_block
        from imageclust.labels.spread import spread_labels
        picture = numpy.zeros((64, 48, 3), numpy.uint8)
        thumbnail = decode_image(cv2.imencode(".webp", picture)[1].tobytes())
        assert thumbnail.pixels.shape == picture.shape
        assert services.open_labeler("rekognition").key
    if name == "draw_map":
        import numpy
        from imageclust.clustering.maps import tsne_map
        rows = numpy.random.default_rng(0).normal(size=(30, 4)).astype(numpy.float32)
        assert tsne_map(rows, numpy.arange(3), seed=0).shape == (30, 2)
    if "describe" in name or "batch" in name:
        services.open_describer("auto", False)
        services.open_batch_describer("auto", False)
"""


@pytest.mark.parametrize("layers", sorted({shape.layers for shape in SHAPES.values()}), ids=str)
def test_functions_import_with_only_their_layers(layers: tuple[str, ...]) -> None:
    """A module that a handler loads and no layer of its function holds would fail at once."""
    held = {package for layer in layers for package in dependency_layers()[layer].packages}
    absent = {
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if not {owner.lower().replace("_", "-") for owner in owners} & {*held, "imageclust"}
    }
    functions = [name for name, shape in SHAPES.items() if shape.layers == layers]
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT, ",".join(sorted(absent)), *functions],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


_EXERCISE = """
import io, numpy, boto3, jinja2, pydantic, cv2, onnxruntime, scipy.cluster.hierarchy, pi_heif
import scipy.optimize, scipy.sparse.csgraph, scipy.spatial
from sklearn.manifold import TSNE
from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType

rows = numpy.random.default_rng(0).random((20, 4))
tree = scipy.cluster.hierarchy.linkage(rows, "ward")
assert scipy.cluster.hierarchy.fcluster(tree, 3, "maxclust").max() == 3
assert scipy.spatial.cKDTree(rows).query(rows[0])[1] == 0
places = TSNE(2, perplexity=5, max_iter=250, random_state=0).fit_transform(rows)
assert numpy.isfinite(places).all()
coded = cv2.imencode(".webp", numpy.zeros((8, 8, 3), numpy.uint8))[1]
assert cv2.imdecode(coded, cv2.IMREAD_COLOR).shape == (8, 8, 3)
assert "CPUExecutionProvider" in onnxruntime.get_available_providers()
boto3.client("s3", region_name="us-east-1")
boto3.client("s3vectors", region_name="us-east-1")
APIGatewayRestResolver(enable_validation=True).get_openapi_schema()
assert jinja2.Template("{{ a }}").render(a=1) == "1"
"""


@pytest.mark.slow
def test_nothing_that_is_left_out_is_missed(tmp_path: Path) -> None:
    """The same packages of this machine, pruned by the same rule, do their work."""
    for layer in SHIPPED:
        for package in dependency_layers()[layer].packages:
            _link_pruned(package, tmp_path)
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.append({str(tmp_path)!r})\n{_EXERCISE}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _link_pruned(package: str, target: Path) -> None:
    for file in importlib.metadata.files(package) or []:
        path = PurePosixPath(file)
        if ".." in path.parts or is_pruned(path):
            continue
        place = target / path
        place.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(Path(str(file.locate())), place)


def test_the_gpu_image_takes_the_locked_onnxruntime() -> None:
    dockerfile = (ROOT / "containers" / "gpu.Dockerfile").read_text("utf-8")
    version = re.search(r"^onnxruntime==(\S+)", locked_requirements()["onnxruntime"])
    assert version is not None
    assert f"ARG ONNXRUNTIME={version[1]}\n" in dockerfile
    copied = set(re.findall(r"^COPY (\w+) \w+$", dockerfile, flags=re.MULTILINE))
    from infra.constructs.gpu import CONTAINER_FILES

    assert copied == set(CONTAINER_FILES) - {"containers"}
