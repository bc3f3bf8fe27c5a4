"""How fast an effector moves: scores that gates hold against what hands and robots can do."""

from __future__ import annotations

import numpy as np

from extract.gates import Gate

# People throw faster, and industrial arms may; nobody manipulates things at this pace.
MOTION_GATES = {"speed": Gate(at_most=4.0), "acceleration": Gate(at_most=60.0)}
LAG_S = 0.1  # shorter steps show the noise of positions


def kinematics(points_TN3: np.ndarray, times_T: np.ndarray) -> dict[str, float]:
    """``speed`` (m/s) and ``acceleration`` (m/s^2) of the cloud's centre: 95th percentiles over the clip.

    Over steps of at least a tenth of a second; clips that are too short for two of them have no such scores.
    """
    lag = max(1, round(LAG_S / float(np.median(np.diff(times_T))))) if len(times_T) > 1 else 1
    if len(times_T) <= 2 * lag:
        return {}
    centre_T3 = points_TN3.mean(1)
    elapsed_T = times_T[lag:] - times_T[:-lag]
    velocity_T3 = (centre_T3[lag:] - centre_T3[:-lag]) / elapsed_T[:, None]
    between_T = (elapsed_T[lag:] + elapsed_T[:-lag]) / 2
    acceleration_T3 = (velocity_T3[lag:] - velocity_T3[:-lag]) / between_T[:, None]
    return {
        "speed": float(np.quantile(np.linalg.norm(velocity_T3, axis=1), 0.95)),
        "acceleration": float(np.quantile(np.linalg.norm(acceleration_T3, axis=1), 0.95)),
    }
