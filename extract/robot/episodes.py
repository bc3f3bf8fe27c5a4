"""Episodes as they are solved: recorded poses, small pictures, and image points that are followed through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.video import Unreadable
from extract.robot.background import background, foreground_share, stands_out
from extract.robot.bundle import Sights
from extract.robot.config import ProprioSettings
from extract.robot.guided import sharpness
from extract.robot.tracks import PictureTracks, working_picture
from extract.steps import Shot

MOVES = 4.0  # working pixels: tracks that travel less tell nothing
MOST_TRACKS = 300  # per episode
TEMPLATE_FRAMES = 24  # frames of an episode that templates are taken from, where possible: few are followed faster
IN_FRONT = 0.6  # share of a point's frames


@dataclass(frozen=True)
class Episode:
    """pictures: uint8 [h,w] each, at the working size. foreground_THW: bool, not background, original size.

    poses: f64 [T,4,4]. stride: every so many frames are adjusted.
    """

    pictures: list[np.ndarray]
    foreground_THW: np.ndarray
    poses: np.ndarray
    stride: int


@dataclass(frozen=True)
class Track:
    """One image point of one episode. pixels_T2: original pixels from the picture's middle, NaN where not seen.

    sharp_22: how sharply it is located, by direction (see ``guided.sharpness``).
    """

    episode: int
    template: int
    pixels_T2: np.ndarray
    sharp_22: np.ndarray

    @property
    def travel(self) -> float:
        return float(np.linalg.norm(np.nanmax(self.pixels_T2, 0) - np.nanmin(self.pixels_T2, 0)))


def recorded_poses(shot: Shot) -> np.ndarray | None:
    """f64 [T,4,4], or None when a frame has none. Raises Unreadable (bad_arrays) for what is no rigid pose."""
    poses = [frame.base_from_effector for frame in shot.frames]
    if any(pose is None for pose in poses):
        return None
    stacked = np.stack([pose for pose in poses if pose is not None]).astype(np.float64)
    turns = np.where(np.isfinite(stacked).all((1, 2), keepdims=True), stacked[:, :3, :3], 0)
    wrong = np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(3)).max((1, 2)) > 0.02
    wrong |= np.linalg.det(turns) < 0
    if wrong.any():
        frame = shot.frames[int(np.argmax(wrong))]
        raise Unreadable(
            "bad_arrays",
            f"base_from_effector: frame {frame.index} is no rigid pose ({stacked[wrong][0, :3].tolist()}); "
            "write rotation matrices (orthonormal, determinant 1) and metres",
        )
    return stacked


def read_episode(shot: Shot, poses: np.ndarray, scale: float, settings: ProprioSettings) -> Episode:
    """What is needed of a shot. poses: f64 [T,4,4]. scale: working pixels per original pixel."""
    stride = -(-len(shot.frames) // settings.solve_frames)
    images = [frame.image for frame in shot.frames]
    empty = background(images)
    foreground = np.stack([stands_out(image, empty) for image in images])
    return Episode([working_picture(image, scale) for image in images], foreground, poses, stride)


def moving_tracks(
    found: PictureTracks, episode: int, middle: np.ndarray, pictures: Sequence[np.ndarray]
) -> list[Track]:
    """The tracks that travel, those first that are long and travel far.

    middle: of the original picture, f64 [2]. pictures: of the episode, at the working size.
    """
    travel = found.travel_K * found.scale
    worth = found.seen_TK.sum(0) * np.minimum(travel, 60)
    chosen = [k for k in np.argsort(-worth, kind="stable")[:MOST_TRACKS] if travel[k] > MOVES]
    tracks = []
    shared = np.unique(np.linspace(0, len(found.seen_TK) - 1, TEMPLATE_FRAMES).round().astype(int))
    for k in chosen:
        slots = np.flatnonzero(found.seen_TK[:, k])
        wanted = np.intersect1d(slots, shared) if np.isin(slots, shared).any() else slots
        template = int(wanted[len(wanted) // 2])
        pixels_T2 = found.pixels_TK2[:, k].astype(np.float64)
        sharp = sharpness(pictures[template], pixels_T2[template] * found.scale - 0.5)
        tracks.append(Track(episode, template, pixels_T2 - middle, sharp))
    return tracks


def in_front(track: Track, episode: Episode, middle: np.ndarray) -> bool:
    """The point lies on what moves, not on the still background beside its outline."""
    seen = np.isfinite(track.pixels_T2[:, :1])
    return bool(foreground_share(episode.foreground_THW, track.pixels_T2[:, None] + middle, seen)[0] > IN_FRONT)


def sights_of(tracks: Sequence[Track], episodes: Sequence[Episode]) -> Sights:
    """The measurements of all tracks in the frames that are adjusted; in all where those are fewer than three."""
    first = np.cumsum([0] + [len(episode.poses) for episode in episodes])
    pixels, pose, owner = [], [], []
    for number, track in enumerate(tracks):
        slots = np.flatnonzero(np.isfinite(track.pixels_T2[:, 0]))
        kept = slots[slots % episodes[track.episode].stride == 0]
        slots = kept if len(kept) >= 3 else slots
        pixels.append(track.pixels_T2[slots])
        pose.append(slots + first[track.episode])
        owner.append(np.full(len(slots), number))
    poses = np.concatenate([episode.poses for episode in episodes])
    sharp = np.stack([track.sharp_22 for track in tracks])
    return Sights(np.concatenate(pixels), np.concatenate(pose), np.concatenate(owner), poses, len(tracks), sharp)
