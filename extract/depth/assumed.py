"""One distance for all pixels, as the user states it: for videos that have no depth, where motion in the picture is all
that is wanted. A cloud on such a plane moves across the view as the effector does and never towards the camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from extract.steps import DepthAnchor, DepthMaps, Shot
from pipeline.config import Settings


class AssumedDepthSettings(Settings):
    """A plane across the view."""

    name: Literal["assumed"] = "assumed"
    distance_m: float = Field(gt=0, description="Distance of the effector from the camera along its axis, metres.")
    sigma: float = Field(
        default=0.01,
        gt=0,
        description="Relative error of one depth beside another, one sigma. The larger, the more points are held to "
        "move with their neighbours.",
    )


class AssumedDepth:
    """A DepthSource that measures nothing. Its scale is `relative`: nothing in the video says how far anything is."""

    def __init__(self, settings: AssumedDepthSettings):
        self.settings = settings

    @property
    def weights_sha256(self) -> dict[str, str]:
        """There are none."""
        return {}

    def __call__(self, shot: Shot, anchors: Sequence[DepthAnchor]) -> DepthMaps:
        """The same map for every frame; anchors are not needed."""
        plane = np.full(shot.frames[0].image.shape[:2], self.settings.distance_m, np.float32)
        return DepthMaps([plane] * len(shot.frames), "relative", self.settings.sigma, "assumed")
