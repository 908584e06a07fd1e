"""What a run will cost, what it did cost, and the rule that keeps it under a cap."""

from imageclust.costs.budget import within_budget
from imageclust.costs.estimate import (
    Cached,
    Estimate,
    Place,
    StageCost,
    cost_by_stage,
    dollars,
    embeds_in_batch,
    estimate,
    estimate_table,
    expected_clusters,
)
from imageclust.costs.prices import (
    Prices,
    default_prices,
    embedding_figure,
    read_overrides,
)
from imageclust.costs.spent import cost_of_units

__all__ = [
    "Cached",
    "Estimate",
    "Place",
    "Prices",
    "StageCost",
    "cost_by_stage",
    "cost_of_units",
    "default_prices",
    "dollars",
    "embedding_figure",
    "embeds_in_batch",
    "estimate",
    "estimate_table",
    "expected_clusters",
    "read_overrides",
    "within_budget",
]
