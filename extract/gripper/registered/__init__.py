"""Grippers in RGB-D video without masks or poses: a surface model from labelled episodes, registered to every frame."""
