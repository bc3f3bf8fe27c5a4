"""The effector's cloud while a policy runs, at past times as a training window holds them.

Shapes: P past clouds, N points.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from align.followers import Follower, Sighting
from data.episode import Frame
from data.resample import SLACK_S, resample_points, resample_scalar


@dataclass(frozen=True)
class Past:
    """What a policy wants to know about the last moments; see ``KinecloudPolicy.predict``."""

    clouds_PN3: np.ndarray
    visible_PN: np.ndarray
    valid_P: np.ndarray
    opening_P: np.ndarray
    grasp_P3: np.ndarray


@dataclass(frozen=True)
class _Moment:
    time: float
    points_N3: np.ndarray  # the grasp point is one more, the last
    visible_N: np.ndarray
    opening: float


class LiveCloud:
    """Follows one effector through frames of a static camera and gives its cloud at past times.

    past_times: seconds before now, ascending, the last is 0.
    """

    def __init__(self, follower: Follower, past_times: Sequence[float]):
        self.past_times = np.asarray(past_times, np.float64)
        self._follower = follower
        self._moments: deque[_Moment] = deque()

    def see(self, frame: Frame, opening: float, grasp_3: np.ndarray | None = None) -> Sighting | None:
        """Takes in the next frame; what was found in it. While the effector is out of view its cloud stays where it
        was, not visible. grasp_3: metres, camera frame, where it is known better than the follower knows it."""
        seen = self._follower.see(frame)
        if seen is not None:
            known = [g for g in (grasp_3, seen.grasp_3, seen.points_N3.mean(0)) if g is not None]
            points, visible = np.vstack([seen.points_N3, known[0]]), np.append(seen.visible_N, True)
        elif self._moments:
            points = self._moments[-1].points_N3
            visible = np.zeros(len(points), bool)
        else:
            return None
        self._moments.append(_Moment(frame.time, points, visible, opening))
        while len(self._moments) > 2 and self._moments[1].time <= frame.time + self.past_times[0]:
            self._moments.popleft()
        return Sighting(points[:-1], visible[:-1], points[-1])

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
        return Past(points[:, :-1], visible[:, :-1], at_P >= times[0] - SLACK_S, opening, points[:, -1])
