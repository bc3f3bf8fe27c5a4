"""What is known of a gripper in one frame, however it was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data.episode import Frame


@dataclass(frozen=True)
class Estimate:
    """A gripper in one frame.

    pose_44: f64, camera_from_effector, metres. points_N3: f32 metres, camera frame; point n is the same physical point
    in every frame. visible_N: bool, measured in this frame. opening: metres. grasp_3: f32, midway between the tips of
    the jaws, camera frame. fit: 0..1, share of the model that agrees with the depth, or how sure a network is.
    residual_m: median distance of model and depth; without depth, what the estimate is expected to be off by.
    """

    pose_44: np.ndarray
    points_N3: np.ndarray
    visible_N: np.ndarray
    opening: float
    grasp_3: np.ndarray
    fit: float
    residual_m: float


class LiveGripper(Protocol):
    """Follows one gripper through the frames of one camera."""

    def see(self, frame: Frame) -> Estimate | None:
        """The gripper in the next frame; None where it is not found. Causal."""
        ...
