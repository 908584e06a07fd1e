"""What a run will cost, what it did cost, and the rule that keeps it under a cap."""

from imageclust.costs.budget import within_budget
from imageclust.costs.estimate import (
    Cached,
    Estimate,
    Place,
    StageCost,
    cost_by_stage,
    estimate,
    estimate_table,
    expected_clusters,
)
from imageclust.costs.prices import Prices, default_prices

__all__ = [
    "Cached",
    "Estimate",
    "Place",
    "Prices",
    "StageCost",
    "cost_by_stage",
    "default_prices",
    "estimate",
    "estimate_table",
    "expected_clusters",
    "within_budget",
]
