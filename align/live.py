"""The effector's cloud while a policy runs: the same tracker as in extraction, fed frame by frame from the first one.

Shapes: P past clouds, N points.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.episode import Frame
from data.resample import SLACK_S, resample_points, resample_scalar
from extract.effector import Camera
from extract.mask.config import MaskConfig
from extract.mask.surface import effector_pixels, visible_points
from extract.mask.tracker import Pose, SurfaceTracker


@dataclass(frozen=True)
class Past:
    """What a policy wants to know about the last moments; see ``KinecloudPolicy.predict``."""

    clouds_PN3: np.ndarray
    visible_PN: np.ndarray
    valid_P: np.ndarray
    opening_P: np.ndarray


@dataclass(frozen=True)
class _Moment:
    time: float
    points_N3: np.ndarray
    visible_N: np.ndarray
    opening: float


class LiveCloud:
    """Follows one effector through frames of a static camera and gives its cloud at past times.

    past_times: seconds before now, ascending, the last is 0.
    """

    def __init__(self, camera: Camera, config: MaskConfig, past_times: Sequence[float]):
        self.camera, self.config = camera, config
        self.past_times = np.asarray(past_times, np.float64)
        self._tracker: SurfaceTracker | None = None
        self._followed: list[Pose] = []
        self._moments: deque[_Moment] = deque()

    def see(self, frame: Frame, opening: float) -> None:
        """Takes in the next frame. While the effector is out of view its cloud stays where it was, not visible."""
        if effector_pixels(frame) >= self.config.min_mask_px:
            points, visible = self._follow(frame)
        elif self._moments:
            points = self._moments[-1].points_N3
            visible = np.zeros(len(points), bool)
        else:
            return
        self._moments.append(_Moment(frame.time, points, visible, opening))
        while len(self._moments) > 2 and self._moments[1].time <= frame.time + self.past_times[0]:
            self._moments.popleft()

    def past(self) -> Past | None:
        """Clouds at the past times of the newest frame; None as long as the effector was never seen.

        Identified points are interpolated linearly between frames; a point is visible where it is in both neighbours.
        Times before the first frame are not valid and hold the first cloud.
        """
        if not self._moments:
            return None
        times = np.array([moment.time for moment in self._moments])
        at_P = times[-1] + self.past_times
        points, visible = resample_points(
            np.stack([moment.points_N3 for moment in self._moments]),
            np.stack([moment.visible_N for moment in self._moments]),
            times,
            at_P,
        )
        opening = resample_scalar(np.array([moment.opening for moment in self._moments]), times, at_P)
        return Past(points, visible, at_P >= times[0] - SLACK_S, opening)

    def _follow(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        """Points and their visibility, refined with how the effector has bent so far, as extraction does afterwards."""
        if self._tracker is None:
            self._tracker = SurfaceTracker(frame, self.camera, self.config.points)
            self._followed.append(self._tracker.start)
            points = self._tracker.points(self._tracker.start)
        else:
            before = self._followed[-2] if len(self._followed) > 1 else None
            self._followed.append(self._tracker.follow(frame, self._followed[-1], before))
            self._tracker.learn(self._followed)
            points = self._tracker.points(self._tracker.polish(frame, self._followed[-1]))
        return points.astype(np.float32), visible_points(points, frame, self.camera)
