"""Copies of the same picture, confirmed pixel by pixel, and look-alikes, which are only reported.

Files with the same bytes share one image id already; this package finds the copies that differ:
re-encoded, resized, cropped, bordered, marked, mirrored or turned.
"""

from imageclust.duplicates.find import DuplicateReport, Pictures, find_duplicates
from imageclust.duplicates.thresholds import Thresholds

__all__ = ["DuplicateReport", "Pictures", "Thresholds", "find_duplicates"]
