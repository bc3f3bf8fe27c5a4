"""A policy at work sees the clouds that a training window would have held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from align.followers import MaskFollower
from align.live import LiveCloud
from data.clips import Clip
from data.config import WindowConfig
from data.episode import Frame
from data.loader import motion
from extract.effector import Camera
from extract.mask.config import MaskConfig

PAST = (-0.15, -0.10, -0.05, 0.0)
CAMERA = Camera(np.array([[90.0, 0, 32], [0, 90.0, 32], [0, 0, 1]]), (64, 64), "given")
MASK = MaskConfig(points=20)


def frames(times: list[float]) -> list[Frame]:
    """A bump on a disc that moves sideways and away."""
    rows, columns = np.mgrid[0:64, 0:64] + 0.5
    made = []
    for number, time in enumerate(times):
        u, v = 24 + 30 * time, 30 + 10 * time
        radius = np.hypot(columns - u, rows - v)
        mask = radius < 12
        depth = np.where(mask, 0.7 + 0.1 * time + 0.0002 * radius**2 + 0.0005 * (columns - u), 0).astype(np.float32)
        made.append(Frame(number, time, np.zeros((64, 64, 3), np.uint8), depth, mask))
    return made


def all_clouds(sequence: list[Frame]) -> tuple[np.ndarray, np.ndarray]:
    """Points and visibility at every frame."""
    live, points, visible = LiveCloud(MaskFollower(CAMERA, MASK), (0.0,)), [], []
    for frame in sequence:
        live.see(frame, 0.03)
        past = live.past()
        assert past is not None
        points.append(past.clouds_PN3[-1])
        visible.append(past.visible_PN[-1])
    return np.stack(points), np.stack(visible)


@pytest.mark.parametrize("times", [[0.05 * n for n in range(9)], [0.0, 0.04, 0.11, 0.15, 0.22, 0.26, 0.31, 0.38]])
def test_the_past_is_that_of_the_loader(make_clip: Callable[..., Clip], times: list[float]) -> None:
    sequence = frames(times)
    points_TN3, visible_TN = all_clouds(sequence)
    opening = np.linspace(0.02, 0.05, len(times)).astype(np.float32)
    clip = make_clip(0, frames=len(times), points=20)
    arrays = clip.arrays | {
        "points": points_TN3, "visible": visible_TN, "timestamps": np.array(times), "opening": opening
    }  # fmt: skip
    clip = replace(clip, arrays=arrays)
    live = LiveCloud(MaskFollower(CAMERA, MASK), PAST)
    for now, frame in enumerate(sequence):
        live.see(frame, float(opening[now]))
        past, window = live.past(), motion(clip.arrays, now, np.arange(20), WindowConfig(past_s=PAST, image_size=32))
        assert past is not None
        np.testing.assert_array_equal(past.valid_P, window["past_valid"])
        for row in np.flatnonzero(past.valid_P):
            np.testing.assert_allclose(past.clouds_PN3[row], window["past"][row], atol=1e-6)
            np.testing.assert_array_equal(past.visible_PN[row], window["past_visible"][row])
            np.testing.assert_allclose(past.opening_P[row], window["past_opening"][row], atol=1e-6)
            np.testing.assert_allclose(past.grasp_P3[row], window["past_grasp"][row], atol=1e-6)


def test_points_follow_the_motion() -> None:
    points_TN3, visible_TN = all_clouds(frames([0.05 * n for n in range(9)]))
    moved = (points_TN3[-1] - points_TN3[0]).mean(0)
    assert moved == pytest.approx([0.4 * 30 / 90 * 0.74, 0.4 * 10 / 90 * 0.74, 0.04], abs=0.02)
    assert visible_TN.mean() > 0.8


def test_out_of_view_the_cloud_waits_unseen() -> None:
    first, second, third = frames([0.0, 0.05, 0.1])
    live = LiveCloud(MaskFollower(CAMERA, MASK), PAST)
    live.see(replace(first, mask=np.zeros((64, 64), bool)), 0.0)
    assert live.past() is None
    live.see(second, 0.0)
    before = live.past()
    live.see(replace(third, mask=None), 0.0)
    after = live.past()
    assert before is not None and after is not None
    np.testing.assert_array_equal(after.clouds_PN3[-1], before.clouds_PN3[-1])
    assert before.visible_PN[-1].any() and not after.visible_PN[-1].any()
