"""One label of one image, in the JSON form that Rekognition uses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from imageclust.errors import InvalidInput
from imageclust.models import JSON


@dataclass(frozen=True)
class Label:
    """What an image shows: a name, how sure we are (0 to 100), and what it is a kind of.

    ``parents`` go from the nearest to the most general.
    """

    name: str
    confidence: float
    parents: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise InvalidInput("a label needs a name")
        if not 0 <= self.confidence <= 100:
            raise InvalidInput(f"confidence must lie between 0 and 100, not {self.confidence}")

    def to_json(self) -> JSON:
        return {
            "Name": self.name,
            "Confidence": round(self.confidence, 2),
            "Parents": [{"Name": name} for name in self.parents],
            "Categories": [{"Name": name} for name in self.categories],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read our own form or a label of a DetectLabels answer; other fields are ignored."""
        return cls(
            name=str(data["Name"]),
            confidence=float(data["Confidence"]),
            parents=tuple(str(parent["Name"]) for parent in data.get("Parents") or ()),
            categories=tuple(str(item["Name"]) for item in data.get("Categories") or ()),
        )
