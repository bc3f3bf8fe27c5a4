"""Effectors that come with a mask and depth: robot grippers in RGB-D data and simulated effectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from data.episode import Frame
from extract.effector import Camera, EffectorTrack, Extraction
from extract.gates import Gate
from extract.lift.surface import Surface, SurfaceConfig
from extract.mask.config import MaskConfig
from extract.mask.surface import effector_pixels
from extract.segments import Segment, split_at_gaps
from extract.steps import DepthMaps, Shot

NAME = "mask-depth/3"


@dataclass(frozen=True)
class FrameSight:
    """A frame with its effector pixels counted."""

    frame: Frame
    pixels: int
    found: bool

    @property
    def time(self) -> float:
        return self.frame.time

    @property
    def boxes(self) -> np.ndarray:
        """f64 [K,4] x0, y0, x1, y1 pixels."""
        if not self.found or self.frame.mask is None:
            return np.zeros((0, 4))
        rows, columns = np.nonzero(self.frame.mask)
        return np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], float)


class MaskExtractor:
    """Masks and depth in, one track per stretch with the effector in view out."""

    name = NAME
    nothing = "no_effector"

    def __init__(self, config: MaskConfig):
        self.config = config
        self.weights_sha256: dict[str, str] = {}
        self._lift = Surface(SurfaceConfig(points=config.points, min_mask_px=config.min_mask_px))

    @property
    def gates(self) -> Mapping[str, Gate | None]:
        return self.config.gates

    def look(self, frames: Iterable[Frame], camera: Camera) -> Iterator[FrameSight]:
        """Keeps every frame until its stretch is complete: surfaces are registered to each other."""
        for frame in frames:
            pixels = effector_pixels(frame)
            yield FrameSight(frame, pixels, pixels >= self.config.min_mask_px)

    def lift(self, sights: Sequence[FrameSight], camera: Camera) -> Extraction:
        """One track for each part of the stretch in which the effector is in view. See effector.Extraction."""
        frames = [sight.frame for sight in sights]
        times = np.array([sight.time for sight in sights])
        seen = np.array([sight.found for sight in sights])
        segments, rejections = split_at_gaps(times, seen, self.config.max_gap_s, self.config.min_seconds)
        return Extraction([self._track(frames, segment, camera) for segment in segments], rejections)

    def _track(self, frames: list[Frame], segment: Segment, camera: Camera) -> EffectorTrack:
        shot = Shot([frames[slot] for slot in segment.slots], camera)
        pairs = list(zip(shot.frames, segment.measured, strict=True))
        masks = [frame.mask if measured else None for frame, measured in pairs]
        depth = DepthMaps([frame.depth for frame in shot.frames], "metric", self.config.depth_sigma, "sensor")
        return replace(self._lift(shot, masks, None, depth), frame_slots=segment.slots)
