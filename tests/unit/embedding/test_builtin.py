"""The built-in descriptor: canonical vectors, and what must and must not change a vector."""

import cv2
import numpy as np
import pytest
from imageclust.embedding import BuiltinDescriptor
from imageclust.errors import InvalidInput

# Ten fixed projections of each canonical picture's vector. A change here means that vectors have
# changed: raise the descriptor's version, which is part of every cache key.
CANONICAL: dict[str, list[float]] = {
    "ramp": [0.4335, 0.2928, -0.0364, -0.1993, -0.0267, 0.1905, 1.3722, 0.082, 6.0735, 0.0081],
    "checks": [-0.2851, 0.5564, -0.2725, -0.121, -0.146, -0.6268, 0.0007, 0.1591, 2.7753, -0.2367],
    "rings": [0.2811, 0.03, 0.1149, -0.0194, -0.1181, 0.1423, 0.0231, 0.1642, 6.6076, -0.0859],
}


def canonical_pictures() -> dict[str, np.ndarray]:
    """Pictures from exact integer arithmetic, the same on every machine."""
    y, x = np.mgrid[0:240, 0:320]
    ramp = np.stack([x * 255 // 319, y * 255 // 239, (x + y) * 255 // 558], axis=-1)
    checks = np.where(((x // 20 + y // 30) % 2 == 0)[..., None], (220, 40, 30), (20, 60, 200))
    rings = ((x - 160) ** 2 + (y - 120) ** 2) // 700 % 2 * 200 + 20
    pictures = {"ramp": ramp, "checks": checks, "rings": np.stack([rings] * 3, axis=-1)}
    return {name: picture.astype(np.uint8) for name, picture in pictures.items()}


def projections(vector: np.ndarray) -> np.ndarray:
    index = np.arange(len(vector))
    return np.array([vector @ np.cos(index * 0.7 * (j + 1)) for j in range(10)])


@pytest.fixture(scope="module")
def descriptor() -> BuiltinDescriptor:
    return BuiltinDescriptor(threads=1)


@pytest.mark.parametrize("name", list(canonical_pictures()))
def test_canonical_vectors(descriptor: BuiltinDescriptor, name: str) -> None:
    assert descriptor.key == "builtin-v3"
    (vector,) = descriptor.embed([canonical_pictures()[name]])
    np.testing.assert_allclose(projections(vector), CANONICAL[name], atol=5e-3)


def test_rows_have_length_one_whatever_the_picture(descriptor: BuiltinDescriptor) -> None:
    images = [np.full((h, w, 3), 90, np.uint8) for h, w in [(1, 1), (1, 500), (700, 2), (64, 64)]]
    images += [np.zeros((30, 30, 3), np.uint8), np.full((30, 30, 3), 255, np.uint8)]
    vectors = descriptor.embed(images)
    assert vectors.shape == (6, descriptor.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_no_pictures(descriptor: BuiltinDescriptor) -> None:
    assert descriptor.embed([]).shape == (0, descriptor.dimension)


def test_threads_do_not_change_vectors(descriptor: BuiltinDescriptor) -> None:
    images = list(canonical_pictures().values()) * 3
    assert np.array_equal(descriptor.embed(images), BuiltinDescriptor(threads=3).embed(images))


def test_mirror_size_and_compression_hardly_matter(descriptor: BuiltinDescriptor) -> None:
    pictures = canonical_pictures()
    others = descriptor.embed(list(pictures.values()))
    apart = (others @ others.T)[np.triu_indices(3, 1)].max()
    for image in pictures.values():
        _, packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])
        variants = [
            image,
            np.ascontiguousarray(image[:, ::-1]),
            cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA),
            cv2.imdecode(packed, cv2.IMREAD_COLOR),
        ]
        vectors = descriptor.embed(variants)
        assert (vectors @ vectors[0]).min() > apart


def test_colour_alone_tells_pictures_apart(descriptor: BuiltinDescriptor) -> None:
    rings = canonical_pictures()["rings"]
    red, blue = rings.copy(), rings.copy()
    red[..., 1:] = 30
    blue[..., :2] = 30
    vectors = descriptor.embed([red, red // 10 * 10, blue])
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def test_other_arrays_are_refused(descriptor: BuiltinDescriptor) -> None:
    with pytest.raises(InvalidInput, match="RGB"):
        descriptor.embed([np.zeros((10, 10), np.uint8)])
    with pytest.raises(InvalidInput, match="threads"):
        BuiltinDescriptor(threads=-1)
