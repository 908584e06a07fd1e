"""The static page of a run: everything found, readable without a server and without scripts."""

from imageclust.gallery.export import Export
from imageclust.gallery.page import render_gallery

__all__ = ["Export", "render_gallery"]
