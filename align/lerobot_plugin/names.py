"""Names of features: those that lerobot gives a meaning, and those of the effector's cloud.

Symbols in shapes: N points, A action dimensions, Q proprioception dimensions.
"""

from __future__ import annotations

ACTION = "action"
STATE = "observation.state"
CAMERA = "observation.images.camera"
SCENE = "observation.images.scene"
DEPTH = "observation.images.scene_depth"
TASK = "task"
PAD = "_is_pad"  # lerobot's flags of frames before the beginning or beyond the end of an episode

OWN = "observation.kinecloud."
POINTS = OWN + "points"
VISIBLE = OWN + "visible"
GRASP = OWN + "grasp"
OPENING = OWN + "opening"
INTRINSICS = OWN + "intrinsics"
WORLD_FROM_CAMERA = OWN + "world_from_camera"
TIME = OWN + "time"

CONVERTED = {  # features of ``python -m data convert --to lerobot`` -> features of the policy
    "points": POINTS,
    "visible": VISIBLE,
    "grasp": GRASP,
    "opening": OPENING,
    "intrinsics": INTRINSICS,
    "world_from_camera": WORLD_FROM_CAMERA,
    "timestamps": TIME,
}
