"""The camera that saw a robot whose end-effector poses were recorded, and what in its picture rides on the effector.

    corners of the whole picture -> camera guesses from single tracks -> the guess that explains most of what moves
    -> bundle adjustment -> tracks again, guided by the motion -> bundle adjustment -> how sure that is

Static camera, square pixels, principal point in the middle. Everything is metric, because the poses are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from extract.effector import Camera
from extract.robot.bundle import Priors, adjust
from extract.robot.choose import agreeing, best_camera, riders
from extract.robot.config import ProprioSettings
from extract.robot.episodes import in_front, moving_tracks, read_episode, recorded_poses, sights_of
from extract.robot.judge import Solved, judge, no_rigid_tracks
from extract.robot.renew import denser, followed_again
from extract.robot.starts import place_tracks
from extract.robot.tracks import picture_tracks
from extract.steps import Shot
from pipeline.errors import UserError

CHAIN_NOISE, GUIDED_NOISE = 2.0, 1.0  # working pixels: chained tracks drift, guided ones hardly
KNOWN_SPREAD = {"given": 0.003, "metadata": 0.03, "estimated": 0.03}  # of the logarithm of the focal length


def solve(shots: Sequence[Shot], settings: ProprioSettings) -> Solved:
    """One static camera for all ``shots``, whose frames carry ``base_from_effector`` in one base frame.

    Raises Unreadable for poses that are not rigid, UserError for shots of different size.
    """
    sizes = {shot.camera.image_size for shot in shots}
    if len(sizes) != 1:
        raise UserError(f"proprio: episodes solved together must have one image size, found {sorted(sizes)}")
    recorded = [recorded_poses(shot) for shot in shots]
    if any(poses is None for poses in recorded):
        return Solved(reason="no_poses", detail="frames without base_from_effector")
    poses = [found for found in recorded if found is not None]
    travel = max(float(np.linalg.norm(np.ptp(path[:, :3, 3], axis=0))) for path in poses)
    if travel < settings.min_travel_m:
        detail = f"the effector moved {1000 * travel:.0f} mm; at least {1000 * settings.min_travel_m:.0f} mm are needed"
        return Solved(reason="too_little_motion", detail=detail)

    scale = settings.tracks.work_side / max(shots[0].camera.image_size)
    middle = np.array(shots[0].camera.image_size) / 2
    episodes = [read_episode(shot, path, scale, settings) for shot, path in zip(shots, poses, strict=True)]
    tracks = [
        track
        for number, shot in enumerate(shots)
        for track in moving_tracks(
            picture_tracks([f.image for f in shot.frames], settings.tracks), number, middle, episodes[number].pictures
        )
    ]
    if len(tracks) < settings.min_tracks:
        detail = f"{len(tracks)} moving image tracks; at least {settings.min_tracks} are needed"
        return Solved(reason="nothing_moves", detail=detail)
    rough = _priors(shots[0].camera, settings, CHAIN_NOISE / scale)
    rig = best_camera(sights_of(tracks, episodes), np.array([t.travel for t in tracks]) * scale, rough)

    fine = replace(rough, noise=GUIDED_NOISE / scale)
    for width in (2.0, 1.0):
        riding, _ = riders(sights_of(tracks, episodes), rig, replace(fine, noise=width * fine.noise))
        if riding.sum() < settings.min_tracks:
            return no_rigid_tracks(riding, settings)
        tracks = [track for track, kept in zip(tracks, riding, strict=True) if kept]
        sights = sights_of(tracks, episodes)
        rig, _ = adjust(sights, place_tracks(sights, rig, fine), fine, rounds=25)
        tracks = followed_again(tracks, episodes, rig, scale, middle)
    tracks += denser(tracks, episodes, rig, scale, middle, settings.points)
    tracks = [track for track in tracks if in_front(track, episodes[track.episode], middle)]
    if not tracks:
        return Solved(
            reason="no_rigid_tracks", detail="nothing that rides on the effector stands out from its background"
        )
    sights = sights_of(tracks, episodes)
    placed = place_tracks(sights, rig, fine)
    riding, _ = agreeing(sights, placed, fine)
    if riding.sum() < settings.min_tracks:
        return no_rigid_tracks(riding, settings)
    tracks = [track for track, kept in zip(tracks, riding, strict=True) if kept]
    sights = sights.of_tracks(riding)
    rig, _ = adjust(sights, replace(placed, offsets_K3=placed.offsets_K3[riding]), fine)
    return judge(tracks, episodes, sights, rig, fine, shots[0].camera, settings)


def _priors(camera: Camera, settings: ProprioSettings, noise: float) -> Priors:
    if camera.origin in KNOWN_SPREAD:
        return Priors(camera.focal_px, KNOWN_SPREAD[camera.origin], settings.size_m, settings.reach_m, noise)
    widest, narrowest = (0.5 * max(camera.image_size) / np.tan(np.deg2rad(f) / 2) for f in settings.fov_deg[::-1])
    spread = float(np.log(narrowest / widest)) / 3  # the usual range is three sigma wide
    return Priors(float(np.sqrt(narrowest * widest)), spread, settings.size_m, settings.reach_m, noise)
