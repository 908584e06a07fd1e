"""The rule for ``max_cost_usd``: what a run gives up before it is refused.

Nothing is spent before the rule has been applied. In this order, each step only if the run is
still too dear and the step makes it cheaper:

1. images are embedded by batch inference, unless the run says ``embed: on_demand``;
2. captions of every image become captions of exemplars, and those no captions;
3. labels of every image become labels of exemplars;
4. names by a model (batch or on demand) become the deterministic describer's;
5. labels of exemplars become no labels.

Moderation is never given up, so the labels of a run with moderation stay as they are. A run that is
still too dear is refused with its lowest cost.
"""

from dataclasses import replace
from typing import Any

from imageclust.costs.estimate import Cached, Estimate, Place, dollars, estimate
from imageclust.errors import OverBudget
from imageclust.models import RunConfig

_STEPS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("images are embedded by batch inference, which may take hours", {"embed": "batch"}),
    ("captions are given to exemplars only, not to every image", {"captions": "exemplars"}),
    ("no captions are given", {"captions": "off"}),
    ("labels are given to exemplars only, not to every image", {"labels": "exemplars"}),
    (
        "clusters are named without a language model",
        {"describer": "deterministic", "descriptions_by": None},
    ),
    ("no labels are given", {"labels": "off", "image_properties": "off"}),
)


def within_budget(
    images: int,
    config: RunConfig,
    *,
    cached: Cached | None = None,
    clusters: int | None = None,
    place: Place | None = None,
) -> tuple[RunConfig, tuple[str, ...]]:
    """The configuration that stays within ``config.max_cost_usd``, and what it gives up.

    Arguments as of ``estimate``. Without a cap the configuration comes back as it is. Raises
    OverBudget when even the cheapest form costs more.
    """
    cap = config.max_cost_usd
    if cap is None:
        return config, ()

    def cost(of: RunConfig) -> Estimate:
        return estimate(images, of, cached=cached, clusters=clusters, place=place)

    asked = lowest = cost(config).usd
    chosen, given_up = config, dict[str, str]()
    for what, change in _STEPS:
        if lowest <= cap:
            break
        if any(getattr(chosen, name) == "off" for name in ("captions", "labels") if name in change):
            continue
        if "embed" in change and chosen.embed != "auto":
            continue
        if "labels" in change and chosen.moderation == "on":
            continue  # a run that was asked to hold pictures back looks at all of them
        cheaper = replace(chosen, **change)
        usd = cost(cheaper).usd
        if usd < lowest:
            chosen, lowest = cheaper, usd
            given_up[next(iter(change))] = what  # none at all goes before fewer
    if lowest > cap:
        raise OverBudget(
            f"the run would cost about {dollars(asked)}, and {dollars(lowest)} at least; "
            f"max_cost_usd is {dollars(cap)}. Raise it, or run on fewer images (sample)."
        )
    if not given_up:
        return config, ()
    why = f"to cost {dollars(lowest)} and not {dollars(asked)} (max_cost_usd {dollars(cap)})"
    return chosen, tuple(f"{what}, {why}" for what in given_up.values())
