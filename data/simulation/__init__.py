"""Simulated episodes made from package-index parts alone: Meta-World tasks, their human-hand twin, close-up hands.

Everything written here is *simulated* and says so in its sidecar. The hand is a visual overlay on motion that an
invisible gripper performed (twin) or on invented motion (close-ups); it is never real human data.
"""

import os

# MuJoCo reads this once, when it is first imported: software rendering unless the user chose otherwise.
os.environ.setdefault("MUJOCO_GL", "osmesa")
# Rasteriser threads of several workers fight over the same cores; one each is faster in total.
os.environ.setdefault("LP_NUM_THREADS", "1")
