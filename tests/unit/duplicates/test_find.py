import csv
import itertools
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imageclust.duplicates import DuplicateReport, Pictures, Thresholds, find_duplicates
from imageclust.duplicates.verify import unframed
from imageclust.errors import InvalidInput
from imageclust.images import decode_image, fingerprint

from local.demo import FAMILIES
from tests.conftest import PATIENCE

SHARED = Path(__file__).parents[4] / "shared"


def scene(seed: int, *, side: int = 200) -> np.ndarray:
    """A picture of its own: soft colours, hard shapes, some texture."""
    rng = np.random.default_rng(seed)
    soft = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
    picture = cv2.resize(soft, (side, side), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        centre = tuple(int(v) for v in rng.integers(0, side, 2))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        cv2.circle(picture, centre, int(rng.integers(5, side // 6)), colour, -1)
    return picture


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def phash(picture: np.ndarray) -> int:
    _, data = cv2.imencode(".png", picture[:, :, ::-1])
    return int(fingerprint(decode_image(data.tobytes()), data.tobytes()).phash, 16)


def look(pictures: list[np.ndarray], vectors: np.ndarray | None = None, **known) -> Pictures:
    """Pictures whose vectors say nothing unless given, so the hash must find them."""
    if vectors is None:
        vectors = np.eye(len(pictures), dtype=np.float32)
    hashes = np.array([phash(p) for p in pictures], np.uint64)
    return Pictures(hashes, vectors, **known)


def near(pictures: list[np.ndarray]) -> np.ndarray:
    """Vectors that are all alike: every pair must be told apart by its pixels."""
    rng = np.random.default_rng(0)
    return (np.ones(16) + 0.05 * rng.normal(size=(len(pictures), 16))).astype(np.float32)


COPIES = {
    "jpeg": lambda p: jpeg(p, 15),
    "half": lambda p: cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "squashed": lambda p: cv2.resize(p, (200, 130), interpolation=cv2.INTER_AREA),
    "blurred": lambda p: cv2.GaussianBlur(p, (0, 0), 2),
    "brighter": lambda p: cv2.convertScaleAbs(p, alpha=1.1, beta=15),
    "mirrored": lambda p: p[:, ::-1],
    "upside down": lambda p: p[::-1],
    "turned left": lambda p: np.rot90(p),
    "turned right": lambda p: np.rot90(p, 3),
    "grey": lambda p: np.repeat(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2),
}
CUT = {
    "cropped": lambda p: p[12:-12, 12:-12],
    "cropped by a fifth": lambda p: p[20:-20, 20:-20],
    "bordered": lambda p: cv2.copyMakeBorder(p, 10, 10, 10, 10, cv2.BORDER_CONSTANT),
    "tilted": lambda p: cv2.warpAffine(p, cv2.getRotationMatrix2D((100, 100), 4, 1), (200, 200)),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("seed", [1, 2])
def test_copies_are_found_by_hash_where_the_vectors_know_nothing(how, seed):
    pictures = [scene(seed), np.ascontiguousarray(COPIES[how](scene(seed))), scene(seed + 50)]
    assert find_duplicates(look(pictures), pictures.__getitem__).groups == ((0, 1),)


@pytest.mark.parametrize("how", CUT)
@pytest.mark.parametrize("seed", [1, 2])
def test_cut_and_tilted_copies_are_found_by_vector_and_aligned(how, seed):
    pictures = [scene(seed), np.ascontiguousarray(CUT[how](scene(seed))), scene(seed + 50)]
    report = find_duplicates(look(pictures, near(pictures)), pictures.__getitem__)
    assert report.groups == ((0, 1),)


def around(picture, edges, colour):
    """``edges``: top, right, bottom, left."""
    top, right, bottom, left = edges
    kind = cv2.BORDER_CONSTANT
    return cv2.copyMakeBorder(picture, top, bottom, left, right, kind, value=colour)


def captioned(picture):
    barred = around(picture, (0, 0, 30, 0), (250, 250, 250))
    return cv2.putText(barred, "a day out", (10, 222), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0))


def screenshot(picture):
    return around(around(picture, (10, 8, 40, 8), (245, 245, 245)), (18, 0, 0, 0), (40, 40, 48))


FRAMED = {
    "wide frame": lambda p: around(p, (24, 24, 24, 24), (0, 0, 0)),
    "instant print": lambda p: around(p, (14, 14, 48, 14), (250, 248, 240)),
    "bars": lambda p: around(p, (30, 0, 30, 0), (0, 0, 0)),
    "screenshot": screenshot,
    "caption": captioned,
    "cropped and framed": lambda p: around(p[:-20, 20:], (12, 12, 12, 12), (255, 255, 255)),
}


@pytest.mark.parametrize("how", FRAMED)
def test_a_frame_hides_no_copy(how):
    pictures = [scene(seed) for seed in range(4)]
    pictures += [jpeg(FRAMED[how](picture), 85) for picture in pictures]
    report = find_duplicates(look(pictures, near(pictures)), pictures.__getitem__)
    assert report.groups == tuple((row, row + 4) for row in range(4))


def test_the_plain_background_of_a_thing_is_no_frame():
    shown = np.full((120, 160, 3), 252, np.uint8)
    shown[40:90, 50:110] = scene(3)[:50, :60]
    for picture in (shown, scene(3), shown[:1], shown[:2, :2], shown[:, :, 0]):
        assert unframed(picture).shape == picture.shape
    framed = around(shown, (9, 9, 9, 9), (0, 0, 0))
    assert np.array_equal(unframed(framed), shown[1:-1, 1:-1]), "the row at the edge may be mixed"


def test_two_things_over_one_banner_are_no_copies_nor_two_captions_to_one_picture():
    banner = cv2.resize(scene(5), (300, 150))

    def over(said, thing):
        card = around(banner, (150, 0, 0, 0), (255, 255, 255))
        cv2.rectangle(card, *thing, (30, 90, 160), -1)
        cv2.putText(card, said, (10, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 2)
        return card

    def told(said):
        barred = around(banner, (0, 0, 40, 0), (250, 250, 250))
        return cv2.putText(barred, said, (10, 175), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 2)

    bottle, tray = over("Oil", ((130, 30), (170, 140))), over("Tray", ((90, 90), (210, 130)))
    for pictures in ([bottle, tray], [told("a day out"), told("never again")]):
        report = find_duplicates(look(pictures, near(pictures)), pictures.__getitem__)
        assert report.groups == ()
    pictures = [bottle, tray, jpeg(bottle, 70), jpeg(tray, 70)]
    report = find_duplicates(look(pictures, near(pictures)), pictures.__getitem__)
    assert report.groups == ((0, 2), (1, 3))


def test_light_of_another_colour_makes_no_other_picture():
    pictures = [scene(seed) for seed in range(8)]
    warm = np.array([1.12, 1.0, 0.82])
    pictures += [np.clip(picture * warm, 0, 255).astype(np.uint8) for picture in pictures]
    report = find_duplicates(look(pictures, near(pictures)), pictures.__getitem__)
    assert report.groups == tuple((row, row + 8) for row in range(8))


def test_pictures_that_only_have_like_vectors_are_similar_never_duplicates():
    pictures = [scene(seed) for seed in range(8)]
    report = find_duplicates(look(pictures, near(pictures)), pictures.__getitem__)
    assert report.groups == ()
    told = Counter(row for a, b, _ in report.similar for row in (a, b))
    assert report.compared == 28
    assert len(report.similar) < 28
    assert min(told.values()) >= 3
    scores = [score for _, _, score in report.similar]
    assert scores == sorted(scores, reverse=True)
    assert all(a < b for a, b, _ in report.similar)


def test_a_moved_subject_is_a_burst_not_a_copy():
    first, second = scene(4), scene(4)
    cv2.circle(first, (80, 100), 30, (250, 40, 40), -1)
    cv2.circle(second, (115, 100), 30, (250, 40, 40), -1)
    pictures = [first, second]
    report = find_duplicates(look(pictures, near(pictures)), pictures.__getitem__)
    assert report.groups == ()
    assert [(a, b) for a, b, _ in report.similar] == [(0, 1)]


def test_the_same_shot_in_another_colour_is_another_picture():
    picture = scene(5)
    recoloured = np.ascontiguousarray(
        cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)[:, :, [0, 2, 1]], cv2.COLOR_LAB2RGB)
    )
    pictures = [picture, recoloured]
    assert find_duplicates(look(pictures, near(pictures)), pictures.__getitem__).groups == ()


def test_two_shots_of_different_times_are_a_burst_however_alike():
    pictures = [scene(6), jpeg(scene(6), 60), jpeg(scene(6), 40)]
    taken = ["2024-05-01T10:00:00", "2024-05-01T10:00:01", None]
    report = find_duplicates(look(pictures, near(pictures), taken_at=taken), pictures.__getitem__)
    assert not any({0, 1} <= set(group) for group in report.groups)
    assert (0, 1) in [(a, b) for a, b, _ in report.similar]


def test_plain_pictures_are_never_copies():
    pictures = [np.full((64, 64, 3), level, np.uint8) for level in (20, 20, 200)]
    assert find_duplicates(look(pictures, near(pictures)), pictures.__getitem__).groups == ()


@pytest.mark.parametrize("family", ["night", "sunset", "chess", "stripes", "mountains"])
def test_pictures_with_little_to_tell_them_by_are_no_copies(family):
    """An affine map lays any moon on any moon, any board on any board."""
    draw = FAMILIES[family]
    pictures = [draw(np.random.default_rng([8, row]), 320, 240) for row in range(12)]
    report = find_duplicates(look(pictures, near(pictures)), pictures.__getitem__)
    assert report.groups == ()
    assert report.similar


@pytest.mark.parametrize("family", ["night", "chess", "stripes"])
def test_of_such_pictures_what_lies_pixel_on_pixel_is_a_copy(family):
    picture = FAMILIES[family](np.random.default_rng(3), 320, 240)
    turned = np.ascontiguousarray(np.rot90(jpeg(picture, 85)))
    cropped = np.ascontiguousarray(picture[20:-20, 20:-20])
    pictures = [picture, turned, cropped]
    report = find_duplicates(look(pictures, near(pictures)), pictures.__getitem__)
    assert report.groups == ((0, 1),)


def test_a_form_filled_in_otherwise_is_another_document():
    def form(seed):
        rng = np.random.default_rng(seed)
        page = np.full((400, 300, 3), 250, np.uint8)
        for line in range(11):
            place = (12, 40 + 33 * line)
            cv2.putText(page, f"Question {line}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (20,) * 3)
            value = str(rng.integers(10**6, 10**8))
            cv2.putText(page, value, (150, place[1]), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (120, 20, 20))
        return page

    pictures = [form(seed) for seed in range(6)] + [jpeg(form(0), 60)]
    report = find_duplicates(look(pictures, near(pictures)), pictures.__getitem__)
    assert report.groups == ((0, 6),)


def test_gradients_are_never_copies():
    pictures = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        corners = rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)
        pictures.append(cv2.resize(corners, (240, 180), interpolation=cv2.INTER_LINEAR))
    report = find_duplicates(look(pictures, near(pictures)), pictures.__getitem__)
    assert report.groups == ()


def test_a_pan_is_not_collapsed_into_its_first_frame():
    wide = cv2.resize(scene(8, side=400), (1200, 300))
    pictures = [np.ascontiguousarray(wide[:, x : x + 300]) for x in range(0, 900, 25)]
    report = find_duplicates(look(pictures, near(pictures)), pictures.__getitem__)
    assert all(max(group) - min(group) <= 3 for group in report.groups)


def test_the_keeper_has_most_pixels_then_most_sharpness():
    pictures = [scene(9), jpeg(scene(9), 40), jpeg(scene(9), 60)]
    known = look(
        pictures, pixels=np.array([10_000, 40_000, 39_000]), sharpness=np.array([0.9, 0.4, 0.6])
    )
    report = find_duplicates(known, pictures.__getitem__)
    assert report.groups == ((0, 1, 2),)
    assert report.keepers == (2,)
    assert report.duplicate_of() == {0: 2, 1: 2}


@pytest.mark.parametrize("draw", ["city", "autumn", "mountains"])
def test_the_keeper_is_the_original_not_what_blocks_or_blur_made_of_it(draw):
    """Blocks of a strong compression measure as sharpness, and blur without loss is large."""
    original = FAMILIES[draw](np.random.default_rng(3), 384, 288)
    files = [
        cv2.imencode(".jpg", original[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, q])[1].tobytes()
        for q in (92, 10, 20, 30, 50, 70)
    ]
    soft = cv2.GaussianBlur(original, (0, 0), 2)
    files.append(cv2.imencode(".png", soft[:, :, ::-1])[1].tobytes())
    decoded = [decode_image(data) for data in files]
    facts = [fingerprint(picture, data) for picture, data in zip(decoded, files, strict=True)]
    pictures = [picture.pixels for picture in decoded]
    known = Pictures(
        np.array([int(fact.phash, 16) for fact in facts], np.uint64),
        near(pictures),
        pixels=np.array([picture.width * picture.height for picture in decoded]),
        sharpness=np.array([fact.sharpness for fact in facts]),
        sizes=np.array([len(data) for data in files]),
    )
    report = find_duplicates(known, pictures.__getitem__)
    assert report.groups
    assert all(
        keeper == group[0] for group, keeper in zip(report.groups, report.keepers, strict=True)
    )
    assert len(report.duplicate_of()) >= 4


def test_the_user_may_choose_the_keeper():
    pictures = [scene(9), jpeg(scene(9), 40)]
    known = look(pictures, pixels=np.array([10_000, 40_000]))
    assert find_duplicates(known, pictures.__getitem__, keep={0}).keepers == (0,)


def test_thumbnails_are_read_ahead_together_and_few_at_a_time():
    """A store answers each request late: one after the other would take a second."""
    pictures = [scene(seed) for seed in range(40)] + [jpeg(scene(seed), 40) for seed in range(40)]
    lock, under_way, most = threading.Lock(), [0], [0]
    together = threading.Event()
    asked = Counter()

    def slow(row):
        with lock:
            asked[row] += 1
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
            if under_way[0] >= 8:
                together.set()
        together.wait(PATIENCE)
        time.sleep(0.005)
        with lock:
            under_way[0] -= 1
        return pictures[row]

    report = find_duplicates(look(pictures, near(pictures)), slow)
    assert len(report.groups) == 40
    assert together.is_set()
    assert most[0] <= 32
    assert set(asked) == set(range(80))
    assert max(asked.values()) <= 2
    assert find_duplicates(look(pictures, near(pictures)), pictures.__getitem__) == report


def test_a_missing_thumbnail_confirms_nothing():
    pictures = [scene(9), jpeg(scene(9), 40)]
    assert find_duplicates(look(pictures), lambda _: None).groups == ()


def test_grey_thumbnails_will_do():
    pictures = [scene(9), jpeg(scene(9), 40)]
    greys = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in pictures]
    assert find_duplicates(look(pictures), greys.__getitem__).groups == ((0, 1),)


@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(9)))
def test_the_answer_does_not_depend_on_the_order(order):
    made = [scene(s) for s in range(3)]
    pictures = [
        copy for p in made for copy in (p, jpeg(p, 50), np.ascontiguousarray(p[8:-8, 8:-8]))
    ]
    vectors = near(pictures)
    straight = find_duplicates(look(pictures, vectors), pictures.__getitem__)
    shuffled = [pictures[row] for row in order]
    report = find_duplicates(look(shuffled, vectors[list(order)]), shuffled.__getitem__)
    assert {frozenset(order[row] for row in group) for group in report.groups} == {
        frozenset(group) for group in straight.groups
    }
    assert {order[row] for row in report.keepers} == set(straight.keepers)
    assert len(straight.groups) == 3


@pytest.mark.parametrize("n", [0, 1])
def test_none_or_one_picture_has_no_copies(n):
    report = find_duplicates(
        Pictures(np.ones(n, np.uint64), np.ones((n, 4), np.float32)), lambda _: None
    )
    assert (report.groups, report.keepers, report.similar) == ((), (), ())


def test_vectors_that_are_zero_or_not_finite_do_no_harm():
    pictures = [scene(9), jpeg(scene(9), 40), scene(60), scene(61)]
    vectors = np.zeros((4, 8), np.float32)
    vectors[1] = np.nan
    report = find_duplicates(look(pictures, vectors), pictures.__getitem__)
    assert report.groups == ((0, 1),)
    assert find_duplicates(look(pictures, vectors[:, :0]), pictures.__getitem__).groups == ((0, 1),)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"vectors": np.ones((3, 4))}, "2 hashes but vectors"),
        ({"pixels": np.ones(5)}, "5 values of pixels"),
        ({"taken_at": ["2024"]}, "1 values of taken_at"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(known, message):
    arrays = {"phashes": np.ones(2, np.uint64), "vectors": np.ones((2, 4)), **known}
    with pytest.raises(InvalidInput, match=message):
        find_duplicates(Pictures(**arrays), lambda _: None)


def test_a_row_to_keep_must_exist():
    with pytest.raises(InvalidInput, match="rows to keep"):
        find_duplicates(Pictures(np.ones(2, np.uint64), np.ones((2, 4))), lambda _: None, keep=[2])


def test_the_bar_rises_with_the_size_of_the_collection():
    small, large = Thresholds.for_size(500), Thresholds.for_size(50_000)
    assert small == Thresholds.for_size(1000)
    assert large.cosine > small.cosine
    assert large.structure > small.structure
    assert Thresholds.for_size(10**9).structure < 1


def test_an_empty_report_names_no_duplicates():
    assert DuplicateReport().duplicate_of() == {}


@pytest.mark.shared
@pytest.mark.slow
def test_photos_with_known_copies():
    folder = SHARED / "data" / "near_duplicates"
    if not folder.exists():
        pytest.skip("needs ../shared/data/near_duplicates")
    rows = list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))
    thumbs, hashes, vectors = [], [], []
    for row in rows:
        data = (folder / "images" / row["file"]).read_bytes()
        decoded = decode_image(data, min_side=128)
        hashes.append(int(fingerprint(decoded, data).phash, 16))
        shown = cv2.resize(decoded.pixels, (128, 128), interpolation=cv2.INTER_AREA)
        thumbs.append(shown)
        # A crude stand-in for a network: the middle of the picture, blurred, without its mean.
        soft = cv2.resize(shown[16:-16, 16:-16], (12, 12), interpolation=cv2.INTER_AREA)
        grey = soft.astype(np.float32).ravel()
        vectors.append(grey - grey.mean())
    report = find_duplicates(
        Pictures(np.array(hashes, np.uint64), np.array(vectors)), thumbs.__getitem__
    )
    groups = defaultdict(list)
    for place, row in enumerate(rows):
        groups[row["group"]].append(place)
    truth = {pair for group in groups.values() for pair in itertools.combinations(group, 2)}
    found = {pair for group in report.groups for pair in itertools.combinations(group, 2)}
    assert len(found & truth) / len(found) >= 0.99
    assert len(found & truth) / len(truth) >= 0.85
