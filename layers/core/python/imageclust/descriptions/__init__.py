"""Clusters to names: what tells a cluster from the others, and words for it."""

from imageclust.descriptions.briefs import make_briefs
from imageclust.descriptions.captions import ImageBrief, LabelCaptioner
from imageclust.descriptions.deterministic import DeterministicDescriber
from imageclust.descriptions.side_by_side import ClusterNames, merge_names

__all__ = [
    "ClusterNames",
    "DeterministicDescriber",
    "ImageBrief",
    "LabelCaptioner",
    "make_briefs",
    "merge_names",
]
