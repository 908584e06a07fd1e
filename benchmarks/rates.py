"""Labels and names at a service's rate limit: ``python benchmarks/rates.py [labels|names]``.

Stand-ins answer after a realistic pause, throttle every twentieth request, and throttle whatever
exceeds 50 requests a second. The floor is what 10,000 requests need at that rate.
"""

import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from botocore.awsrequest import AWSResponse
from imageclust import keys
from imageclust.adapters.aws.bedrock_describer import BedrockDescriber, NamingConversation
from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.rekognition_labeler import RekognitionLabeler
from imageclust.models import ClusterBrief, ImageRef
from imageclust.settings import Settings
from imageclust.steps.gather import read_answers
from imageclust.steps.label import LabelBatch, label_batch
from imageclust.steps.plan_run import label_batch_size
from imageclust.wiring import local_services

IMAGES = 10_000
PER_SECOND = 50
THROTTLED = 0.05
FUNCTIONS = Settings().label_concurrency


class Service:
    """A quota of ``PER_SECOND`` with a second's burst, over all clients; thread-safe."""

    def __init__(self, *, pause: float, answer: Callable[[Any], Any], error: str) -> None:
        self._pause, self._answer, self._error = pause, answer, error
        self._lock = threading.Lock()
        self._tokens, self._at = float(PER_SECOND), time.monotonic()
        self._random = random.Random(0)
        self.answered = self.by_chance = self.over = 0

    def send(self, request: Any, **_: Any) -> Any:
        with self._lock:
            now = time.monotonic()
            self._tokens = min(PER_SECOND, self._tokens + (now - self._at) * PER_SECOND)
            self._at = now
            by_chance = self._random.random() < THROTTLED
            over = self._tokens < 1
            if by_chance or over:
                self.by_chance += by_chance
                self.over += over and not by_chance
                return _response(request, 400, {"__type": self._error, "message": "slow down"})
            self._tokens -= 1
            self.answered += 1
            pause = self._pause * self._random.uniform(0.5, 1.5)
        time.sleep(pause)
        return _response(request, 200, self._answer(request))


def _response(request: Any, status: int, body: Any) -> Any:
    headers: Any = {"Content-Type": "application/x-amz-json-1.1"}
    if status != 200:
        headers["x-amzn-errortype"] = body["__type"]
    answer: Any = AWSResponse(request.url, status, headers, None)
    answer._content = json.dumps(body).encode()
    return answer


@contextmanager
def photos() -> Iterator[tuple[Path, list[ImageRef]]]:
    """A state folder with ``IMAGES`` different small photos under ``uploads/``."""
    import hashlib

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        uploads = home / "uploads" / "c"
        uploads.mkdir(parents=True)
        base = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
        refs = []
        for number in range(IMAGES):
            base[:8, :8] = [number % 256, number // 256, 7]
            data = cv2.imencode(".jpg", base)[1].tobytes() + number.to_bytes(4, "big")
            (uploads / f"{number:05d}.jpg").write_bytes(data)
            uri = keys.join_uri("uploads", f"c/{number:05d}.jpg")
            refs.append(ImageRef(hashlib.sha256(data).hexdigest(), uri, len(data)))
        yield home, refs


def labels() -> None:
    """The Label step as the Distributed Map runs it: five functions that share the rate."""
    answer = {"Labels": [{"Name": "Cat", "Confidence": 90.0}], "LabelModelVersion": "3.0"}
    service = Service(
        pause=0.3, answer=lambda _: answer, error="ProvisionedThroughputExceededException"
    )
    with photos() as (home, refs):
        services = local_services(home, workflows=lambda _: None)  # type: ignore[arg-type,return-value]
        size = label_batch_size(Settings(), len(refs))
        batches = [tuple(refs[i : i + size]) for i in range(0, len(refs), size)]
        waiting = iter(batches)
        lock = threading.Lock()

        def function() -> int:
            clients = Clients(region="us-east-1")
            clients.rekognition.meta.events.register("before-send.rekognition", service.send)
            labeler = RekognitionLabeler(clients, per_second=PER_SECOND / FUNCTIONS)
            mine = replace(services, open_labeler=lambda _: labeler)
            failed = 0
            while True:
                with lock:
                    images = next(waiting, None)
                if images is None:
                    return failed
                failed += label_batch(mine, LabelBatch("r", "rekognition", images))["failed"]

        started = time.monotonic()
        with ThreadPoolExecutor(FUNCTIONS) as pool:
            failed = sum(pool.map(lambda _: function(), range(FUNCTIONS)))
        seconds = time.monotonic() - started
        key = RekognitionLabeler(Clients(region="us-east-1")).key
        found = read_answers(services, [ref.image_id for ref in refs], key).labels
        services.close()
    _tell("labels", service, seconds, lost=IMAGES - len(found), failed=failed)


def names() -> None:
    """Names on demand, as one function asks for them."""
    said = json.dumps(
        {"title": "Cats", "phrase": "Cats at home", "description": "Pictures of cats."}
    )
    answer = {
        "output": {"message": {"role": "assistant", "content": [{"text": said}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 900, "outputTokens": 60, "totalTokens": 960},
        "metrics": {"latencyMs": 900},
    }
    service = Service(pause=0.9, answer=lambda _: answer, error="ThrottlingException")
    clients = Clients(region="us-east-1", converse_per_second=PER_SECOND)
    clients.bedrock_runtime.meta.events.register("before-send.bedrock-runtime", service.send)
    describer = BedrockDescriber(clients, NamingConversation("amazon.nova-micro-v1:0"))
    briefs = [
        ClusterBrief(f"c{number:05d}", size=10, labels=(("Cat", 0.9, 5.0),))
        for number in range(IMAGES)
    ]
    started = time.monotonic()
    found = describer.describe(briefs)
    seconds = time.monotonic() - started
    _tell("names", service, seconds, lost=IMAGES - len(found), failed=found.count(None))


def _tell(what: str, service: Service, seconds: float, *, lost: int, failed: int) -> None:
    floor = IMAGES / PER_SECOND
    print(
        f"{what}: {IMAGES:,} in {seconds:.1f} s, {seconds / floor:.3f} x the floor of "
        f"{floor:.0f} s; answered {service.answered:,}, throttled by chance {service.by_chance:,}, "
        f"over the rate {service.over:,}; lost {lost}, failed {failed}; "
        f"{time.process_time():.0f} s of processor"
    )


if __name__ == "__main__":
    import os

    os.environ.setdefault("AWS_ACCESS_KEY_ID", "none")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "none")
    both = {"labels": labels, "names": names}
    for name in sys.argv[1:] or both:
        both[name]()
