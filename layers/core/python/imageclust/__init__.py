"""Serverless image clustering: images to vectors to clusters to names."""

__version__ = "0.1.0"
