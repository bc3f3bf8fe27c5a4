"""One hand in metric 3D, with everything that was measured of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from extract.hand.place import PlacedHand, sensed_frames


@dataclass(frozen=True)
class LiftedHand:
    """One hand over consecutive frames, joints and raw measurements: what a track is made from.

    slots: int [T]. time_T: seconds. measured_T: bool. joints_T213: f64 metres, camera frame. side_agrees_T: the
    detector's label agrees with the track's side. score_T: the label's score. landmarks_T212 (pixels) and world_T213
    (metres), depth_px_T21 (pixels): as the detector gave them, zero where not measured. surface_z_T21: sensor depth at
    the landmarks, NaN = none. placed: where the hand is in space, and how surely.
    scores: see trust.py.
    """

    slots: np.ndarray
    time_T: np.ndarray
    measured_T: np.ndarray
    joints_T213: np.ndarray
    side: str
    side_agrees_T: np.ndarray
    score_T: np.ndarray
    landmarks_T212: np.ndarray
    world_T213: np.ndarray
    depth_px_T21: np.ndarray
    surface_z_T21: np.ndarray
    placed: PlacedHand
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def unmirrored_world_T213(self) -> np.ndarray:
        """world_T213 with depth turned round where the hand was taken for the other hand: it came out mirrored."""
        return unmirrored(self.world_T213, self.side_agrees_T)

    @property
    def unmirrored_depth_px_T21(self) -> np.ndarray:
        """depth_px_T21, turned round as well."""
        return np.where(self.side_agrees_T[:, None], 1, -1) * self.depth_px_T21

    @property
    def sensed_T(self) -> np.ndarray:
        """bool [T]: the sensor measured the hand's distance in this frame."""
        return sensed_frames(self.surface_z_T21)


def unmirrored(world_T213: np.ndarray, agrees_T: np.ndarray) -> np.ndarray:
    """Depth turned round in frames in which the hand was taken for the other hand."""
    turned = world_T213.copy()
    turned[~agrees_T, :, 2] *= -1
    return turned
