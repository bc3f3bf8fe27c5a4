"""The tracks of episodes again, guided by the motion that was found, and more of them between those that ride."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from extract.robot.bundle import Rig
from extract.robot.episodes import Episode, Track
from extract.robot.guided import faint_corners, follow_templates, sharpness

TEMPLATES = 3  # pictures of an episode in which more points are looked for
DENSE_SPACING = 3.0  # working pixels


def followed_again(
    tracks: Sequence[Track],
    episodes: Sequence[Episode],
    rig: Rig,
    scale: float,
    middle: np.ndarray,
    every: bool = False,
) -> list[Track]:
    """The tracks again, from templates, where ``rig`` (whose offsets are theirs) wants them.

    scale: working pixels per original pixel. middle: of the original picture, f64 [2]. every: in all frames, not only
    in those that are adjusted.
    """
    renewed = list(tracks)
    for number, episode in enumerate(episodes):
        own = [k for k, track in enumerate(tracks) if track.episode == number]
        if not own:
            continue
        points = rig.in_camera(episode.poses[:, None], rig.offsets_K3[None, own])
        expected = rig.focal * points[..., :2] / np.maximum(points[..., 2:], 1e-3)
        template = np.array([tracks[k].template for k in own])
        seen = np.stack([tracks[k].pixels_T2[tracks[k].template] for k in own])
        expected += seen - expected[template, np.arange(len(own))]
        followed = _followed([tracks[k] for k in own], episode, expected, scale, middle, every)
        for k, track in zip(own, followed, strict=True):
            renewed[k] = track
    return renewed


def denser(
    tracks: Sequence[Track], episodes: Sequence[Episode], rig: Rig, scale: float, middle: np.ndarray, most: int
) -> list[Track]:
    """More points between the ones that ride: every corner, however faint, near them in a few pictures.

    most: points of an episode, counting those that it has. rig, scale, middle: as in ``followed_again``.
    """
    added: list[Track] = []
    for number, episode in enumerate(episodes):
        own = [k for k, track in enumerate(tracks) if track.episode == number]
        if len(own) < 3 or len(own) >= most:
            continue
        points = rig.in_camera(episode.poses[:, None], rig.offsets_K3[None, own])
        wanted = rig.focal * points[..., :2] / np.maximum(points[..., 2:], 1e-3)
        seen = np.isfinite(np.stack([tracks[k].pixels_T2[:, 0] for k in own], 1)).sum(1)
        fresh: list[Track] = []
        for part in np.array_split(np.arange(len(seen)), TEMPLATES):
            if not len(part) or seen[part].max() < 3:
                continue
            slot = int(part[np.argmax(seen[part])])
            corners = faint_corners((wanted[slot] + middle) * scale - 0.5, episode.pictures[slot], DENSE_SPACING)
            for corner in corners[: (most - len(own)) // TEMPLATES]:
                pixels = np.full((len(seen), 2), np.nan)
                pixels[slot] = (corner + 0.5) / scale - middle
                fresh.append(Track(number, slot, pixels, sharpness(episode.pictures[slot], corner)))
        if not fresh:
            continue
        # Followed as if they were as far away as the middle of those that are known.
        origin = rig.in_camera(episode.poses, np.median(rig.offsets_K3[own], 0))
        path = rig.focal * origin[:, :2] / np.maximum(origin[:, 2:], 1e-3)
        template = np.array([track.template for track in fresh])
        expected = path[:, None] + np.stack([t.pixels_T2[t.template] for t in fresh]) - path[template]
        added += _followed(fresh, episode, expected, scale, middle)
    return added


def _followed(
    tracks: Sequence[Track],
    episode: Episode,
    expected_TK2: np.ndarray,
    scale: float,
    middle: np.ndarray,
    every: bool = False,
) -> list[Track]:
    """``tracks`` of one episode from their templates; as they were where a template is hardly found again.

    every: in all frames, not only in those that are adjusted.
    """
    template = np.array([track.template for track in tracks])
    stride = 1 if every else episode.stride
    found, ok = follow_templates(episode.pictures, template, (expected_TK2 + middle) * scale - 0.5, stride)
    pixels = np.where(ok[..., None], (found.astype(np.float64) + 0.5) / scale - middle, np.nan)
    return [replace(track, pixels_T2=pixels[:, k]) if ok[:, k].sum() >= 4 else track for k, track in enumerate(tracks)]
