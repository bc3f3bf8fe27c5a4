"""Reading one episode: its frames with depth and mask where there are any, its camera path and its labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np

from data.episode import Frame
from data.index import Episode
from data.undistort import Undistortion
from data.video import Unreadable, frames

ARRAYS = ("depth", "mask", "actor", "world_from_camera", "base_from_effector", "opening", "grasp", "actions", "proprio")


class EpisodeReader:
    """Lazy access to one episode. Raises Unreadable with a reason when video or arrays cannot be used."""

    def __init__(self, episode: Episode):
        self.episode = episode

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The known arrays of the companion file, one entry per video frame; empty when there is none."""
        path = self.episode.arrays_path
        if path is None:
            return {}
        try:
            with np.load(path, allow_pickle=False) as stored:
                found = {name: stored[name] for name in ARRAYS if name in stored}
        except (OSError, ValueError, EOFError, KeyError) as error:
            raise Unreadable("bad_arrays", f"{path.name} cannot be read ({error})") from None
        for name, array in found.items():
            if self.episode.frames and len(array) != self.episode.frames:
                detail = f"{path.name}: {name} has {len(array)} entries for {self.episode.frames} frames"
                raise Unreadable("bad_arrays", detail)
        for name, rest in (("actor", (self.episode.height, self.episode.width)), ("grasp", (3,))):
            if name in found and found[name].shape[1:] != rest:
                detail = f"{path.name}: {name} is {list(found[name].shape)}, expected {[len(found[name]), *rest]}"
                raise Unreadable("bad_arrays", detail)
        needed = ["depth", "mask"] if self.episode.sidecar.effector == "mask" else []
        needed += ["actions", "proprio"] if self.episode.sidecar.labelled else []
        if missing := [name for name in needed if name not in found]:
            raise Unreadable("bad_arrays", f"{path.name} has no {', '.join(missing)}")
        return found

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
        names = ("depth", "mask", "actor", "base_from_effector")
        depth, mask, actor, poses = (self.arrays.get(name) for name in names)
        rate = None if sidecar.labelled else rate_hz
        for index, time, image in frames(self.episode.path, rate, sidecar.frame_range):
            frame = Frame(
                index=index,
                time=time,
                image=image,
                depth=None if depth is None else depth[index].astype(np.float32) * np.float32(sidecar.depth_unit_m),
                mask=None if mask is None else mask[index].astype(bool),
                actor=None if actor is None else actor[index].astype(bool),
                base_from_effector=None if poses is None else poses[index].astype(np.float64),
            )
            yield self._straight(frame)

    def per_frame(self, name: str, indices: np.ndarray) -> np.ndarray | None:
        """An array's entries at the given video frames, float32, or None when the episode has none."""
        array = self.arrays.get(name)
        return None if array is None else array[indices].astype(np.float32)
