"""Names of features: those that lerobot gives a meaning, and those of the effector's cloud.

Symbols in shapes: N points, A action dimensions, Q proprioception dimensions.
"""

from __future__ import annotations

OBSERVATION = "observation."
IMAGES = OBSERVATION + "images."

ACTION = "action"
STATE = OBSERVATION + "state"
CAMERA = IMAGES + "camera"
SCENE = IMAGES + "scene"
DEPTH = IMAGES + "scene_depth"
TASK = "task"
PAD = "_is_pad"  # lerobot's flags of frames before the beginning or beyond the end of an episode

OWN = OBSERVATION + "kinecloud."
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
