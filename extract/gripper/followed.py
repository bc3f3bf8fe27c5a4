"""Grippers followed frame by frame, as a running policy does, and made into tracks a stretch at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data.episode import Frame
from extract.effector import Camera, EffectorTrack, Extraction
from extract.gates import Gate
from extract.gripper.config import GripperConfig
from extract.gripper.estimate import Estimate, LiveGripper
from extract.lift.gaps import bridged, off_line
from extract.segments import Segment, split_at_gaps


@dataclass(frozen=True)
class GripperSight:
    """What was estimated in one frame; None where the gripper was not found. box_4: f64 pixels x0, y0, x1, y1."""

    time: float
    estimate: Estimate | None
    box_4: np.ndarray | None

    @property
    def found(self) -> bool:
        return self.estimate is not None

    @property
    def boxes(self) -> np.ndarray:
        return np.zeros((0, 4)) if self.box_4 is None else self.box_4[None]


@dataclass(frozen=True)
class Carried:
    """The estimates of T frames, with those between them where there was none.

    points_TN3, grasp_T3: f64 metres, camera frame. visible_TN: bool. opening_T, residual_T: metres. fit_T: 0..1.
    """

    points_TN3: np.ndarray
    visible_TN: np.ndarray
    grasp_T3: np.ndarray
    opening_T: np.ndarray
    fit_T: np.ndarray
    residual_T: np.ndarray


class FollowedExtractor(ABC):
    """Detection, tracking and lifting at once, by what ``live`` gives: extraction and a policy see the same."""

    name: str
    nothing = "no_effector"
    depth_source: str
    no_fit: str  # what is said of a video without the gripper

    def __init__(self, config: GripperConfig):
        self.config = config

    @property
    def gates(self) -> Mapping[str, Gate | None]:
        return self.config.gates

    @abstractmethod
    def live(self, camera: Camera) -> LiveGripper:
        """What follows the gripper through frames of one camera, with the settings of this extractor."""

    @abstractmethod
    def sigma(
        self, carried: Carried, estimates: Sequence[Estimate | None], times_T: np.ndarray, camera: Camera
    ) -> list[np.ndarray]:
        """f64 [T] metres each: one sigma across and along the ray, without what bridged losses add."""

    def steadied(self, times_T: np.ndarray, estimates: Sequence[Estimate | None]) -> Sequence[Estimate | None]:
        """The estimates of a stretch with what is known from later frames, too; as they are unless overridden."""
        return estimates

    def look(self, frames: Iterable[Frame], camera: Camera) -> Iterator[GripperSight]:
        """Estimates the gripper in every frame; keeps no pictures."""
        gripper = self.live(camera)
        for frame in frames:
            estimate = gripper.see(frame)
            yield GripperSight(frame.time, estimate, None if estimate is None else _box(estimate, camera))

    def lift(self, sights: Sequence[GripperSight], camera: Camera) -> Extraction:
        """One track for each part of the stretch in which the gripper was found; short losses are bridged."""
        times = np.array([sight.time for sight in sights])
        found = np.array([sight.found for sight in sights], bool)
        segments, rejections = split_at_gaps(times, found, self.config.max_gap_s, self.config.min_seconds)
        if len(sights) and not found.any():
            rejections = [("no_fit", f"{self.no_fit} in none of {len(sights)} frames"), *rejections]
        return Extraction([self._track(sights, segment, camera) for segment in segments], rejections)

    def _track(self, sights: Sequence[GripperSight], segment: Segment, camera: Camera) -> EffectorTrack:
        times, measured = np.array([sights[slot].time for slot in segment.slots]), segment.measured
        raw = [sights[slot].estimate for slot in segment.slots]
        estimates = self.steadied(times, raw)
        carried = _carried(times, measured, estimates, self.config.points)
        gap = off_line(times, measured)
        sigma = [np.hypot(own, gap) for own in self.sigma(carried, estimates, times, camera)]
        return EffectorTrack(
            frame_slots=segment.slots,
            points=carried.points_TN3.astype(np.float32),
            visible=carried.visible_TN,
            sigma=np.stack(sigma, -1).astype(np.float32),
            confidence=np.where(measured, carried.fit_T, 0).astype(np.float32),
            opening=carried.opening_T.astype(np.float32),
            side=None,
            scale="metric",
            depth_source=self.depth_source,
            quality={
                "visible": float(carried.visible_TN.mean()),
                "measured": float(measured.mean()),
                "score": float(carried.fit_T[measured].mean()),
                "residual_mm": float(1000 * np.median(carried.residual_T[measured])),
            },
            raw_points=None if estimates is raw else _carried(times, measured, raw, self.config.points).points_TN3,
            grasp=carried.grasp_T3.astype(np.float32),
        )


def _carried(times: np.ndarray, measured: np.ndarray, estimates: Sequence[Estimate | None], points: int) -> Carried:
    count = len(estimates)
    points_TN3, grasp = np.zeros((count, points, 3)), np.zeros((count, 1, 3))
    visible, values = np.zeros((count, points), bool), np.zeros((count, 3))
    for row, seen in enumerate(estimates):
        if seen is not None:
            points_TN3[row], grasp[row, 0], visible[row] = seen.points_N3, seen.grasp_3, seen.visible_N
            values[row] = seen.opening, seen.fit, seen.residual_m
    values = np.stack([np.interp(times, times[measured], column[measured]) for column in values.T], -1)
    points_TN3, grasp = bridged(points_TN3, times, measured), bridged(grasp, times, measured)[:, 0]
    return Carried(points_TN3, visible, grasp, *values.T)


def _box(estimate: Estimate, camera: Camera) -> np.ndarray:
    pixels = camera.project(estimate.points_N3.astype(np.float64))
    return np.concatenate([pixels.min(0), pixels.max(0)])
