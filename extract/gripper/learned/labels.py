"""Labelled episodes as lessons need them: pictures, where the gripper is in the camera, how open it is.

A camera whose path was not recorded is found from the recorded motion (``extract/robot/solve.py``), for the episodes of
one source and lens together: it must then stand still, and be the same for those that are solved together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np

from data.episode import Frame
from data.index import Episode
from data.reader import EpisodeReader
from data.video import Unreadable
from extract.effector import Camera
from extract.gripper.labelled import has_array
from extract.gripper.learned.settings import LearnedSettings
from extract.passage import camera_of
from extract.robot.episodes import recorded_poses
from extract.robot.solve import solve
from extract.steps import Shot

ASSUMED_FOV_DEG = 60.0


@dataclass(frozen=True)
class Labelled:
    """T frames of one labelled episode. images: u8 [H,W,3] each. poses_T44: camera_from_effector, metres, finite.

    opening_T: metres, finite.
    """

    images: list[np.ndarray]
    camera: Camera
    poses_T44: np.ndarray
    opening_T: np.ndarray


def labelled(episodes: Sequence[Episode], settings: LearnedSettings) -> Iterator[Labelled]:
    """Those of the episodes whose camera is known or can be found, in their order, known cameras first.

    Of long ones, the first ``camera.max_frames`` frames.
    """
    unknown = []
    for episode in episodes:
        if has_array(episode, "world_from_camera"):
            known = None
            with suppress(Unreadable, np.linalg.LinAlgError):  # extraction will say so
                known = _with_known_camera(episode, settings)
            if known is not None:
                yield known
        else:
            unknown.append(episode)
    for _, alike in groupby(sorted(unknown, key=_lens), key=_lens):
        same = list(alike)
        for start in range(0, len(same), settings.camera.together):
            yield from _with_found_camera(same[start : start + settings.camera.together], settings)


def _lens(episode: Episode) -> str:
    return f"{episode.source} {episode.width} {episode.height} {episode.sidecar.intrinsics}"


def _with_known_camera(episode: Episode, settings: LearnedSettings) -> Labelled | None:
    reader = EpisodeReader(episode)
    frames = _frames(reader, settings)
    world_from_camera = _array(reader, "world_from_camera", [frame.index for frame in frames])
    recorded = [frame.base_from_effector for frame in frames]
    poses = np.stack([pose for pose in recorded if pose is not None])
    return _finite(
        [frame.image for frame in frames],
        _camera(episode),
        np.linalg.inv(world_from_camera) @ poses,
        _array(reader, "opening", [frame.index for frame in frames]),
    )


def _with_found_camera(episodes: Sequence[Episode], settings: LearnedSettings) -> Iterator[Labelled]:
    readers: list[EpisodeReader] = []
    shots: list[Shot] = []
    for reader in map(EpisodeReader, episodes):
        with suppress(Unreadable):  # extraction will say so
            shot = Shot(_frames(reader, settings), _camera(episodes[0]))
            recorded_poses(shot)
            readers.append(reader)
            shots.append(shot)
    if not shots:
        return
    solved = solve(shots, settings.camera)
    if solved.reason is not None or solved.camera is None or solved.camera_from_base is None:
        return
    for reader, shot, ridden in zip(readers, shots, solved.episodes, strict=True):
        opening = _array(reader, "opening", [frame.index for frame in shot.frames])
        found = _finite(
            [frame.image for frame in shot.frames], solved.camera, solved.camera_from_base @ ridden.poses, opening
        )
        if found is not None:
            yield found


def _frames(reader: EpisodeReader, settings: LearnedSettings) -> list[Frame]:
    return list(islice(reader.frames(None), settings.camera.max_frames))


def _camera(episode: Episode) -> Camera:
    return camera_of(episode, ASSUMED_FOV_DEG)


def _array(reader: EpisodeReader, name: str, indices: Sequence[int]) -> np.ndarray:
    found = reader.per_frame(name, np.asarray(indices, int))
    assert found is not None, name
    return found.astype(np.float64)


def _finite(images: list[np.ndarray], camera: Camera, poses: np.ndarray, opening: np.ndarray) -> Labelled | None:
    """The frames whose labels are known and whose gripper is in front of the camera; None for fewer than two."""
    known = np.isfinite(poses).all((1, 2)) & np.isfinite(opening) & (poses[:, 2, 3] > 0)
    if known.sum() < 2:
        return None
    return Labelled([images[k] for k in np.flatnonzero(known)], camera, poses[known], opening[known])
