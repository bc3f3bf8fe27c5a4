"""How the camera moved over one stretch of video: not at all, along an estimated path, or nobody can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from extract.camera.bundle import Noise, reprojection
from extract.camera.config import CameraMotionConfig
from extract.camera.metric import Limits, Unsolved, solve_metric
from extract.camera.monocular import solve_relative
from extract.camera.observations import Observations, Row, choose_keyframes, collect
from extract.camera.turning import solve_turning
from extract.effector import Camera

DEPTH_SHARE = 0.25  # of the observations must have depth for a path with depth
TURN_FACTOR = 2.5  # a camera only turned if this many pixel sigmas explain the background in nearly every frame
LEAST_SPREAD = 0.35  # of the picture, see _spread
FAR = 0.06  # of the longer side: motion from key frame to key frame

Kind = Literal["static", "estimated", "unknown"]
PathScale = Literal["metric", "assumed", "relative", "turn"]


@dataclass(frozen=True)
class CameraMotion:
    """T frames. Where ``kind`` is ``unknown``, points are good in the camera frame only.

    world_from_camera_T44: f64, world = the camera of the first frame; identity when static or unknown.
    kind: ``static``, ``estimated`` or ``unknown``.
    scale: what the path's lengths rest on: that of the depth it was made with (``metric``, ``assumed``, ``relative``);
        ``relative`` without depth, with the background's median distance in the first frame as unit; ``turn``: the
        camera turned on the spot, as far as the background tells, and there is no length. None when unknown.
    residual_px: median distance of the background from where the path puts it, pixels; NaN when unknown.
    inliers: share of background points that agree with the path. points: of the background per frame, median.
    reason: why it is unknown; empty otherwise.
    """

    world_from_camera_T44: np.ndarray
    kind: Kind
    scale: PathScale | None
    residual_px: float
    inliers: float
    points: float
    reason: str = ""


def estimate_camera_motion(
    rows: Sequence[Row],
    camera: Camera,
    config: CameraMotionConfig,
    zoom: float,
    depth_scale: PathScale,
    depth_sigma: float | None,
) -> CameraMotion:
    """The camera's path over consecutive frames.

    zoom: pixels of the full picture per pixel of the small one, in which the settings count. depth_scale, depth_sigma
    (relative): of the depth in ``rows``.
    """
    counts = np.array([len(row.ids) for row in rows])
    if np.mean(counts >= config.min_points) < 0.95:
        few = int(np.sort(counts)[len(counts) // 20])
        return _unknown(len(rows), f"too few background points: {few} in a frame, {config.min_points} needed", counts)
    if len(rows) < 2:
        return _unknown(len(rows), "a single frame", counts)
    seen = collect(rows)
    if (lost := _lost(seen, config.min_points // 2)) is not None:
        reason = f"the background cannot be followed from frame {lost - 1} to {lost} of the stretch"
        return _unknown(len(rows), f"{reason} (a cut, or too fast)", counts)
    resting = _rest(seen, np.array([row.drift for row in rows]), config.still_px * zoom, config.still_px)
    if resting is not None:
        return CameraMotion(_identity(len(rows)), "static", "metric", resting[0], resting[1], float(np.median(counts)))
    if (spread := _spread(seen.pixels_O2, camera.image_size)) < LEAST_SPREAD:
        return _unknown(len(rows), f"background is seen in only {spread:.0%} of the picture", counts)
    noise = Noise(config.pixel_sigma * zoom, depth_sigma or config.depth_sigma)
    limits = Limits(4 * noise.pixel, config.min_points, config.min_inliers)
    try:
        poses, scale, residual = _solve(seen, camera, noise, limits, depth_scale, config.relative)
    except Unsolved as error:
        return _unknown(len(rows), str(error), counts)
    agree = residual <= limits.stray_px
    share, middle = (
        float(agree.sum() / max(np.count_nonzero(~np.isnan(residual)), 1)),
        float(np.median(residual[agree])) if agree.any() else float("inf"),
    )
    per_frame = np.bincount(seen.frame_O, agree, seen.frames)
    needed = config.min_inliers if scale == depth_scale else config.min_inliers_relative
    if np.mean(per_frame >= config.min_points // 2) < 0.95 or share < needed:
        reason = f"only {share:.0%} of the background agrees with one path; {needed:.0%} needed"
        return _unknown(len(rows), reason, counts)
    if (spread := _spread(seen.pixels_O2[agree], camera.image_size)) < LEAST_SPREAD:
        return _unknown(len(rows), f"what agrees with the path covers only {spread:.0%} of the picture", counts)
    if middle > config.max_residual_px * zoom:
        reason = f"the background lies {middle:.1f} pixels off the path; at most {config.max_residual_px * zoom:.1f}"
        return _unknown(len(rows), reason, counts)
    return CameraMotion(poses, "estimated", scale, middle, share, float(np.median(counts)))


def _identity(frames: int) -> np.ndarray:
    return np.tile(np.eye(4), (frames, 1, 1))


def _unknown(frames: int, reason: str, counts: np.ndarray) -> CameraMotion:
    return CameraMotion(_identity(frames), "unknown", None, float("nan"), 0.0, float(np.median(counts)), reason)


def _lost(seen: Observations, least: int) -> int | None:
    """The first frame that shares fewer than ``least`` points with the one before."""
    return next((f for f in range(1, seen.frames) if len(seen.common(f - 1, f)[0]) < least), None)


def _spread(pixels_O2: np.ndarray, image_size: tuple[int, int]) -> float:
    """Share of a 4x4 grid over the picture in which background was seen, beyond single points.

    A sleeve or a thing in the hand fills a corner; it may look rigid for a while, but it is no background.
    """
    cell = np.clip((pixels_O2 / np.array(image_size) * 4).astype(int), 0, 3) @ np.array([1, 4])
    return float((np.bincount(cell, minlength=16) > 0.01 * len(cell)).mean())


def _rest(seen: Observations, drift_F2: np.ndarray, still_px: float, drift_px: float) -> tuple[float, float] | None:
    """(residual, inliers) of a camera at rest, or None when it moves. drift_F2, drift_px: in the small picture."""
    wandered = np.linalg.norm(drift_F2 - np.median(drift_F2, axis=0), axis=1)
    count = np.bincount(seen.point_O, minlength=seen.points)
    mean = (
        np.stack([np.bincount(seen.point_O, axis, seen.points) for axis in seen.pixels_O2.T], axis=1) / count[:, None]
    )
    away = np.linalg.norm(seen.pixels_O2 - mean[seen.point_O], axis=1)
    middles = np.array([np.median(away[seen.of(frame)]) if seen.of(frame).stop > seen.of(frame).start else 0.0
                        for frame in range(seen.frames)])  # fmt: skip
    if np.quantile(wandered, 0.98) > drift_px or np.quantile(middles, 0.98) > still_px:
        return None
    return float(np.median(away)), float((away <= still_px).mean())


def _solve(
    seen: Observations, camera: Camera, noise: Noise, limits: Limits, depth_scale: PathScale, relative: bool
) -> tuple[np.ndarray, PathScale, np.ndarray]:
    """world_from_camera, scale, residual of every observation: pixels, NaN where its point was never placed."""
    k = camera.intrinsics_33
    keyframes = choose_keyframes(seen, FAR * max(camera.image_size))
    turns, residual = solve_turning(seen, k, noise.pixel)
    per_frame = np.array([np.nanmedian(residual[seen.of(frame)]) for frame in range(seen.frames)])
    if np.quantile(per_frame, 0.95) < TURN_FACTOR * noise.pixel:
        poses = _identity(seen.frames)
        poses[:, :3, :3] = turns[0].T @ turns
        return poses, "turn", residual
    if (seen.depth_O > 0).mean() > DEPTH_SHARE:
        scene = solve_metric(seen, keyframes, k, noise, limits)
        return scene.world_from_camera_F44, depth_scale, reprojection(scene, seen, k)
    if not relative:
        raise Unsolved("the camera moves, and without depth the scale of its path is not known")
    scene = solve_relative(seen, keyframes, k, noise, limits, turns)
    return scene.world_from_camera_F44, "relative", reprojection(scene, seen, k)
