"""Reading one episode: its frames with depth and mask where there are any, its camera path and its labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np

from data.episode import Frame, HandsFrame
from data.footage import JOINTS, footage_of
from data.index import Episode
from data.undistort import Undistortion
from data.video import Unreadable


class EpisodeReader:
    """Lazy access to one episode. Raises Unreadable with a reason when video or arrays cannot be used."""

    def __init__(self, episode: Episode):
        self.episode = episode
        self._footage = footage_of(episode)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The known arrays, one entry per frame of the video or recording; empty when there are none."""
        return self._footage.arrays

    @cached_property
    def undistortion(self) -> Undistortion | None:
        """What straightens the frames, or None: no distortion is known, or the frames are rectified already."""
        sidecar = self.episode.sidecar
        if sidecar.distortion is None or sidecar.rectified or sidecar.intrinsics is None:
            return None
        size = (self.episode.width, self.episode.height)
        return Undistortion(np.asarray(sidecar.intrinsics, np.float64), sidecar.distortion, sidecar.lens, size)

    def _straight(self, frame: Frame) -> Frame:
        lens = self.undistortion
        if lens is None:
            return frame
        found = {"image": frame.image, "depth": frame.depth, "mask": frame.mask, "actor": frame.actor}
        for name, values in found.items():
            if values is not None and values.shape[1::-1] != lens.image_size:
                sizes = f"{name} is {values.shape[1]}x{values.shape[0]}, the lens was given for {lens.image_size}"
                raise Unreadable("bad_arrays", f"{sizes}; undistort it yourself and say rectified: true")
        return replace(
            frame,
            image=lens.image(frame.image),
            depth=None if frame.depth is None else lens.depth(frame.depth),
            mask=None if frame.mask is None else lens.mask(frame.mask),
            actor=None if frame.actor is None else lens.mask(frame.actor),
        )

    def frames(self, rate_hz: float | None) -> Iterator[Frame]:
        """Frames at a rate. A labelled episode is read at its own rate: an action belongs to one frame interval.

        Frames, depth and masks come out without lens distortion when the sidecar describes it.
        """
        sidecar = self.episode.sidecar
        mask, actor, poses = (self.arrays.get(name) for name in ("mask", "actor", "base_from_effector"))
        hands = {name.removeprefix("joints_"): self.arrays[name] for name in JOINTS if name in self.arrays}
        for index, time, image, depth in self._footage.shown(None if sidecar.labelled else rate_hz):
            frame = HandsFrame(
                index=index,
                time=time,
                image=image,
                depth=depth,
                mask=None if mask is None else mask[index].astype(bool),
                actor=None if actor is None else actor[index].astype(bool),
                base_from_effector=None if poses is None else poses[index].astype(np.float64),
                hands={side: joints_T213[index].astype(np.float64) for side, joints_T213 in hands.items()},
            )
            yield self._straight(frame)

    def per_frame(self, name: str, indices: np.ndarray) -> np.ndarray | None:
        """An array's entries at the given video frames, float32, or None when the episode has none."""
        array = self.arrays.get(name)
        return None if array is None else array[indices].astype(np.float32)
