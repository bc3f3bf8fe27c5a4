"""Plain ways to follow surface points, to measure the mask tracker against. Same frames, same first points."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.spatial import KDTree

from data.episode import Frame
from data.geometry import rigid_fit, transform
from extract.effector import Camera
from extract.mask.surface import effector_pixels, measured_surface
from extract.mask.tracker import Pose, SurfaceTracker

Step = Callable[[np.ndarray, np.ndarray], np.ndarray]  # points [N,3], surface [S,3] -> points in the next frame
EVERY_PIXEL = 10**9


def chained(step: Step, frames: Sequence[Frame], camera: Camera, points_N3: np.ndarray, reference: int) -> np.ndarray:
    """f64 [F,N,3]: ``step`` from frame to frame, outwards from the reference."""
    points = {reference: points_N3.astype(np.float64)}
    for direction in (1, -1):
        frame = reference + direction
        while 0 <= frame < len(frames):
            surface = measured_surface(frames[frame], camera, EVERY_PIXEL).points_N3
            previous = points[frame - direction]
            points[frame] = step(previous, surface) if len(surface) else previous
            frame += direction
    return np.stack([points[frame] for frame in range(len(frames))])


def nearest(points_N3: np.ndarray, surface_S3: np.ndarray) -> np.ndarray:
    """Every point jumps to the closest measured point."""
    _, index = KDTree(surface_S3).query(points_N3)
    return surface_S3[np.asarray(index)]


def rigid(points_N3: np.ndarray, surface_S3: np.ndarray) -> np.ndarray:
    """All points move as one solid: trimmed iterative closest points (Besl and McKay, 1992)."""
    tree, placed = KDTree(surface_S3), points_N3 + surface_S3.mean(0) - points_N3.mean(0)
    for _ in range(20):
        distance, index = tree.query(placed)
        kept = distance <= np.quantile(distance, 0.8)
        placed = transform(rigid_fit(placed[kept], surface_S3[np.asarray(index)[kept]]), placed)
    return placed


def online(frames: Sequence[Frame], camera: Camera, count: int, polished: bool) -> tuple[np.ndarray, int]:
    """The tracker as a policy can use it: from the first frame on, nothing from the future.

    polished: learn from the poses so far and register again. Returns points [F,N,3] and the reference, the first frame
    with an effector; frames before it and without effector keep the neighbour's points.
    """
    seen = [number for number, frame in enumerate(frames) if effector_pixels(frame) >= 30]
    tracker = SurfaceTracker(frames[seen[0]], camera, count)
    poses: list[Pose] = [tracker.start]
    found = {seen[0]: tracker.points(tracker.start)}
    for number in seen[1:]:
        poses.append(tracker.follow(frames[number], poses[-1], poses[-2] if len(poses) > 1 else None))
        pose = poses[-1]
        if polished:
            tracker.learn(poses)
            pose = tracker.polish(frames[number], pose)
        found[number] = tracker.points(pose)
    result, last = [], found[seen[0]]
    for number in range(len(frames)):
        last = found.get(number, last)
        result.append(last)
    return np.stack(result), seen[0]
