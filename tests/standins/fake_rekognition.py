"""Rekognition: labels by colour and brightness, moderation on request, real limits, throttling."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from moto.rekognition.responses import RekognitionResponse
from numpy.typing import NDArray

from tests.standins.endpoint import AwsError, served

MODEL_VERSION = "3.0"
_COLOURS = ["Red", "Yellow", "Green", "Cyan", "Blue", "Magenta"]


class FakeRekognition:
    """Answers from the pixels alone, so the same picture always has the same labels.

    Args:
        throttle_share: share of requests, evenly spread, that are throttled.
        refuse: pictures ``(h, w, 3)`` BGR for which it says InvalidImageFormatException.
        unfit: pictures that moderation flags.

    ``calls`` counts requests, ``throttled`` those among them that were throttled.
    """

    def __init__(
        self,
        *,
        throttle_share: float = 0.0,
        refuse: Callable[[NDArray[np.uint8]], bool] = lambda picture: False,
        unfit: Callable[[NDArray[np.uint8]], bool] = lambda picture: False,
    ) -> None:
        self.throttle_share = throttle_share
        self.refuse = refuse
        self.unfit = unfit
        self.denied = False
        self.calls = 0
        self.throttled = 0
        self._due = 0.0
        self.sizes: list[tuple[int, int]] = []

    @contextmanager
    def serve(self) -> Iterator["FakeRekognition"]:
        """Answer both operations while moto is on."""
        operations = {"DetectLabels": self._detect, "DetectModerationLabels": self._flag}
        with served(RekognitionResponse, "rekognition", operations):
            yield self

    def _detect(self, request: dict[str, Any]) -> dict[str, Any]:
        picture = self._picture(request)
        labels = [
            label
            for label in _labels(picture)
            if label["Confidence"] >= request.get("MinConfidence", 55)
        ]
        answer = {
            "Labels": labels[: request.get("MaxLabels", 1000)],
            "LabelModelVersion": MODEL_VERSION,
        }
        if "IMAGE_PROPERTIES" in request.get("Features", ()):
            quality = {"Brightness": float(picture.mean()) / 2.55, "Sharpness": 50.0}
            answer["ImageProperties"] = {"Quality": {**quality, "Contrast": 50.0}}
        return answer

    def _flag(self, request: dict[str, Any]) -> dict[str, Any]:
        flag = {"Name": "Weapons", "ParentName": "Violence", "Confidence": 91.0, "TaxonomyLevel": 2}
        unfit = self.unfit(self._picture(request))
        flags = [flag] if unfit and flag["Confidence"] >= request.get("MinConfidence", 50) else []
        return {"ModerationLabels": flags, "ModerationModelVersion": "7.0"}

    def _picture(self, request: dict[str, Any]) -> NDArray[np.uint8]:
        """The picture of a request that is neither throttled nor refused."""
        self.calls += 1
        if self.denied:
            raise AwsError("AccessDeniedException", "not authorized: rekognition:DetectLabels")
        self._due += self.throttle_share
        if self._due >= 1:
            self._due -= 1
            self.throttled += 1
            raise AwsError("ProvisionedThroughputExceededException", "Provisioned rate exceeded")
        data = request["Image"]["Bytes"]
        if len(data) > 5 * 1024 * 1024:
            raise AwsError("ImageTooLargeException", "Request has Invalid image size")
        if data[:2] != b"\xff\xd8" and data[:4] != b"\x89PNG":
            raise AwsError("InvalidImageFormatException", "Request has invalid image format")
        picture = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
        if picture.ndim != 3 or self.refuse(picture):
            raise AwsError("InvalidImageFormatException", "Request has invalid image format")
        rows, columns = picture.shape[:2]
        self.sizes.append((columns, rows))
        if min(rows, columns) < 80 or max(rows, columns) > 10_000:
            raise AwsError("InvalidParameterException", "Request has invalid image size")
        return picture


def _labels(picture: NDArray[np.uint8]) -> list[dict[str, Any]]:
    small = cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA)
    hue, saturation, value = (float(x) for x in cv2.cvtColor(small, cv2.COLOR_BGR2HSV).mean((0, 1)))
    colour = _COLOURS[int((hue * 2 + 30) // 60) % 6] if saturation > 50 else "Grey"
    light = "Bright" if value > 128 else "Dark"
    return [
        _label(light, 99.0, ()),
        _label(colour, 60 + 0.15 * saturation, ("Colour",)),
        _label("Colour", 60 + 0.15 * saturation, ()),
        _label("Picture", 56.0, ()),
    ]


def _label(name: str, confidence: float, parents: tuple[str, ...]) -> dict[str, Any]:
    return {
        "Name": name,
        "Confidence": confidence,
        "Instances": [],
        "Parents": [{"Name": parent} for parent in parents],
        "Aliases": [],
        "Categories": [{"Name": "Colors and Visual Composition"}],
    }
