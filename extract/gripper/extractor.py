"""An effector that is found, cut out, followed, measured and lifted by five steps, each of which can be swapped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from data.episode import Frame
from extract.effector import Camera, EffectorTrack, Extraction
from extract.gates import Gate
from extract.gripper.config import GripperConfig
from extract.gripper.link import linked
from extract.gripper.steps import Steps, build_steps, sensor_anchors
from extract.segments import Segment, split_at_gaps
from extract.steps import Detection, NoLift, Shot

NAME = "steps/1"


@dataclass(frozen=True)
class FrameSight:
    """A frame and what was found in it; the frame is kept until its stretch is complete."""

    frame: Frame
    detections: Sequence[Detection]

    @property
    def time(self) -> float:
        return self.frame.time

    @property
    def found(self) -> bool:
        return bool(self.detections)

    @property
    def boxes(self) -> np.ndarray:
        """f64 [K,4] x0, y0, x1, y1 pixels."""
        return np.array([detection.box_4 for detection in self.detections]).reshape(-1, 4)


class GripperExtractor:
    """Detect, segment, track, depth, lift. See extract/steps.py for what the steps hand to each other."""

    nothing = "no_effector"

    def __init__(self, config: GripperConfig, steps: Steps | None = None):
        self.config = config
        self.steps = steps or build_steps(config)

    @property
    def name(self) -> str:
        """With the name of every step."""
        return f"{NAME}:{'+'.join(self.steps.names)}"

    @property
    def weights_sha256(self) -> dict[str, str]:
        return self.steps.weights_sha256

    @property
    def gates(self) -> Mapping[str, Gate | None]:
        return self.config.gates

    def look(self, frames: Iterable[Frame], camera: Camera) -> Iterator[FrameSight]:
        """Detects; keeps every frame until its stretch is complete, as masks and tracks need the pixels."""
        for frame, detections in self.steps.detect(frames, camera):
            yield FrameSight(frame, detections)

    def lift(self, sights: Sequence[FrameSight], camera: Camera) -> Extraction:
        """One track for each effector and part of the stretch in which it is in view. See effector.Extraction."""
        config, shot = self.config, Shot([sight.frame for sight in sights], camera)
        tracks: list[EffectorTrack] = []
        rejections: list[tuple[str, str]] = []
        found = [sight.detections for sight in sights]
        for seen in linked(shot.times_T, found, config.max_effectors, config.look_gap_s):
            masks = [
                mask if mask is not None and mask.sum() >= config.min_mask_px else None
                for mask in self.steps.segment(shot, seen)
            ]
            measured = np.array([mask is not None for mask in masks])
            segments, short = split_at_gaps(shot.times_T, measured, config.max_gap_s, config.min_seconds)
            rejections += short
            if not measured.any():
                named = sum(detection is not None for detection in seen)
                rejections.append(
                    ("no_mask", f"found in {named} frames, from {shot.times_T[0]:.2f} s on; cut out in none")
                )
            for segment in segments:
                try:
                    tracks.append(self._track(shot, seen, masks, segment))
                except NoLift as error:
                    rejections.append(("no_lift", f"from {shot.times_T[segment.slots[0]]:.2f} s on: {error}"))
        return Extraction(tracks, rejections)

    def _track(
        self,
        whole: Shot,
        seen: Sequence[Detection | None],
        masks: Sequence[np.ndarray | None],
        segment: Segment,
    ) -> EffectorTrack:
        steps, slots = self.steps, segment.slots
        shot = Shot([whole.frames[slot] for slot in slots], whole.camera)
        shown = [masks[slot] for slot in slots]
        followed = steps.track(shot, shown, self.config.points) if steps.track is not None else None
        depth = steps.depth(shot, sensor_anchors(shot))
        track = steps.lift(shot, shown, followed, depth)
        score_T = _scores([seen[slot] for slot in slots], shot.times_T)
        return replace(
            track,
            frame_slots=slots,
            confidence=(track.confidence * score_T).astype(np.float32),
            quality={**track.quality, "score": float(score_T.mean())},
        )


def _scores(seen: Sequence[Detection | None], times_T: np.ndarray) -> np.ndarray:
    """f64 [T]: the detector's score, interpolated over frames in which it did not look or find."""
    known = np.array([detection is not None for detection in seen])
    if not known.any():
        return np.zeros(len(seen))
    scores = np.array([detection.score for detection in seen if detection is not None])
    return np.interp(times_T, times_T[known], scores)
