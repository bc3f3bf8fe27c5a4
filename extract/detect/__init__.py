"""Detectors: where effectors are, as boxes."""
