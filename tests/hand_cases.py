"""Made-up hands with known answers, for the hand tests."""

from __future__ import annotations

import numpy as np

from extract.effector import Camera
from extract.hand.detect import Detection
from extract.hand.skeleton import PALM_SIZE, RADII

CAMERA = Camera(np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]), (640, 480), "given")


def hand_213() -> np.ndarray:
    """A relaxed right hand, f64 [21,3] metres: palm towards the camera (-z), fingers up (-y), thumb right (+x)."""
    joints = np.zeros((21, 3))
    bases = {5: (0.030, -0.088), 9: (0.007, -0.090), 13: (-0.014, -0.086), 17: (-0.033, -0.075)}
    phalanges = {5: (45, 27, 23), 9: (49, 32, 24), 13: (45, 29, 24), 17: (37, 22, 21)}
    for base, (x, y) in bases.items():
        joints[base] = x, y, 0
        bend = 0.0
        for k, length in enumerate(phalanges[base]):
            bend += 0.3
            joints[base + k + 1] = joints[base + k] + length / 1000 * np.array([0, -np.cos(bend), -np.sin(bend)])
    joints[1] = 0.030, -0.024, -0.010
    for k, length in enumerate((44, 35, 29)):
        joints[k + 2] = joints[k + 1] + length / 1000 * np.array([0.75, -0.6, -0.28]) / np.linalg.norm(
            [0.75, 0.6, 0.28]
        )
    return joints


def moving_hand(frames: int, rate_hz: float = 25.0) -> tuple[np.ndarray, np.ndarray]:
    """(times f64 [T], joints f64 [T,21,3]): the hand on a smooth path half a metre away, turning a little."""
    time = np.arange(frames) / rate_hz
    angle = 0.3 * np.sin(2 * np.pi * 0.3 * time)
    turn = np.zeros((frames, 3, 3))
    turn[:, 0, 0] = turn[:, 2, 2] = np.cos(angle)
    turn[:, 0, 2], turn[:, 2, 0], turn[:, 1, 1] = np.sin(angle), -np.sin(angle), 1
    place = np.stack([0.06 * np.sin(time), 0.08 + 0.04 * np.cos(1.3 * time), 0.5 + 0.04 * np.sin(0.8 * time)], -1)
    return time, hand_213() @ turn.transpose(0, 2, 1) + place[:, None]


def seen_surface(joints_T213: np.ndarray, palm_m: float) -> np.ndarray:
    """Depth of the skin before each joint, as fit.py models it, [T,21] metres."""
    return joints_T213[..., 2] - RADII * palm_m / PALM_SIZE


def detection_at(x: float, y: float, side: str = "right", score: float = 0.9, size: float = 120.0) -> Detection:
    """A detection with its wrist at (x, y) pixels."""
    shape = hand_213()
    return Detection(side, score, shape[:, :2] / np.ptp(shape[:, 1]) * size + [x, y], shape - shape.mean(0))
