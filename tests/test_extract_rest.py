"""Rest is cut out, motion of a single finger is not rest, and what stays is told by frame."""

from __future__ import annotations

import numpy as np

from extract.effector import EffectorTrack
from extract.rest import without_rest
from extract.stretches import ClipSettings

RATE = 20


def track_of(points_TN3: np.ndarray) -> tuple[EffectorTrack, np.ndarray]:
    frames, count = points_TN3.shape[:2]
    track = EffectorTrack(
        frame_slots=np.arange(frames) + 7,
        points=points_TN3.astype(np.float32),
        visible=np.ones((frames, count), bool),
        sigma=np.full((frames, 2), 0.003, np.float32),
        confidence=np.ones(frames, np.float32),
        opening=np.zeros(frames, np.float32),
        side=None,
        scale="metric",
        depth_source="sensor",
    )
    return track, np.arange(frames) / RATE


def cloud(frames: int) -> np.ndarray:
    shape = np.random.default_rng(0).normal((0, 0, 0.6), 0.03, (30, 3))
    return np.tile(shape, (frames, 1, 1))


def test_rest_between_two_motions_is_cut_out_and_told() -> None:
    points = cloud(300)
    way = np.concatenate([np.linspace(0, 0.2, 60), np.full(160, 0.2), np.linspace(0.2, 0, 80)])
    points[..., 0] += way[:, None]
    track, times = track_of(points)
    parts, rejections = without_rest(track, times, ClipSettings())
    assert [reason for reason, _ in rejections] == ["at_rest"]
    first, second = parts
    assert first.frame_slots[0] == 7 and 60 <= len(first.frame_slots) < 100
    assert second.frame_slots[-1] == 306 and 80 <= len(second.frame_slots) < 120
    np.testing.assert_array_equal(second.points, track.points[second.frame_slots - 7])


def test_a_moving_finger_is_motion() -> None:
    points = cloud(200)
    points[:, :6, 1] += 0.02 * np.sin(np.arange(200) / RATE * 2 * np.pi)[:, None]
    track, times = track_of(points)
    assert without_rest(track, times, ClipSettings())[1] == []


def test_depth_noise_along_the_ray_is_not_motion() -> None:
    points = cloud(200)
    points *= 1 + np.random.default_rng(1).normal(scale=0.05, size=(200, 1, 1))
    track, times = track_of(points)
    parts, rejections = without_rest(track, times, ClipSettings())
    assert parts == [] and len(rejections) == 1


def test_rest_can_be_kept() -> None:
    track, times = track_of(cloud(200))
    assert without_rest(track, times, ClipSettings(rest_s=None)) == ([track], [])


def test_frames_a_second_apart_still_show_motion() -> None:
    points = cloud(12)
    points[..., 0] += 0.05 * np.arange(12)[:, None]
    track, _ = track_of(points)
    assert without_rest(track, np.arange(12.0), ClipSettings())[1] == []
