"""Serverless image clustering: images to vectors to clusters to names."""
