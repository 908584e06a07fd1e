"""Labels from an ONNX classifier on this machine, answered as Rekognition answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imageclust.embedding import OnnxModel
from imageclust.errors import InvalidInput
from imageclust.labels import LabelSet, classify
from imageclust.labels.classify import MAX_LABELS, MIN_CONFIDENCE, TEMPERATURE
from imageclust.models import digest_of
from imageclust.ports import Labelled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class OnnxLabeler:
    """The classes of an ONNX model with their parents.

    Args:
        model: a model whose card has logits.
        labels: the label file, one entry a class.
        min_confidence: labels below it (0 to 100) are left out.
        max_labels: at most so many labels an image.
        temperature: calibrates the confidence; see ``imageclust.labels.classify``.
    """

    def __init__(
        self,
        model: OnnxModel,
        labels: Path,
        *,
        min_confidence: float = MIN_CONFIDENCE,
        max_labels: int = MAX_LABELS,
        temperature: float = TEMPERATURE,
    ) -> None:
        card = model.card
        if card.logits is None:
            raise InvalidInput(f"The model {card.name} has no classes to label with.")
        self.model = model
        self._labels = LabelSet.from_file(labels)
        if self._labels.classes != card.logits.dimension:
            raise InvalidInput(
                f"The label file {labels.name} names {self._labels.classes} classes, "
                f"the model {card.name} has {card.logits.dimension}."
            )
        self._min_confidence = min_confidence
        self._max_labels = max_labels
        self._temperature = temperature
        # The names and parents are part of the answer, so they are part of the key.
        meaning = digest_of([self._labels.names, self._labels.parents, self._labels.categories])
        self.model_version = f"{card.name}-{card.sha256[:12]}"
        self.min_side = model.min_side
        self.key = (
            f"{self.model_version}-{model.preprocess}-{meaning[:8]}"
            f"-c{min_confidence:g}-n{max_labels}-t{temperature:g}"
        ).lower()

    def label(self, images: Iterable[NDArray[np.uint8]]) -> list[Labelled]:
        """One answer an image, in order; pixels ``(h, w, 3)`` uint8 RGB."""
        pictures = list(images)
        return self.answers(self.model.logits(pictures)) if pictures else []

    def answers(self, logits: NDArray[np.float32]) -> list[Labelled]:
        """One answer a row of ``logits`` ``(n, classes)`` float32."""
        if not len(logits):
            return []
        answers = classify(
            logits,
            self._labels,
            max_labels=self._max_labels,
            min_confidence=self._min_confidence,
            temperature=self._temperature,
        )
        return [Labelled(labels=answer, model_version=self.model_version) for answer in answers]


class OnnxJoint:
    """Vectors and labels from one inference, when embedder and labeler are one ONNX model."""

    def __init__(self, model: OnnxModel, labeler: OnnxLabeler) -> None:
        self._model = model
        self._labeler = labeler
        self.labeler = labeler.key

    def embed_and_label(
        self, images: Sequence[NDArray[np.uint8]]
    ) -> tuple[NDArray[np.float32], list[Labelled]]:
        """``(n, dimension)`` float32, L2-normalised, and one answer an image."""
        outputs = self._model.run(images)
        if outputs.logits is None:
            raise InvalidInput("The model gives no classes to label with.")
        return outputs.features, self._labeler.answers(outputs.logits)
