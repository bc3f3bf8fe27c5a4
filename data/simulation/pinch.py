"""How the simulated hand grasps: finger angles for a wanted distance between thumb tip and index tip."""

# pyright: reportAttributeAccessIssue=false
# (mujoco fills its namespace from a C extension without type stubs)
from __future__ import annotations

import functools

import mujoco
import numpy as np
from scipy.optimize import least_squares

from data.simulation.hand import INDEX_TIP, THUMB_TIP, HandRig, HandShape, attach_hand

# The pinch moves these: the angle at which each rests (radians), and how much it resists being moved away from there.
# The thumb opposes the fingers, and the index finger stays in line with the others instead of crossing below them: both
# together make the C of a person's precision grip.
PINCH_JOINTS = {
    "cmc_flexion": (0.0, 0.15),
    "cmc_abduction": (0.4, 0.6),
    "mp_flexion": (0.0, 0.15),
    "ip_flexion": (0.0, 0.15),
    "mcp2_flexion": (0.8, 0.15),
    "mcp2_abduction": (0.0, 3.0),
    "pm2_flexion": (0.6, 0.15),
    "md2_flexion": (0.0, 0.15),
}
# The other fingers are loosely bent. A fist beside the pinch is a pose that hand detectors hardly know.
RESTING = {
    **{"mcp3_flexion": 0.45, "pm3_flexion": 0.45, "md3_flexion": 0.2},
    **{"mcp4_flexion": 0.5, "pm4_flexion": 0.5, "md4_flexion": 0.2},
    **{"mcp5_flexion": 0.55, "pm5_flexion": 0.5, "md5_flexion": 0.2},
}
DISTANCES = np.linspace(0.012, 0.115, 12)


@functools.cache
def pinch_table(side: str) -> tuple[np.ndarray, np.ndarray]:
    """Tip distances f64 [D] in metres and joint angles f64 [D,J] in radians, for the adult hand (scale 1).

    Each row minimises 60^2 (|tips| - distance)^2 + |resistance (angles - rest)|^2 within the joints' limits.
    """
    spec = mujoco.MjSpec()
    attach_hand(spec, side)
    model = spec.compile()
    data = mujoco.MjData(model)
    rig = HandRig(model, data, HandShape(side=side))
    moving = np.array([rig.joint_names.index(name) for name in PINCH_JOINTS])
    low, high = rig.joint_limits[moving].T
    rest, resistance = np.array(list(PINCH_JOINTS.values())).T
    rest = np.clip(rest, low + 0.02, high - 0.02)
    full = rig.joints(RESTING)

    def residual(angles: np.ndarray, distance: float) -> np.ndarray:
        full[moving] = angles
        rig.pose(full, np.zeros(3), np.eye(3))
        tips = rig.landmarks()[[THUMB_TIP, INDEX_TIP]]
        return np.concatenate([[60 * (np.linalg.norm(tips[1] - tips[0]) - distance)], resistance * (angles - rest)])

    rows, angles = [], rest
    for distance in DISTANCES:
        angles = least_squares(residual, angles, bounds=(low, high), args=(distance,)).x
        full[moving] = angles
        rows.append(full.copy())
    return DISTANCES, np.array(rows)


def pinch_angles(rig: HandRig, gap: float) -> np.ndarray:
    """Joint angles f64 [J] whose free space between thumb and index pad is ``gap`` metres, for this hand's size."""
    distances, angles = pinch_table(rig.shape.side)
    wanted = (gap + rig.tip_radii()) / rig.shape.scale
    return np.array([np.interp(wanted, distances, column) for column in angles.T])
