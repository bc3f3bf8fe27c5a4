"""A gripper's surface: points fixed to the palm and points fixed to either jaw, in the recorded effector frame."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.atomic import publishing
from pipeline.errors import UserError

PALM, JAW_UP, JAW_DOWN = 0, 1, 2  # the jaw on the positive side of the jaw axis, and the one on the negative side


@dataclass(frozen=True)
class State:
    """Where a gripper is. rotation_33, translation_3: camera_from_effector, metres.

    jaws_2: metres along the jaw axis from the middle of the effector frame to the inner face of either jaw.
    """

    rotation_33: np.ndarray
    translation_3: np.ndarray
    jaws_2: np.ndarray

    @property
    def opening(self) -> float:
        """Free space between the jaws, metres."""
        return float(self.jaws_2[0] - self.jaws_2[1])

    @property
    def pose_44(self) -> np.ndarray:
        """f64 [4,4] camera_from_effector."""
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = self.rotation_33, self.translation_3
        return pose


@dataclass(frozen=True)
class GripperModel:
    """points_M3, normals_M3: f32, metres, effector frame; a jaw is as if its inner face were at 0 on the axis.

    colours_M3: u8 RGB. part_M: i8, PALM, JAW_UP or JAW_DOWN. jaw_axis_3: f64 unit, from the lower jaw to the upper.
    grasp_3: f64, the grasp point of centred jaws. rotations_K33: f64, camera_from_effector as seen in the episodes.
    range_23: f64, least and largest position of the effector, metres, camera frame. jaws_22: f64, jaws_2 of
    State at the least and at the largest opening of the episodes.
    """

    points_M3: np.ndarray
    normals_M3: np.ndarray
    colours_M3: np.ndarray
    part_M: np.ndarray
    jaw_axis_3: np.ndarray
    grasp_3: np.ndarray
    rotations_K33: np.ndarray
    range_23: np.ndarray
    jaws_22: np.ndarray

    @cached_property
    def side_M2(self) -> np.ndarray:
        """f64 [M,2]: 1 where a point moves with the upper, the lower jaw."""
        return np.stack([self.part_M == JAW_UP, self.part_M == JAW_DOWN], -1).astype(float)

    def placed(self, state: State, chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
        """f64 [M,3] metres, camera frame: the (chosen) points of a gripper in this state."""
        along = self.side_M2[chosen] @ state.jaws_2
        local = self.points_M3[chosen] + along[:, None] * self.jaw_axis_3
        return local @ state.rotation_33.T + state.translation_3

    def grasp(self, state: State) -> np.ndarray:
        """f64 [3] metres, camera frame: midway between the tips of the jaws."""
        local = self.grasp_3 + state.jaws_2.mean() * self.jaw_axis_3
        return state.rotation_33 @ local + state.translation_3

    def spread(self, count: int) -> np.ndarray:
        """int [count] ascending: points far from each other, half of them of the palm, a quarter of either jaw.

        The same for the same model. Points repeat only where the model has fewer.
        """
        shares = {PALM: count - 2 * (count // 4), JAW_UP: count // 4, JAW_DOWN: count // 4}
        chosen = [_farthest(np.flatnonzero(self.part_M == part), self.points_M3, n) for part, n in shares.items()]
        return np.sort(np.concatenate(chosen))

    def save(self, path: Path) -> None:
        """Writes an .npz without pickles; the same model gives the same bytes."""
        with publishing(path) as temporary, temporary.open("wb") as handle:
            np.savez(handle, **{field.name: getattr(self, field.name) for field in fields(self)})  # pyright: ignore[reportArgumentType]


def load_model(path: Path) -> GripperModel:
    """Raises UserError where there is no gripper model."""
    names = [field.name for field in fields(GripperModel)]
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in names if name in stored}
    except Exception as error:  # of whatever kind: NumPy and zipfile have many for damage
        raise UserError(
            f"extract.gripper.detect.model: {path} cannot be read as a gripper model ({error}); name the "
            "gripper-model.npz of an earlier run, or leave the setting out to have one built"
        ) from None
    if missing := [name for name in names if name not in arrays]:
        raise UserError(
            f"extract.gripper.detect.model: {path} has no {', '.join(missing)}: it is no gripper model; name the "
            "gripper-model.npz of an earlier run, or leave the setting out to have one built"
        )
    return GripperModel(**arrays)


def _farthest(among: np.ndarray, points_M3: np.ndarray, count: int) -> np.ndarray:
    """Farthest point sampling of ``count`` of the indices, from the one nearest to their middle on."""
    points = points_M3[among].astype(np.float64)
    apart = np.full(len(among), np.inf)
    taken = [int(np.argmin(((points - points.mean(0)) ** 2).sum(1)))]
    while len(taken) < min(count, len(among)):
        apart = np.minimum(apart, ((points - points[taken[-1]]) ** 2).sum(1))
        taken.append(int(apart.argmax()))
    return among[np.resize(taken, count)]
