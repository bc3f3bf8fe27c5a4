"""Grippers in colour video without depth: a small network, taught by a few labelled episodes, looks along the ray."""
