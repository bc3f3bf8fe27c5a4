"""Sources of depth: sensors, and networks made consistent over a clip."""
