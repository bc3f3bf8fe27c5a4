"""Chamfer distance between batches of point clouds: exact neighbours, an analytic gradient, four backends."""

from pretrain.chamfer.distance import chamfer
from pretrain.chamfer.neighbours import BACKENDS, nearest_both_ways

__all__ = ["BACKENDS", "chamfer", "nearest_both_ways"]
