"""Prices in one dated file, by region, overridable."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Self

from imageclust.errors import InvalidInput


@dataclass(frozen=True)
class Prices:
    """US dollars a unit by the figure's name, as of a date, in a region.

    ``sources`` says where each figure comes from. ``regional`` holds what differs by region.
    """

    as_of: str
    region: str
    usd: Mapping[str, float]
    sources: Mapping[str, str]
    regional: Mapping[str, Mapping[str, float]]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the form of ``prices.json``. Raises InvalidInput."""
        try:
            figures = dict(data["figures"])
            return cls(
                as_of=str(data["as_of"]),
                region=str(data["region"]),
                usd={name: _price(name, figure["usd"]) for name, figure in figures.items()},
                sources={name: str(figure["source"]) for name, figure in figures.items()},
                regional={
                    region: {name: _price(name, usd) for name, usd in changes.items()}
                    for region, changes in data["regions"].items()
                },
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(f"the price file lacks or misplaces {error}") from error

    def with_overrides(self, overrides: Mapping[str, float]) -> Self:
        """The same with some figures replaced, in every region. Raises InvalidInput."""
        unknown = sorted(set(overrides) - set(self.usd))
        if unknown:
            raise InvalidInput(
                f"there is no price '{unknown[0]}'; the prices are {', '.join(sorted(self.usd))}"
            )
        own = {name: _price(name, usd) for name, usd in overrides.items()}
        return replace(
            self,
            usd={**self.usd, **own},
            sources={**self.sources, **dict.fromkeys(own, "set by you")},
            regional={region: {**rest, **own} for region, rest in self.regional.items()},
        )

    def in_region(self, region: str) -> tuple[Self, tuple[str, ...]]:
        """The prices of a region, and a note where only those of the base region are on file."""
        if region in self.regional:
            usd = {**self.usd, **self.regional[region]}
            return replace(self, region=region, usd=usd), ()
        note = f"no prices of {region} are on file: these are {self.region}'s"
        return self, (note,)


def embedding_figure(model: str) -> str:
    """The price of one image embedded by a model of Bedrock."""
    return "nova_embed_image" if "nova" in model else "titan_embed_image"


@cache
def default_prices() -> Prices:
    """The price file that comes with the library."""
    text = files("imageclust.costs").joinpath("prices.json").read_text("utf-8")
    return Prices.from_json(json.loads(text))


def read_overrides(text: str) -> dict[str, float]:
    """The figures of a JSON object such as ``{"rekognition_image": 0.0008}``; "" has none.

    Raises InvalidInput.
    """
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidInput('prices must be a JSON object such as {"rekognition_image": 0.0008}')
    return {name: _price(name, usd) for name, usd in found.items()}


def _price(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise InvalidInput(f"the price {name} must be a number of US dollars, not {value!r}")
    return float(value)
