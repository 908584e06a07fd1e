from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest
from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.pacing import Pace
from imageclust.adapters.aws.pictures import jpeg_within
from imageclust.adapters.aws.rekognition_labeler import RekognitionLabeler
from imageclust.errors import InvalidInput, Permanent, StoreUnavailable, Throttled
from numpy.typing import NDArray

from tests.standins.fake_rekognition import MODEL_VERSION, FakeRekognition


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def service(clients: Clients) -> Iterator[FakeRekognition]:
    with FakeRekognition().serve() as made:
        yield made


@pytest.fixture
def labeler(clients: Clients, service: FakeRekognition) -> RekognitionLabeler:
    clock = Clock()
    pace = Pace(50, clock=clock, sleep=clock.sleep)
    return RekognitionLabeler(clients, pace=pace, max_labels=3)


def decoded(data: bytes) -> NDArray[np.uint8]:
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert found is not None
    return np.asarray(found, np.uint8)


def pictures(count: int) -> list[NDArray[np.uint8]]:
    colours = np.random.default_rng(0).integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
    return [np.broadcast_to(colour, (80, 90, 3)).copy() for colour in colours]


def test_with_a_tenth_throttled_nothing_is_lost(
    labeler: RekognitionLabeler, service: FakeRekognition
) -> None:
    expected = labeler.label(pictures(200))
    service.throttle_share = 0.1
    answers = labeler.label(pictures(200))
    assert answers == expected
    assert service.throttled >= 20
    assert all(answer.model_version == MODEL_VERSION for answer in answers)
    assert all(1 <= len(answer.labels) <= 3 for answer in answers)
    assert all(label.confidence >= 55 for answer in answers for label in answer.labels)


def test_a_refused_image_fails_alone(labeler: RekognitionLabeler, service: FakeRekognition) -> None:
    service.refuse = lambda picture: bool(picture.mean() > 250)
    white = np.full((90, 90, 3), 255, np.uint8)
    first, second, third = labeler.label([pictures(1)[0], white, pictures(1)[0]])
    assert first == third
    assert first.error == ""
    assert second.labels == ()
    assert "InvalidImageFormatException" in second.error


def test_a_service_that_only_throttles(
    labeler: RekognitionLabeler, service: FakeRekognition
) -> None:
    service.throttle_share = 1.0
    with pytest.raises(Throttled):
        labeler.label(pictures(2))
    assert service.calls == 16


def test_some_images_throttled_to_the_end(
    labeler: RekognitionLabeler, service: FakeRekognition, monkeypatch: pytest.MonkeyPatch
) -> None:
    detect = labeler._detect

    def fail_white(data: bytes) -> object:
        if decoded(data).mean() > 250:
            raise Throttled("slow down")
        return detect(data)

    monkeypatch.setattr(labeler, "_detect", fail_white)
    white = np.full((90, 90, 3), 255, np.uint8)
    first, second = labeler.label([pictures(1)[0], white])
    assert (first.error, second.error) == ("", "slow down")


def test_no_permission_is_an_error_of_the_account(
    labeler: RekognitionLabeler, service: FakeRekognition
) -> None:
    service.denied = True
    with pytest.raises(Permanent, match="AccessDenied"):
        labeler.label(pictures(3))


def test_settings_are_part_of_the_key(clients: Clients) -> None:
    keys = {
        RekognitionLabeler(clients, min_confidence=confidence, max_labels=labels).key
        for confidence in (55.0, 55.5)
        for labels in (10, 25)
    }
    assert len(keys) == 4
    with pytest.raises(InvalidInput):
        RekognitionLabeler(clients, min_confidence=101)
    with pytest.raises(InvalidInput):
        RekognitionLabeler(clients, max_labels=0)


def test_the_pace_is_even_and_saves_no_turns() -> None:
    clock = Clock()
    pace = Pace(10, clock=clock, sleep=clock.sleep)
    times = []
    for number in range(30):
        if number == 10:
            clock.now += 5
        pace.wait()
        times.append(clock.now)
    assert times[9] == pytest.approx(0.9)
    assert times[10] == pytest.approx(5.9)
    assert times[29] == pytest.approx(5.9 + 1.9)


def test_every_attempt_takes_a_turn() -> None:
    clock = Clock()
    pace = Pace(10, clock=clock, sleep=clock.sleep)
    calls: list[float] = []

    def fail() -> None:
        calls.append(clock.now)
        raise StoreUnavailable("later")

    with pytest.raises(StoreUnavailable):
        pace.call(fail, attempts=5)
    assert len(calls) == 5
    assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(calls))
    with pytest.raises(ZeroDivisionError):
        pace.call(lambda: 1 / 0, attempts=5)
    for rate in (0.0, -1.0, float("nan")):
        with pytest.raises(InvalidInput):
            Pace(rate)


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 9), (79, 200), (80, 80), (3, 20_000), (5000, 30), (2500, 5000)]
)
def test_any_picture_fits(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    data = jpeg_within(noise, min_side=80, max_side=4096, max_bytes=1_000_000)
    assert len(data) <= 1_000_000
    found = decoded(data)
    rows, columns = found.shape[:2]
    assert min(rows, columns) >= 80
    assert max(rows, columns) <= 4096
    if min(shape) >= 80:
        assert columns / rows == pytest.approx(shape[1] / shape[0], rel=0.01)


def test_colours_and_content_are_kept() -> None:
    image = np.zeros((100, 160, 3), np.uint8)
    image[:, :80] = (200, 30, 40)
    image[:, 80:] = (10, 60, 220)
    data = jpeg_within(image, min_side=80, max_side=4096, max_bytes=5_000_000)
    found = decoded(data)[:, :, ::-1]
    assert found.shape == image.shape
    assert np.abs(found[:, :70].astype(int) - image[:, :70]).max() < 12
    assert np.abs(found[:, 90:].astype(int) - image[:, 90:]).max() < 12


def test_what_is_no_picture() -> None:
    bad_ones: list[Any] = [
        np.zeros((5, 5), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 5, 3)),
    ]
    for bad in bad_ones:
        with pytest.raises(InvalidInput):
            jpeg_within(bad, min_side=80, max_side=4096, max_bytes=1000)
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    with pytest.raises(InvalidInput, match="500 bytes"):
        jpeg_within(noise, min_side=80, max_side=4096, max_bytes=500)


def test_properties_and_moderation_are_asked_for_on_request(
    clients: Clients, service: FakeRekognition
) -> None:
    service.unfit = lambda picture: picture.mean() > 128
    clock = Clock()
    pace = Pace(50, clock=clock, sleep=clock.sleep)
    labeler = RekognitionLabeler(clients, pace=pace, properties=True, moderation=True)
    clients.meter.take()
    bright, dark = np.full((90, 90, 3), 250, np.uint8), np.full((90, 90, 3), 5, np.uint8)
    shown, hidden = labeler.label([dark, bright])
    assert (shown.moderation, [flag.name for flag in hidden.moderation]) == ((), ["Weapons"])
    assert hidden.moderation[0].parents == ("Violence",)
    assert shown.properties["Quality"]["Brightness"] < hidden.properties["Quality"]["Brightness"]
    assert service.calls == 4
    assert clients.meter.take() == {
        "rekognition_image": 2, "rekognition_properties": 2, "rekognition_moderation": 2,
    }  # fmt: skip
    plain = RekognitionLabeler(clients, pace=pace)
    assert plain.label([bright])[0].properties == {}
    assert len({labeler.key, plain.key, RekognitionLabeler(clients, moderation=True).key}) == 3


def test_an_image_whose_moderation_stays_throttled_is_asked_again(
    clients: Clients, service: FakeRekognition, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    pace = Pace(50, clock=clock, sleep=clock.sleep)
    labeler = RekognitionLabeler(clients, pace=pace, moderation=True)

    def busy(_: bytes) -> None:
        raise Throttled("slow down")

    monkeypatch.setattr(labeler, "_flag", busy)
    with pytest.raises(Throttled):
        labeler.label(pictures(2))


def test_a_smaller_quota_is_found_and_a_few_throttled_requests_cost_no_speed() -> None:
    clock = Clock()

    def serve(limit: float, chance: float, count: int) -> tuple[float, float]:
        """Seconds for ``count`` answers and the share of requests that were throttled."""
        pace = Pace(50, clock=clock, sleep=clock.sleep)
        random = np.random.default_rng(0)
        tokens, at, asked, started = 1.0, clock.now, 0, clock.now

        def ask() -> None:
            nonlocal tokens, at, asked
            asked += 1
            tokens = min(limit, tokens + (clock.now - at) * limit)
            at = clock.now
            if tokens < 1 or random.random() < chance:
                raise Throttled("slow down")
            tokens -= 1

        for _ in range(count):
            pace.call(ask, attempts=8)
        return clock.now - started, 1 - count / asked

    # One thread that sleeps between its own attempts is slower than the rate; the share is told.
    seconds, share = serve(limit=5, chance=0, count=1000)
    assert seconds < 1.3 * 1000 / 5
    assert share < 0.25
    seconds, _ = serve(limit=1000, chance=0.05, count=1000)
    assert seconds < 1.5 * 1000 / 50
