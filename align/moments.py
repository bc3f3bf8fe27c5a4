"""The effector's cloud in the last moments, and what a policy is told of them.

Shapes: T moments, N points, P past clouds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from data.geometry import invert_rigid, transform
from data.resample import SLACK_S, resample_points, resample_scalar
from data.waypoints import grasp_path


@dataclass(frozen=True)
class Moments:
    """What was seen of one effector, times ascending, the last one is now.

    times_T: f64, seconds. points_TN3: f32, metres, each in the camera frame of its own moment; point n is the same
    physical point in every moment. visible_TN: bool, measured rather than carried. opening_T: f32, metres, NaN =
    unknown. grasp_T3: f32, metres, where it grasps, a row of NaN = unknown. world_from_camera_T44: rigid, metres.
    """

    times_T: np.ndarray
    points_TN3: np.ndarray
    visible_TN: np.ndarray
    opening_T: np.ndarray
    grasp_T3: np.ndarray
    world_from_camera_T44: np.ndarray


@dataclass(frozen=True)
class Past:
    """What a policy is told of the last moments; see ``prepared`` (pretrain/model/observation.py)."""

    clouds_PN3: np.ndarray
    visible_PN: np.ndarray
    valid_P: np.ndarray
    opening_P: np.ndarray
    grasp_P3: np.ndarray

    def arguments(self) -> dict[str, np.ndarray]:
        """Of ``KinecloudPolicy.act``."""
        return {
            "past_clouds_PN3": self.clouds_PN3,
            "past_visible_PN": self.visible_PN,
            "past_valid": self.valid_P,
            "past_opening_P": self.opening_P,
            "past_grasp_P3": self.grasp_P3,
        }


def joined(moments: Sequence[Moments]) -> Moments:
    """One after the other."""
    columns = ([getattr(moment, field.name) for moment in moments] for field in fields(Moments))
    return Moments(*map(np.concatenate, columns))


def past_of(moments: Moments, past_times: Sequence[float]) -> Past:
    """The past in the camera frame of now, as training windows hold it (data/loader.py).

    past_times: seconds before now, ascending, the last is 0. Between moments identified points are interpolated
    linearly, and visible where they are in both; before the first they are held, and not valid.
    """
    path_T3 = grasp_path(moments.points_TN3, moments.grasp_T3)
    points_TN3 = _seen_from_now(np.concatenate([moments.points_TN3, path_T3[:, None]], 1), moments)
    visible_TN = np.pad(moments.visible_TN, ((0, 0), (0, 1)), constant_values=True)
    times_T = moments.times_T
    at_P = times_T[-1] + np.asarray(past_times)
    points_PN3, visible_PN = resample_points(points_TN3, visible_TN, times_T, at_P)
    opening_P, valid_P = resample_scalar(moments.opening_T, times_T, at_P), at_P >= times_T[0] - SLACK_S
    return Past(points_PN3[:, :-1], visible_PN[:, :-1], valid_P, opening_P, points_PN3[:, -1])


def _seen_from_now(points_TN3: np.ndarray, moments: Moments) -> np.ndarray:
    poses_T44 = moments.world_from_camera_T44
    if (poses_T44 == poses_T44[-1]).all():
        return points_TN3
    now_from_camera_T44 = invert_rigid(poses_T44[-1].astype(np.float64)) @ poses_T44
    return transform(now_from_camera_T44, points_TN3).astype(np.float32)


class History:
    """Remembers the moments of one episode as far back as a policy looks. past_times: as of ``past_of``."""

    def __init__(self, past_times: Sequence[float]):
        self._past_times = past_times
        self._moments: deque[Moments] = deque()

    def add(self, now: Moments) -> Past:
        """Takes in the next moment (T = 1); what the policy is told then.

        Raises ValueError where it is not later than the last, or has another number of points.
        """
        if self._moments:
            last = self._moments[-1]
            if not now.times_T[0] > last.times_T[0]:
                raise ValueError(
                    f"time: found {now.times_T[0]:g} s; expected more than the last, {last.times_T[0]:g} s. "
                    "Call reset() before a new episode."
                )
            if now.points_TN3.shape != last.points_TN3.shape:
                raise ValueError(
                    f"points: found {now.points_TN3.shape[1]}; expected {last.points_TN3.shape[1]}, as this episode "
                    "began. Row n is the same physical point all along; call reset() before a new episode."
                )
        self._moments.append(now)
        while len(self._moments) > 2 and self._moments[1].times_T[0] <= now.times_T[0] + self._past_times[0]:
            self._moments.popleft()
        return past_of(joined(tuple(self._moments)), self._past_times)
