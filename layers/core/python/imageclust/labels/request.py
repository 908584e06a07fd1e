"""What a run asks of a labeler, as one word that states and batches pass on."""

from dataclasses import dataclass
from typing import Self

from imageclust.errors import InvalidInput
from imageclust.models import RunConfig


@dataclass(frozen=True)
class LabelRequest:
    """A labeler by name and what it is asked for; ``str`` of it and ``parse`` are inverse.

    ``min_confidence`` (0 to 100) and ``max_labels`` None mean what the deployment has set.
    ``properties`` asks for colours and quality as the service measures them, ``moderation`` for
    what should not be shown.
    """

    labeler: str
    min_confidence: float | None = None
    max_labels: int | None = None
    properties: bool = False
    moderation: bool = False

    @property
    def by_rekognition(self) -> bool:
        """Whether Rekognition is asked; on AWS ``auto`` means that too."""
        return self.labeler in ("auto", "rekognition")

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """What a run's configuration asks for."""
        return cls(
            config.labeler,
            config.label_min_confidence,
            config.max_labels,
            config.image_properties == "on",
            config.moderation == "on",
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``NAME`` or ``NAME?c=70&n=10&properties&moderation``. Raises InvalidInput."""
        name, _, asked = text.partition("?")
        parts = dict(part.partition("=")[::2] for part in asked.split("&") if part)
        if parts.keys() - {"c", "n", "properties", "moderation"}:
            raise InvalidInput(f"{text!r} is no request of labels")
        try:
            return cls(
                name,
                float(parts["c"]) if "c" in parts else None,
                int(parts["n"]) if "n" in parts else None,
                "properties" in parts,
                "moderation" in parts,
            )
        except ValueError:
            raise InvalidInput(f"{text!r} is no request of labels") from None

    def __str__(self) -> str:
        asked = []
        if self.min_confidence is not None:
            asked.append(f"c={self.min_confidence:g}")
        if self.max_labels is not None:
            asked.append(f"n={self.max_labels}")
        asked += ["properties"] * self.properties + ["moderation"] * self.moderation
        return f"{self.labeler}?{'&'.join(asked)}" if asked else self.labeler
