"""How far off tracked points are: one sigma across and along the viewing ray, for every frame.

Calibrated on simulated episodes that no reported figure uses (``python -m tests.benchmarks.mask_tracking``): 68 % of
all components lie within one sigma, robot grippers and hands together, with depth exact to 0.1 mm and with 2 mm noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from extract.lift.gaps import off_line
from extract.mask.tracker import Pose

# sigma = footprint * share * exp(growth * hidden) + bending * mean bend: the error is a fixed part of a pixel, grows as
# the template's side turns away or is covered, and a bent template is less sure than a rigid one.
ACROSS = (0.063, 3.2, 0.10)
ALONG = (0.052, 3.7, 0.117)
DEPTH_LEFT = (0.2, 0.72)  # what is left of a single depth value's error, across and along the ray


def uncertainty(
    poses: Sequence[Pose],
    footprint_T: np.ndarray,
    times: np.ndarray,
    measured_T: np.ndarray,
    depth_m_T: np.ndarray | float = 0.0,
) -> np.ndarray:
    """f32 [T,2] metres, across and along the ray.

    poses: of the measured frames, in order. footprint_T: size of a pixel on the effector, metres. times: seconds.
    depth_m_T: one sigma of single depth values, metres.
    measured_T: bool, false in bridged frames, whose points lie on a straight line between their neighbours.
    """
    known = times[measured_T]
    hidden = np.interp(times, known, [pose.hidden for pose in poses])
    bend = np.interp(times, known, [np.linalg.norm(pose.bend_M3, axis=1).mean() for pose in poses])
    gap_T = off_line(times, measured_T)
    sigma = [
        np.hypot(np.hypot(footprint_T * share * np.exp(growth * hidden) + bending * bend, left * depth_m_T), gap_T)
        for (share, growth, bending), left in zip((ACROSS, ALONG), DEPTH_LEFT, strict=True)
    ]
    return np.stack(sigma, -1).astype(np.float32)
