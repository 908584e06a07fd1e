"""Clusters to names: what tells a cluster from the others, and words for it."""

from imageclust.descriptions.briefs import make_briefs
from imageclust.descriptions.deterministic import DeterministicDescriber

__all__ = ["DeterministicDescriber", "make_briefs"]
