"""What a run did cost: the units that its states counted, times prices, by stage."""

from collections import defaultdict
from collections.abc import Mapping

from imageclust.costs.estimate import DEAREST, STAGES, Place, price_key
from imageclust.models import JSON

_STAGE_OF_FIGURE = {
    "rekognition_image": "labels",
    "rekognition_properties": "labels",
    "rekognition_moderation": "labels",
    "titan_embed_image": "embedding",
    "nova_embed_image": "embedding",
    "gpu_second": "embedding",
    "lambda_request": "workflow",
    "transition": "workflow",
    "table_read": "table",
    "table_write": "table",
    "s3_get": "storage",
    "s3_put": "storage",
    "vector_put_gb": "vectors",
}
_STAGE_OF_STATE = {"Embed": "embedding", "Label": "labels"}  # of their functions' seconds
_BATCH = "batch_"  # before a figure that batch inference sells at its share of the price


def cost_of_units(
    used: Mapping[str, Mapping[str, float]], *, place: Place, seconds_of_embed: str = "embedding"
) -> JSON:
    """Units and US dollars by stage, as a run stores them.

    Args:
        used: state → figure → quantity. A figure is named as in the price file; tokens name the
            model as it was called; ``batch_`` comes before what batch inference did.
        place: where the run happened: its region and prices.
        seconds_of_embed: the stage that the Embed function's seconds belong to: ``embedding``, or
            ``decoding`` where Bedrock embeds.

    A model without a price on file counts as the dearest, and a note says so.
    """
    if place.local:
        return {"region": "local", "usd": 0.0, "stages": {}, "notes": []}
    prices, notes = place.priced().in_region(place.region)
    units: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for state, figures in used.items():
        for figure, quantity in figures.items():
            stage = _stage(figure, state, seconds_of_embed)
            units[stage][figure] += quantity
    stages: dict[str, JSON] = {}
    for stage in STAGES:
        if stage not in units:
            continue
        usd = 0.0
        for figure, quantity in units[stage].items():
            name = figure.removeprefix(_BATCH)
            share = prices.usd["batch_share"] if figure.startswith(_BATCH) else 1.0
            if name.startswith("tokens_"):
                kind, _, model = name.partition("/")
                key = price_key(model, prices)
                if key is None:
                    notes = (*notes, f"no price of {model} is on file: {DEAREST}'s is taken")
                name = f"{kind}/{key or DEAREST}"
            usd += prices.usd[name] * share * quantity
        rounded = {figure: round(quantity, 6) for figure, quantity in units[stage].items()}
        stages[stage] = {"usd": round(usd, 6), "units": rounded}
    return {
        "region": place.region,
        "prices": prices.as_of,
        "usd": round(sum(row["usd"] for row in stages.values()), 6),
        "stages": stages,
        "notes": sorted(set(notes)),
    }


def _stage(figure: str, state: str, seconds_of_embed: str) -> str:
    if figure == "lambda_gb_second":
        stage = _STAGE_OF_STATE.get(state, "workflow")
        return seconds_of_embed if stage == "embedding" else stage
    name = figure.removeprefix(_BATCH)
    return "naming" if name.startswith("tokens_") else _STAGE_OF_FIGURE[name]
