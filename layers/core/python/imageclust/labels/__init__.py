"""What each picture shows: labels with confidence and parents, with or without a model."""

from imageclust.labels.classify import LabelSet, classify
from imageclust.labels.record import Label
from imageclust.labels.visual import visual_attributes

__all__ = ["Label", "LabelSet", "classify", "visual_attributes"]
