"""The benchmark of tasks that were seen in video only: what makes them executable in closed loop, row by row."""
