"""Motion clips as LeRobot data sets (v3.0) and back, bit for bit."""
