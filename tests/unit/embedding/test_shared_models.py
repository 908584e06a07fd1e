"""The real models against a plain reference: numpy preprocessing and a bare onnxruntime call."""

import csv
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from imageclust.embedding import ModelRegistry, open_embedder, open_model

pytestmark = pytest.mark.shared

MODELS = ["mobilenet_v2_1.0_224_w8", "squeezenet_v1.1_fp32"]


@pytest.fixture(scope="module")
def registry(shared: Path) -> ModelRegistry:
    return ModelRegistry(shared / "models")


@pytest.fixture(scope="module")
def photos(shared: Path) -> list[np.ndarray]:
    folder = shared / "data" / "houses_rooms"
    with (folder / "labels.csv").open(newline="") as stream:
        files = [row["file"] for row in csv.DictReader(stream)][:6]
    return [
        np.ascontiguousarray(cv2.imread(str(folder / "images" / file))[..., ::-1]) for file in files
    ]


def plain_bilinear(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Separable triangle filter, widened for reductions (what Pillow calls BILINEAR)."""

    def weights(given: int, wanted: int) -> np.ndarray:
        scale = given / wanted
        support = max(scale, 1.0)
        centres = (np.arange(wanted) + 0.5) * scale
        distance = np.abs(np.arange(given) + 0.5 - centres[:, None]) / support
        table = np.maximum(1 - distance, 0)
        return table / table.sum(axis=1, keepdims=True)

    tall = np.einsum("ri,ijc->rjc", weights(image.shape[0], rows), image.astype(np.float64))
    return np.einsum("cj,rjk->rck", weights(image.shape[1], columns), tall)


@pytest.mark.parametrize("name", MODELS)
def test_features_agree_with_a_plain_reference(
    registry: ModelRegistry, photos: list[np.ndarray], name: str
) -> None:
    model = open_model(name, registry=registry, preprocess="center_crop")
    card = model.card
    session = onnxruntime.InferenceSession(str(model.path), providers=["CPUExecutionProvider"])

    outputs = model.run(photos)

    for at, photo in enumerate(photos):
        rows, columns = photo.shape[:2]
        scale = card.resizing.short_side / min(rows, columns)
        wide = plain_bilinear(photo, round(rows * scale), round(columns * scale))
        top, left = (wide.shape[0] - card.size) // 2, (wide.shape[1] - card.size) // 2
        square = wide[top : top + card.size, left : left + card.size]
        if card.colour == "BGR":
            square = square[..., ::-1]
        values = (square * card.scaling.factor - card.scaling.mean) / card.scaling.std
        batch = values.transpose(2, 0, 1)[None].astype(np.float32)
        features, logits = session.run(["features", "logits"], {"input": batch})
        features = features[0] / np.linalg.norm(features[0])
        assert outputs.features[at] @ features >= 0.999
        assert outputs.logits is not None
        assert outputs.logits[at].argmax() == logits[0].argmax()


def test_rooms_stand_near_their_own_kind(registry: ModelRegistry, photos: list[np.ndarray]) -> None:
    embedder = open_embedder(MODELS[0], registry=registry)
    vectors = embedder.embed(photos)
    mirrored = embedder.embed([np.ascontiguousarray(photo[:, ::-1]) for photo in photos])
    assert ((vectors @ mirrored.T).argmax(axis=1) == np.arange(len(photos))).all()
