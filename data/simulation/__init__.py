"""Simulated episodes made from package-index parts alone: Meta-World tasks, their human-hand twin, close-up hands.

Everything written here is *simulated* and says so in its sidecar. The hand is a visual overlay on motion that an
invisible gripper performed (twin) or on invented motion (close-ups); it is never real human data.
"""

import os
from ctypes.util import find_library

# MuJoCo reads this once, when it is first imported. OSMesa renders in software; newer distributions lack it. EGL, where
# it finds no GPU, renders the same pictures with the same software.
if "MUJOCO_GL" not in os.environ:
    os.environ["MUJOCO_GL"] = "osmesa" if find_library("OSMesa") else "egl"
# Rasteriser threads of several workers fight over the same cores; one each is faster in total.
os.environ.setdefault("LP_NUM_THREADS", "1")
