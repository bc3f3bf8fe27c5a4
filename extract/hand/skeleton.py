"""The hand model: 21 joints, the bones between them, their usual lengths, and how thick the flesh around them is.

Order of joints (MediaPipe): 0 wrist; 1-4 thumb CMC, MCP, IP, tip; 5-8 index MCP, PIP, DIP, tip; 9-12 middle; 13-16
ring; 17-20 little finger. Lengths are adult means in the proportions of hand anthropometry (Buchholz et al. 1992), with
the palm width that landmark detectors report; radii are half the thickness of an adult's parts.
"""

from __future__ import annotations

import numpy as np

JOINTS = 21
WRIST, THUMB_TIP, INDEX_TIP = 0, 4, 8
KNUCKLES = (5, 9, 13, 17)
PALM = (0, 5, 9, 13, 17)
TIPS = (4, 8, 12, 16, 20)
PARENTS = np.array([0, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19])

# (joint, joint, length in millimetres). The last six keep the palm in shape; they are no bones.
_LENGTHS_MM = (
    (0, 1, 40), (1, 2, 44), (2, 3, 35), (3, 4, 29),
    (0, 5, 93), (5, 6, 45), (6, 7, 27), (7, 8, 23),
    (0, 9, 90), (9, 10, 49), (10, 11, 32), (11, 12, 24),
    (0, 13, 87), (13, 14, 45), (14, 15, 29), (15, 16, 24),
    (0, 17, 82), (17, 18, 37), (18, 19, 22), (19, 20, 21),
    (5, 9, 24), (9, 13, 21), (13, 17, 21), (5, 17, 63), (1, 5, 67), (1, 17, 74),
)  # fmt: skip
BONES = np.array([(a, b) for a, b, _ in _LENGTHS_MM])
BONE_LENGTHS = np.array([length for _, _, length in _LENGTHS_MM]) / 1000

PALM_CHORDS = np.array([(0, 5), (0, 9), (0, 13), (0, 17), (5, 9), (9, 13), (13, 17), (5, 17)])
PALM_SIZE = 0.060125  # mean of BONE_LENGTHS over PALM_CHORDS, metres
# The detector's landmarks span less than the joints they stand for: measured on simulated hands, whose palms it takes
# for 5 to 7 % smaller than they are, and smaller again where the hand is slanted or hidden.
LANDMARK_SPAN = 0.95
CHORD_LENGTHS = np.array([BONE_LENGTHS[np.flatnonzero((chord == BONES).all(1))[0]] for chord in PALM_CHORDS])

# Half thickness at each joint, metres: the distance from the joint to the skin that faces the camera.
RADII = np.array(
    [19, 16, 12, 9.5, 7, 13, 9.5, 8, 6.5, 13.5, 9.5, 8, 6.5, 13, 9, 7.5, 6.5, 12, 8, 7, 6],
) / 1000  # fmt: skip


def palm_size(joints_T213: np.ndarray) -> np.ndarray:
    """Mean of the 8 palm chords, [...] in the unit of the joints [..., 21, 3]."""
    return chord_lengths(joints_T213).mean(-1)


def chord_lengths(joints_T213: np.ndarray) -> np.ndarray:
    """Lengths of PALM_CHORDS, [..., 8] in the unit of the joints [..., 21, 3]."""
    a, b = PALM_CHORDS.T
    return np.linalg.norm(joints_T213[..., a, :] - joints_T213[..., b, :], axis=-1)
