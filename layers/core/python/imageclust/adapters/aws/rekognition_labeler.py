"""Labels from Amazon Rekognition."""

import math
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.failures import translated
from imageclust.adapters.aws.pacing import Pace
from imageclust.adapters.aws.pictures import jpeg_within
from imageclust.errors import InvalidInput, Retryable
from imageclust.labels import Label
from imageclust.ports import Labelled

# DetectLabels: JPEG or PNG of at most 5 MB as bytes, sides of 80 to 10,000 pixels.
_MAX_BYTES = 5 * 1024 * 1024
_MIN_SIDE, _MAX_SIDE = 80, 4096
_ATTEMPTS = 8
# One answer takes about half a second; so many requests under way reach the rate, also while some
# of the threads wait to try again.
_SECONDS_A_CALL = 1.2
_MAX_THREADS = 32
_WAITING_A_THREAD = 3
# Sure enough to hold a picture back; what is held back by mistake can still be looked at.
_FLAG_CONFIDENCE = 60.0
_REFUSED = {"InvalidImageFormatException", "ImageTooLargeException", "InvalidParameterException"}


class RekognitionLabeler:
    """``DetectLabels``: the general labels and, on request, ``IMAGE_PROPERTIES``.

    With ``moderation`` each image goes to ``DetectModerationLabels`` too, which is paid beside it.
    The model's version is not known before it answers, so it is in each answer and not in the key.

    Args:
        clients: the AWS clients.
        min_confidence: labels below it (0 to 100) are left out.
        max_labels: at most so many labels an image.
        properties: ask for dominant colours, brightness, sharpness and contrast too.
        moderation: ask what the image shows that not everyone should see.
        pace: limits the requests of this process; None means ``per_second``. Moderation has a
            quota, and so a pace, of its own.
        per_second: requests a second of this process; the account's quota is shared by all.
    """

    min_side = 480

    def __init__(
        self,
        clients: Clients,
        *,
        min_confidence: float = 55.0,
        max_labels: int = 25,
        properties: bool = False,
        moderation: bool = False,
        per_second: float = 50.0,
        pace: Pace | None = None,
    ) -> None:
        if not 0 <= min_confidence <= 100:
            raise InvalidInput(f"The confidence must lie in 0 to 100, not {min_confidence}.")
        if max_labels < 1:
            raise InvalidInput(f"At least one label an image, not {max_labels}.")
        self._clients = clients
        self._min_confidence = min_confidence
        self._max_labels = max_labels
        self._properties = properties
        self._moderation = moderation
        self._pace = pace or Pace(per_second)
        self._moderation_pace = pace or Pace(per_second)
        self._threads = min(_MAX_THREADS, max(1, math.ceil(per_second * _SECONDS_A_CALL)))
        self.key = f"rekognition-general-c{min_confidence:g}-n{max_labels}-p1"
        self.key += "-properties" * properties + f"-m{_FLAG_CONFIDENCE:g}" * moderation

    def label(self, images: Iterable[NDArray[np.uint8]]) -> list[Labelled]:
        """One answer an image, in order; pixels ``(h, w, 3)`` uint8 RGB.

        An image that Rekognition refuses, or that it kept throttling, has its ``error`` set.
        When no image got an answer because the service was throttled or down, that error is
        raised, so that the whole batch is tried again later; so are errors of the account.
        """
        # A batch of large pictures does not wait in memory for its turn.
        room = threading.Semaphore(_WAITING_A_THREAD * self._threads)

        def ask(pixels: NDArray[np.uint8]) -> Labelled | Retryable:
            try:
                return self._label(pixels)
            finally:
                room.release()

        with ThreadPoolExecutor(self._threads) as pool:
            asked = []
            for pixels in images:
                room.acquire()
                asked.append(pool.submit(ask, pixels))
            answers = [future.result() for future in asked]
        failures = [answer for answer in answers if isinstance(answer, Retryable)]
        if failures and len(failures) == len(answers):
            raise failures[0]
        return [
            Labelled(error=str(answer)) if isinstance(answer, Retryable) else answer
            for answer in answers
        ]

    def _label(self, pixels: NDArray[np.uint8]) -> Labelled | Retryable:
        try:
            data = jpeg_within(pixels, min_side=_MIN_SIDE, max_side=_MAX_SIDE, max_bytes=_MAX_BYTES)
            answer = self._pace.call(lambda: self._detect(data), attempts=_ATTEMPTS)
            flags: tuple[Label, ...] = ()
            if self._moderation:
                flags = self._moderation_pace.call(lambda: self._flag(data), attempts=_ATTEMPTS)
        except Retryable as error:
            return error
        except InvalidInput as error:
            return Labelled(error=str(error))
        return Labelled(
            labels=tuple(Label.from_json(label) for label in answer["Labels"] if label.get("Name")),
            moderation=flags,
            properties=answer.get("ImageProperties") or {},
            model_version=answer.get("LabelModelVersion", ""),
        )

    def _detect(self, data: bytes) -> dict[str, Any]:
        with translated("Rekognition", refused=_REFUSED):
            return dict(
                self._clients.rekognition.detect_labels(
                    Image={"Bytes": data},
                    MaxLabels=self._max_labels,
                    MinConfidence=self._min_confidence,
                    Features=["GENERAL_LABELS", "IMAGE_PROPERTIES"]
                    if self._properties
                    else ["GENERAL_LABELS"],
                )
            )

    def _flag(self, data: bytes) -> tuple[Label, ...]:
        with translated("Rekognition", refused=_REFUSED):
            answer = self._clients.rekognition.detect_moderation_labels(
                Image={"Bytes": data}, MinConfidence=_FLAG_CONFIDENCE
            )
        return tuple(
            Label(flag["Name"], flag["Confidence"], (parent,) if parent else ())
            for flag in answer["ModerationLabels"]
            for parent in (flag.get("ParentName"),)
        )
