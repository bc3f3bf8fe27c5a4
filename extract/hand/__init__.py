"""Human hands: detected in 2D, kept apart over time, placed in metric 3D and covered with identified surface points."""
