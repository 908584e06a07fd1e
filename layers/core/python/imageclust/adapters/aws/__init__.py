"""Ports over AWS services; the only place that imports boto3."""
