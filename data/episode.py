"""One frame of an episode, as every source delivers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Frame:
    """One decoded frame.

    index: position in the video file. time: presentation time in seconds.
    image: uint8 [H,W,3] RGB. depth: f32 [H,W] metres along z, 0 = not measured, or None.
    mask: bool [H,W], the effector's pixels, or None. actor: bool [H,W], the effector's and its arm's pixels, or None.
    base_from_effector: f64 [4,4] metres, the end-effector pose that the robot recorded, in its base frame, or None.
    """

    index: int
    time: float
    image: np.ndarray
    depth: np.ndarray | None = None
    mask: np.ndarray | None = None
    actor: np.ndarray | None = None
    base_from_effector: np.ndarray | None = None


@dataclass(frozen=True)
class HandsFrame(Frame):
    """A frame of an episode that brings the joints of its hands.

    hands: by side, ``left`` and ``right``, f64 [21,3] metres, camera frame: wrist, then thumb to little finger, each
    from its root to its tip. NaN = unknown.
    """

    hands: Mapping[str, np.ndarray] = field(default_factory=dict)
