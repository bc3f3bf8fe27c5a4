"""Depth as a sensor measured it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from extract.steps import DepthAnchor, DepthMaps, NoLift, Shot
from pipeline.config import Settings


class SensorDepthSettings(Settings):
    """The depth images of the episode."""

    name: Literal["sensor"] = "sensor"
    sigma_m: float = Field(default=0.004, gt=0, description="Noise of the depth image, one sigma, metres.")


class SensorDepth:
    """A DepthSource: the frames' own depth images; anchors are not needed."""

    def __init__(self, settings: SensorDepthSettings):
        self.settings = settings

    @property
    def weights_sha256(self) -> dict[str, str]:
        """There are none."""
        return {}

    def __call__(self, shot: Shot, anchors: Sequence[DepthAnchor]) -> DepthMaps:
        """Metric maps; values that are negative or no numbers count as not known.

        Raises NoLift when no frame has any depth.
        """
        maps = [None if frame.depth is None else _clean(frame.depth) for frame in shot.frames]
        middles = [float(np.median(values[values > 0])) for values in maps if values is not None and values.any()]
        if not middles:
            raise NoLift(
                "depth: the episode has no depth images, or they are empty. Name its depth file in the sidecar, or "
                "choose another source of depth (depth-anything)."
            )
        return DepthMaps(maps, "metric", self.settings.sigma_m / float(np.median(middles)), "sensor")


def _clean(depth_HW: np.ndarray) -> np.ndarray:
    ok = np.isfinite(depth_HW) & (depth_HW >= 0)
    return depth_HW if ok.all() else np.where(ok, depth_HW, 0).astype(np.float32)
