"""How far off tracked points are: one sigma across and along the viewing ray, for every frame.

Calibrated on simulated episodes that no reported figure uses (``python -m tests.benchmarks.mask_tracking``): 68 % of
all components lie within one sigma, robot grippers and hands together. Simulated depth is exact to 0.1 mm; with a real
sensor, its own noise comes on top of ``along``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from extract.lift.gaps import off_line
from extract.mask.tracker import Pose

# sigma = footprint * share * exp(growth * hidden) + bending * mean bend: the error is a fixed part of a pixel, grows as
# the template's side turns away or is covered, and a bent template is less sure than a rigid one.
ACROSS = (0.068, 3.2, 0.11)
ALONG = (0.049, 3.7, 0.11)


def uncertainty(
    poses: Sequence[Pose], footprint_T: np.ndarray, times: np.ndarray, measured_T: np.ndarray
) -> np.ndarray:
    """f32 [T,2] metres, across and along the ray.

    poses: of the measured frames, in order. footprint_T: size of a pixel on the effector, metres. times: seconds.
    measured_T: bool, false in bridged frames, whose points lie on a straight line between their neighbours.
    """
    known = times[measured_T]
    hidden = np.interp(times, known, [pose.hidden for pose in poses])
    bend = np.interp(times, known, [np.linalg.norm(pose.bend_M3, axis=1).mean() for pose in poses])
    gap_T = off_line(times, measured_T)
    sigma = [
        np.hypot(footprint_T * share * np.exp(growth * hidden) + bending * bend, gap_T)
        for share, growth, bending in (ACROSS, ALONG)
    ]
    return np.stack(sigma, -1).astype(np.float32)
