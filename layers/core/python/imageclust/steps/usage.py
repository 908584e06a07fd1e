"""What a run bought and did, call by call; its record has the sum, its progress what is done.

An item a call, whether it succeeded or not: a failed attempt was paid too.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from imageclust import keys
from imageclust.costs import Place, cost_of_units
from imageclust.errors import ImageclustError
from imageclust.models import JSON, digest_of
from imageclust.wiring import Services

logger = logging.getLogger(__name__)

_MAPS = ("Embed", "Label")  # states whose calls are children of a Distributed Map
_ORDER = ("PlanRun", "ClusterImages", "DrawMap", "DescribeClusters")
_TRANSITIONS_A_CHILD = 3
_TRANSITIONS_A_RUN = 20


@contextmanager
def metered(services: Services, state: str, event: JSON) -> Iterator[JSON]:
    """Store what the body buys, under the run that ``event`` names.

    What the body puts into the dict is stored too, once it came to its end: see ``progress_of``.
    """
    started = time.time()
    done: JSON = {}
    whole = False
    try:
        yield done
        whole = True
    finally:
        told = done if whole else None
        store_usage(services, state, event, started=started, whole=whole, done=told)


def store_usage(
    services: Services,
    state: str,
    event: JSON,
    *,
    started: float,
    whole: bool = True,
    done: JSON | None = None,
) -> None:
    """Store the units of one call; that they cannot be stored fails no run.

    Args:
        event: the input of the state, with ``run_id`` in it or in its ``BatchInput``.
        started: when the call began, seconds since the epoch.
        whole: whether it came to its end. What a batch job did is counted by the call that reads
            all of its answers, once.
        done: what the call did, None if it did nothing that counts.
    """
    seconds = time.time() - started
    settings = services.settings
    units = services.take_usage()
    if not whole:
        units = {name: n for name, n in units.items() if not name.startswith("batch_")}
    if megabytes := settings.aws_lambda_function_memory_size:
        units |= {"lambda_request": 1.0, "lambda_gb_second": seconds * megabytes / 1024}
    elif settings.paid and settings.device == "cuda":
        units["gpu_second"] = seconds
    if not units and done is None:
        return
    run_id = event.get("run_id") or event["BatchInput"]["run_id"]
    item = {
        "pk": keys.usage_pk(run_id),
        "sk": f"{state}#{round(started * 1000):014d}#{digest_of(event)[:12]}",
        "units": {name: round(quantity, 9) for name, quantity in sorted(units.items())},
        **({} if done is None else {"done": done}),
    }
    try:
        services.table.put(item)
    except ImageclustError as error:
        logger.warning("The units of %s are not stored: %s", state, error)


def progress_of(services: Services, run_id: str) -> JSON:
    """How far a run is: the states that are ``done``, what PlanRun counted, images looked at.

    ``embedded`` and ``labelled`` include the images that were rejected on the way.
    """
    done: list[str] = []
    counted: JSON = {}
    images: dict[str, dict[str, int]] = {"Embed": {}, "EmbedOnGpu": {}, "Label": {}}
    for item in services.table.query(keys.usage_pk(run_id)).items:
        state, _, call = item["sk"].split("#")
        told = item.get("done")
        if told is None:
            continue
        if state in images:
            images[state][call] = told.get("images", 0)  # a call that was made again counts once
        elif told.get("complete", True):
            done += [state] * (state not in done)
            counted |= told.get("counted", {})
    if "PlanRun" not in done:
        return {"done": []}
    return {
        "done": [state for state in _ORDER if state in done],
        **counted,
        "embedded": sum(images["Embed"].values()) + sum(images["EmbedOnGpu"].values()),
        "labelled": sum(images["Label"].values()),
    }


def cost_of_run(services: Services, run_id: str, *, embedder: str = "") -> JSON:
    """Units and US dollars by stage of what the run has bought so far.

    The workflow's transitions are counted from its calls: no service tells them.
    """
    place = Place.of(services.settings)
    if place.local:
        return cost_of_units({}, place=place)
    used: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    transitions = _TRANSITIONS_A_RUN
    for item in services.table.query(keys.usage_pk(run_id)).items:
        state = item["sk"].partition("#")[0]
        transitions += _TRANSITIONS_A_CHILD * (state in _MAPS)
        for figure, quantity in item["units"].items():
            used[state][figure] += quantity
    used["Workflow"]["transition"] = transitions
    return cost_of_units(
        used,
        place=place,
        seconds_of_embed="decoding" if embedder.startswith("amazon.") else "embedding",
    )
