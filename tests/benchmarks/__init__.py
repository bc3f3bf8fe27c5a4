"""Measurements: ``python -m tests.benchmarks.NAME --json FILE``."""
