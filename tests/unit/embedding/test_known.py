"""The catalogue: each entry complete, and its pictures prepared as its publisher does."""

import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from imageclust.embedding import ModelCard, OnnxModel
from imageclust.embedding.known import KNOWN_MODELS
from imageclust.embedding.preprocess import network_input, views
from imageclust.images import decode_image
from PIL import Image

CARDS = {card.name: card for card in KNOWN_MODELS}
TOWERS = ["clip-vit-b32", "siglip2-base-patch16-224"]


def test_the_catalogue_has_the_models_of_the_documentation() -> None:
    assert set(CARDS) == {"resnet50-v1-12", "mobilenetv2-12", *TOWERS}
    assert [name for name, card in CARDS.items() if card.text] == TOWERS


@pytest.mark.parametrize("card", KNOWN_MODELS, ids=CARDS)
def test_every_file_states_address_revision_digest_and_size(card: ModelCard) -> None:
    assert card.licence
    assert card.source
    assert ModelCard.from_json(card.to_json()) == card
    for file in card.files:
        # Pinned: a branch that moves would only ever fail the digest.
        assert re.match(
            r"https://(huggingface\.co/[^/]+/[^/]+/resolve|raw\.githubusercontent\.com/[^/]+/[^/]+)"
            r"/[0-9a-f]{40}/.",
            file.url,
        )
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert file.size_bytes > 10_000
    assert (card.labels_file is None) == (card.logits is None)


def photo(rows: int, columns: int) -> np.ndarray:
    """Edges, ramps and noise: what a filter can get wrong."""
    rng = np.random.default_rng(rows * columns)
    y, x = np.mgrid[0:rows, 0:columns]
    red = 127 + 120 * np.sin(x / 9) * np.cos(y / 13)
    green = np.where((x // 37 + y // 23) % 2, 220, 30)
    blue = 255 * y / rows
    drawn = np.stack([red, green, blue], axis=-1) + rng.normal(0, 12, (rows, columns, 3))
    return np.clip(drawn, 0, 255).astype(np.uint8)


def widened(given: int, wanted: int, kind: str) -> np.ndarray:
    """Weights ``(wanted, given)`` of a filter that widens where it reduces, as Pillow's do."""
    scale = given / wanted
    reach = max(scale, 1.0)
    centres = (np.arange(wanted) + 0.5) * scale
    t = np.abs(np.arange(given) + 0.5 - centres[:, None]) / reach
    if kind == "bilinear":
        table = np.maximum(1 - t, 0)
    else:  # Keys' cubic with a = -1/2
        near = 1.5 * t**3 - 2.5 * t**2 + 1
        far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
        table = np.where(t < 1, near, np.where(t < 2, far, 0))
    return table / table.sum(axis=1, keepdims=True)


def resized(image: np.ndarray, rows: int, columns: int, kind: str) -> np.ndarray:
    down = widened(image.shape[0], rows, kind) @ image.reshape(len(image), -1).astype(np.float64)
    across = down.reshape(rows, image.shape[1], 3)
    done = np.einsum("cj,rjk->rck", widened(image.shape[1], columns, kind), across)
    return np.clip(np.round(done), 0, 255)


def clip_input(image: np.ndarray) -> np.ndarray:
    """CLIP's own rule in plain numpy: short side 224 bicubic, the middle, mean and deviation."""
    rows, columns = image.shape[:2]
    short = min(rows, columns)
    done = resized(image, int(224 * rows / short), int(224 * columns / short), "bicubic")
    top, left = (done.shape[0] - 224) // 2, (done.shape[1] - 224) // 2
    square = done[top : top + 224, left : left + 224] / 255
    mean = np.array([0.48145466, 0.4578275, 0.40821073])
    deviation = np.array([0.26862954, 0.26130258, 0.27577711])
    return ((square - mean) / deviation).transpose(2, 0, 1)


def siglip_input(image: np.ndarray) -> np.ndarray:
    """SigLIP 2's own rule in plain numpy: squashed to 224 bilinear, to -1..1."""
    return (resized(image, 224, 224, "bilinear") / 127.5 - 1).transpose(2, 0, 1)


REFERENCES = {"clip-vit-b32": clip_input, "siglip2-base-patch16-224": siglip_input}


def ours(name: str, image: np.ndarray) -> np.ndarray:
    model = OnnxModel(CARDS[name], Path("absent"))
    squares = views(image, model.card.resizing, model.preprocess)
    return network_input(squares, model.card)[0]


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float((one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("shape", [(480, 640), (901, 333), (224, 224), (150, 199), (230, 1000)])
def test_network_input_is_that_of_the_publishers_rule(name: str, shape: tuple[int, int]) -> None:
    image = photo(*shape)
    found, expected = ours(name, image), REFERENCES[name](image)
    assert found.shape == expected.shape == (3, 224, 224)
    assert cosine(found, expected) >= 0.9999
    # A grey level is 1/255/0.26: rounding between the two passes apart, the same pixels.
    assert np.abs(found - expected).mean() <= 0.25 / 255 / 0.26


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("shape", [(1200, 1600), (600, 400)])
def test_a_file_decoded_at_the_size_needed_comes_close(name: str, shape: tuple[int, int]) -> None:
    smooth = cv2.GaussianBlur(photo(*shape), (0, 0), 2)
    done, data = cv2.imencode(".jpg", smooth[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert done
    model = OnnxModel(CARDS[name], Path("absent"))
    pixels = decode_image(data.tobytes(), min_side=model.min_side).pixels
    with Image.open(io.BytesIO(data.tobytes())) as whole:
        expected = REFERENCES[name](np.asarray(whole.convert("RGB")))
    assert cosine(ours(name, pixels), expected) >= 0.995


def test_default_means_the_rule_that_the_towers_share() -> None:
    named = {name: OnnxModel(card, Path("absent")).preprocess for name, card in CARDS.items()}
    assert named["clip-vit-b32"] == "center_crop"
    assert named["siglip2-base-patch16-224"] == "resize"
    assert named["resnet50-v1-12"] == named["mobilenetv2-12"] == "squeeze"
    chosen = OnnxModel(CARDS["clip-vit-b32"], Path("absent"), preprocess="letterbox")
    assert chosen.preprocess == "letterbox"
