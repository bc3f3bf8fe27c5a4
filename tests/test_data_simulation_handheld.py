"""Clips of a moving camera: path, depth and hand describe one and the same room."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data.geometry import invert_rigid, transform
from data.simulation.handheld import HandheldSettings, camera_path, make_handheld, noisy_depth
from data.simulation.render import backproject
from data.simulation.write import DEPTH_UNIT_M

SMALL = HandheldSettings(width=160, height=120, seconds=0.4, rate_hz=20, mover=False)
Made = tuple[list[np.ndarray], dict[str, np.ndarray], dict]


@pytest.fixture(scope="module")
def walk() -> Made:
    return make_handheld(3, replace(SMALL, camera="walk"))


def test_the_room_seen_in_one_frame_is_where_the_path_says_in_another(walk: Made) -> None:
    _, arrays, sidecar = walk
    k, depth = np.array(sidecar["intrinsics"]), arrays["depth"] * DEPTH_UNIT_M
    world_from_camera = arrays["truth_world_from_camera"].astype(float)
    assert np.allclose(world_from_camera[0], np.eye(4), atol=1e-6)
    assert np.linalg.norm(world_from_camera[-1, :3, 3]) > 0.1
    room = ~arrays["mask"] & (depth > 0.6)  # neither hand nor forearm
    points = transform(invert_rigid(world_from_camera[-1]), backproject(depth[0], k, room[0]))
    uv = points @ k.T
    column, row = np.floor(uv[:, 0] / uv[:, 2]).astype(int), np.floor(uv[:, 1] / uv[:, 2]).astype(int)
    inside = (column >= 0) & (column < 160) & (row >= 0) & (row < 120)
    seen = depth[-1][row[inside], column[inside]]
    agree = np.abs(seen / points[inside, 2] - 1) < 0.01
    assert agree.mean() > 0.85, "the rest is hidden by the hand, or by an edge"


def test_joints_lie_behind_the_masked_skin(walk: Made) -> None:
    _, arrays, sidecar = walk
    uvw = arrays["truth_joints"][:, 1:] @ np.array(sidecar["intrinsics"]).T
    column, row = np.floor(uvw[..., 0] / uvw[..., 2]).astype(int), np.floor(uvw[..., 1] / uvw[..., 2]).astype(int)
    frames = np.arange(len(uvw))[:, None]
    covered = arrays["mask"][frames, row, column]
    assert covered.mean() > 0.95
    assert (arrays["depth"][frames, row, column] * DEPTH_UNIT_M < uvw[..., 2])[covered].all()


def test_the_seed_fixes_every_byte_and_a_static_camera_stands(walk: Made) -> None:
    again = make_handheld(3, replace(SMALL, camera="walk"))
    assert all(np.array_equal(a, b) for a, b in zip(walk[0], again[0], strict=True))
    assert all(np.array_equal(walk[1][name], again[1][name]) for name in walk[1])
    images, arrays, _ = make_handheld(4, replace(SMALL, camera="static"))
    assert np.abs(arrays["truth_world_from_camera"] - np.eye(4)).max() < 1e-12
    still = ~arrays["mask"].any(0) & (arrays["depth"].min(0) * DEPTH_UNIT_M > 0.6)
    assert np.abs(images[0][still].astype(int) - images[-1][still]).mean() < 0.1  # but for the skin's soft edge
    assert (images[0] != images[-1]).any(), "the hand moves"


def test_paths_are_what_their_names_say() -> None:
    time = np.arange(100) / 25
    paths = {
        kind: camera_path(kind, np.random.default_rng(0), time) for kind in ("static", "hand-held", "walk", "turn")
    }
    length = {kind: np.linalg.norm(np.diff(p[:, :3, 3], axis=0), axis=1).sum() for kind, p in paths.items()}
    assert length["static"] == length["turn"] == 0 and 0.2 < length["hand-held"] < 2 < length["walk"] < 5
    turned = {kind: np.arccos((np.trace(p[0, :3, :3].T @ p[:, :3, :3], axis1=1, axis2=2) - 1).clip(-2, 2) / 2).max()
              for kind, p in paths.items()}  # fmt: skip
    assert turned["static"] < 1e-6 and turned["turn"] > 0.3


def test_noisy_depth_is_lost_at_edges_and_far_away_and_noisier_with_distance() -> None:
    depth = np.full((120, 160), 0.5, np.float32)
    depth[:, 80:] = 3.0
    depth[:30] = 7.0
    noisy = noisy_depth(depth, np.random.default_rng(0))
    assert (noisy[:30] == 0).all() and (noisy[40:, 79:81] == 0).all()
    near, far = noisy[40:, :70], noisy[40:, 90:]
    assert 0.01 < (near == 0).mean() < 0.03
    assert np.std(near[near > 0]) == pytest.approx(0.0012, rel=0.1)
    assert np.std(far[far > 0]) == pytest.approx(0.0012 + 0.0019 * 2.6**2, rel=0.1)
