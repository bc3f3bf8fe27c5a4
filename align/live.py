"""The effector's cloud while a policy runs, at past times as a training window holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from align.followers import Follower, Sighting
from align.moments import History, Moments, Past
from data.episode import Frame

_AT_REST_44 = np.eye(4)


class LiveCloud:
    """Follows one effector through frames of a static camera and gives its cloud at past times.

    past_times: seconds before now, ascending, the last is 0.
    """

    def __init__(self, follower: Follower, past_times: Sequence[float]):
        self._follower, self._history = follower, History(past_times)
        self._last: Sighting | None = None
        self._past: Past | None = None

    def see(self, frame: Frame, opening: float, grasp_3: np.ndarray | None = None) -> Sighting | None:
        """Takes in the next frame; what was found in it. While the effector is out of view its cloud stays where it
        was, not visible. grasp_3: metres, camera frame, where it is known better than the follower knows it; a policy
        is told the centroid where nobody knows it."""
        seen = self._follower.see(frame)
        if seen is not None:
            self._last = seen if grasp_3 is None else replace(seen, grasp_3=grasp_3)
        elif self._last is not None:
            self._last = replace(self._last, visible_N=np.zeros_like(self._last.visible_N))
        if self._last is not None:
            last = self._last
            grasp = last.points_N3.mean(0) if last.grasp_3 is None else last.grasp_3
            now = (frame.time, last.points_N3, last.visible_N, opening, grasp, _AT_REST_44)
            self._past = self._history.add(Moments(*(np.asarray(value)[None] for value in now)))
        return self._last

    def past(self) -> Past | None:
        """Clouds at the past times of the newest frame; None as long as the effector was never seen."""
        return self._past
