"""Segmenters: which pixels are the effector."""
