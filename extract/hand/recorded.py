"""Hands whose joints come with the episode: measured by whoever filmed it, or by an estimator of the user's choice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from data.episode import Frame, HandsFrame
from extract.effector import Camera, EffectorTrack, Extraction
from extract.gates import Gate
from extract.hand.config import HandConfig
from extract.hand.skeleton import PALM_SIZE, palm_size
from extract.hand.surface import facing_camera, hidden_by_hand, make_surface, pinch_middle, pinch_opening
from extract.segments import Segment, split_at_gaps

IN_VIEW = 0.5  # share of the joints that the picture must show
SIGMA_M = 0.01  # one sigma of recorded joints across and along the ray: nobody tells it; that of good hand trackers


@dataclass(frozen=True)
class JointsSight:
    """joints: of the hands that the frame shows, f64 [21,3] metres, camera frame, by side. boxes: f64 [K,4] pixels."""

    time: float
    joints: Mapping[str, np.ndarray]
    boxes: np.ndarray

    @property
    def found(self) -> bool:
        return bool(self.joints)


class RecordedHands:
    """Each hand its own track. Joints are taken as they are: nothing is smoothed, no picture is looked at."""

    name = "recorded-hands/1"
    nothing = "no_hand"

    def __init__(self, config: HandConfig):
        self.config = config
        self.weights_sha256: dict[str, str] = {}
        self.surface = make_surface(config.points, config.palm_size_m)

    @property
    def gates(self) -> Mapping[str, Gate | None]:
        return self.config.gates

    def look(self, frames: Iterable[Frame], camera: Camera) -> Iterator[JointsSight]:
        """Keeps the joints of hands that are in view."""
        for frame in frames:
            hands = frame.hands if isinstance(frame, HandsFrame) else {}
            shown = {side: joints for side, joints in sorted(hands.items()) if _in_view(joints, camera)}
            pixels = [camera.project(joints) for joints in shown.values()]
            boxes = np.array([[*around.min(0), *around.max(0)] for around in pixels]).reshape(-1, 4)
            yield JointsSight(frame.time, shown, boxes)

    def lift(self, sights: Sequence[JointsSight], camera: Camera) -> Extraction:
        """Tracks of both hands, and the stretches that were too short or seen too seldom."""
        tracks: list[EffectorTrack] = []
        rejections: list[tuple[str, str]] = []
        times = np.array([sight.time for sight in sights])
        for side in sorted({side for sight in sights for side in sight.joints}):
            seen = np.array([side in sight.joints for sight in sights])
            segments, short = split_at_gaps(times, seen, self.config.max_gap_s, self.config.min_seconds)
            rejections += short
            for segment in segments:
                if (share := segment.measured.mean()) < self.config.min_measured:
                    start = times[segment.slots[0]]
                    detail = f"in view in {share:.0%} of {len(segment.slots)} frames from {start:.2f} s on"
                    rejections.append(("too_many_gaps", detail))
                    continue
                known = np.array([sights[slot].joints[side] for slot in segment.slots[segment.measured]])
                joints_T213 = _filled(times[segment.slots], segment.measured, known)
                tracks.append(self._track(joints_T213, side, segment, camera))
        return Extraction(tracks, rejections)

    def _track(self, joints_T213: np.ndarray, side: str, segment: Segment, camera: Camera) -> EffectorTrack:
        palm_m = float(np.median(palm_size(joints_T213)))
        surface = replace(self.surface, scale=palm_m / PALM_SIZE)
        points, normals = surface.points(joints_T213, side)
        visible = segment.measured[:, None] & facing_camera(points, normals)
        visible &= ~hidden_by_hand(points, joints_T213, surface.scale)
        visible &= _inside(camera.project(points), camera)
        return EffectorTrack(
            frame_slots=segment.slots,
            points=points.astype(np.float32),
            visible=visible,
            sigma=np.full((len(points), 2), SIGMA_M, np.float32),
            confidence=segment.measured.astype(np.float32),
            opening=pinch_opening(joints_T213, surface.scale).astype(np.float32),
            side=side,
            scale="metric",
            depth_source="recorded",
            quality={
                "measured": float(segment.measured.mean()),
                "visible": float(visible.mean()),
                "palm_size_m": palm_m,
            },
            overlay_px=camera.project(joints_T213).astype(np.float32),
            grasp=pinch_middle(joints_T213).astype(np.float32),
        )


def _in_view(joints_213: np.ndarray, camera: Camera) -> bool:
    """Whether all joints are known and before the camera, and enough of them in its picture."""
    if not np.isfinite(joints_213).all() or (joints_213[:, 2] <= 0).any():
        return False
    return bool(_inside(camera.project(joints_213), camera).mean() >= IN_VIEW)


def _inside(pixels: np.ndarray, camera: Camera) -> np.ndarray:
    """bool [...]: the pixel [...,2] is in the picture."""
    return np.all((pixels >= 0) & (pixels < np.array(camera.image_size)), axis=-1)


def _filled(times_T: np.ndarray, known_T: np.ndarray, joints_K213: np.ndarray) -> np.ndarray:
    """f64 [T,21,3]: the joints of the frames that are known, and between them on straight lines."""
    columns = joints_K213.reshape(len(joints_K213), -1).T
    return np.stack([np.interp(times_T, times_T[known_T], column) for column in columns], -1).reshape(-1, 21, 3)
