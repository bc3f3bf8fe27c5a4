"""Lifting of image tracks: depth never mixed from two surfaces, contradictions not visible, smoothing bounded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from extract.lift.calm import calmed
from extract.lift.gaps import off_line
from extract.lift.rigidity import affinity, placed
from extract.lift.sample import depth_under
from extract.lift.unproject import Unproject, UnprojectConfig
from extract.steps import DepthMaps, Shot, Tracks
from pipeline.errors import UserError
from tests.test_extract_mask_tracker import CAMERA, FRAMES, Box, jaws, solid, truth
from tests.test_extract_track_lucas_kanade import COUNT, filmed

EVERY = np.ones((4, 6), bool)


def exact_tracks(
    scene: list[list[Box]], shot: Shot, masks: list[np.ndarray], owners: list[np.ndarray]
) -> tuple[Tracks, np.ndarray]:
    """Tracks of a scene's true image motion from the first frame, and the true points [T,N,3]."""
    rng = np.random.default_rng(5)
    rows, columns = np.nonzero(masks[0])
    chosen = rng.choice(len(rows), COUNT, replace=False)
    pixels = np.stack([columns[chosen] + 0.5, rows[chosen] + 0.5], -1)
    first = shot.frames[0].depth
    assert first is not None
    there = truth(scene, owners[0], CAMERA.unproject(pixels, first[rows[chosen], columns[chosen]]), 0)
    seen = CAMERA.project(there)
    maps = [frame.depth for frame in shot.frames if frame.depth is not None]
    depth = np.stack([depth_under(d, m, p) for d, m, p in zip(maps, masks, seen, strict=True)])
    visible = np.abs(depth - there[..., 2]) < 0.004
    return Tracks(seen.astype(np.float32), visible, np.full(visible.shape, 0.1, np.float32), 0), there


def sensed(shot: Shot, sigma: float = 0.001) -> DepthMaps:
    return DepthMaps([frame.depth for frame in shot.frames], "metric", sigma, "sensor")


def test_depth_between_pixels_is_bilinear_on_one_surface_and_never_mixed_across_an_edge() -> None:
    column, row = np.meshgrid(np.arange(6), np.arange(4))
    slanted = (1 + 0.002 * column + 0.001 * row).astype(np.float32)
    at = np.array([[2.2, 1.9], [3.5, 2.5], [4.9, 0.8]])
    np.testing.assert_allclose(
        depth_under(slanted, EVERY, at), 1 + 0.002 * (at[:, 0] - 0.5) + 0.001 * (at[:, 1] - 0.5), atol=1e-6
    )
    edge = np.where(column < 3, 0.5, 2.0).astype(np.float32)
    np.testing.assert_allclose(depth_under(edge, EVERY, np.array([[2.95, 1.5], [3.05, 1.5]])), [0.5, 2.0])
    # Off the mask, unmeasured, outside: the nearest of the four pixels that has both counts, else nothing.
    holes = edge.copy()
    holes[:, 2] = 0
    np.testing.assert_allclose(depth_under(holes, EVERY, np.array([[2.3, 1.5]])), [0.5])
    assert np.isnan(depth_under(edge, column < 0, np.array([[2.0, 2.0]])))
    assert np.isnan(depth_under(edge, EVERY, np.array([[-3.0, 2.0], [40.0, 1.0], [np.nan, 1.0]]))).all()


def test_exact_tracks_are_lifted_to_where_the_material_is_and_covered_points_go_along() -> None:
    scene = solid()
    shot, masks, owners = filmed(scene)
    tracks, there = exact_tracks(scene, shot, masks, owners)
    lifted = Unproject(UnprojectConfig())(shot, masks, tracks, sensed(shot))
    off = np.linalg.norm(lifted.points - there, axis=-1)
    assert np.median(off) < 0.0015 and np.percentile(off, 95) < 0.004
    hidden = ~tracks.visible_TN
    assert hidden.mean() > 0.05 and np.median(off[hidden]) < 0.002
    assert not (lifted.visible & hidden).any() and lifted.visible.mean() > 0.5


def test_two_jaws_are_two_parts() -> None:
    scene = jaws()
    shot, masks, owners = filmed(scene)
    tracks, there = exact_tracks(scene, shot, masks, owners)
    lifted = Unproject(UnprojectConfig())(shot, masks, tracks, sensed(shot))
    assert np.percentile(np.linalg.norm(lifted.points - there, axis=-1), 90) < 0.007  # jaws move by 25 mm


def test_a_wrong_track_is_not_visible_and_its_point_stays_with_its_neighbours() -> None:
    scene = solid()
    shot, masks, owners = filmed(scene)
    tracks, there = exact_tracks(scene, shot, masks, owners)
    pixels = tracks.pixels_TN2.copy()
    wrong = np.flatnonzero(tracks.visible_TN[10])[:5]
    pixels[10, wrong] += [6, 3]
    lifted = Unproject(UnprojectConfig())(shot, masks, replace(tracks, pixels_TN2=pixels), sensed(shot))
    assert not lifted.visible[10, wrong].any() and lifted.visible[9, wrong].all()
    assert np.linalg.norm(lifted.points[10, wrong] - there[10, wrong], axis=-1).max() < 0.004


def test_frames_without_depth_are_bridged_and_less_sure() -> None:
    scene = solid()
    shot, masks, owners = filmed(scene)
    tracks, there = exact_tracks(scene, shot, masks, owners)
    maps = [None if slot in (8, 9, 10) else frame.depth for slot, frame in enumerate(shot.frames)]
    lifted = Unproject()(shot, masks, tracks, replace(sensed(shot), maps=maps))
    assert not lifted.visible[8:11].any() and (lifted.confidence[8:11] == 0).all()
    assert (lifted.sigma[8:11] > 1.5 * lifted.sigma[[7, 11]].max(0)).all()
    assert np.median(np.linalg.norm(lifted.points[9] - there[9], axis=-1)) < 3 * lifted.sigma[9].max()


def test_without_tracks_or_depth_it_says_what_is_missing() -> None:
    scene = solid()[:4]
    shot, masks, owners = filmed(scene)
    tracks, _ = exact_tracks(scene, shot, masks, owners)
    with pytest.raises(UserError, match="needs tracks"):
        Unproject()(shot, masks, None, sensed(shot))
    with pytest.raises(UserError, match="no frame of 4 has depth from sensor"):
        Unproject()(shot, masks, tracks, replace(sensed(shot), maps=[None] * 4))


def test_smoothing_takes_out_jitter_but_not_motion_and_never_moves_a_point_further_than_sigma() -> None:
    rng = np.random.default_rng(2)
    times = np.cumsum(rng.uniform(0.03, 0.06, 60))
    still = np.array([0.0, 0, 1]) + rng.normal(0, 0.05, (1, 20, 3)) + 0.02 * np.sin(2 * times)[:, None, None]
    jitter = rng.normal(0, 0.002, (60, 1, 3))
    limit = np.full((60, 2), 0.003)
    smooth = calmed(still + jitter, times, limit)
    assert np.abs(smooth - still).mean() < 0.6 * np.abs(jitter).mean()
    tight = calmed(still + jitter, times, limit / 10) - (still + jitter)
    ray = still / np.linalg.norm(still, axis=-1, keepdims=True)
    along = (tight * ray).sum(-1)
    assert np.abs(along).max() < 0.00031 and np.linalg.norm(tight - along[..., None] * ray, axis=-1).max() < 0.00031
    thrown = still[:1] + np.cumsum(np.cumsum(rng.normal(0, 0.01, (60, 1, 3)), 0), 0) * [1, 1, 0.2]
    assert np.abs(calmed(thrown, times, np.full((60, 2), 1.0)) - thrown).mean() < 0.002  # accelerations of 10 mm stay


def test_a_point_moves_as_its_part_does() -> None:
    rng = np.random.default_rng(1)
    shape = rng.uniform(-0.05, 0.05, (40, 3))
    left = shape[:, 0] < 0
    shifts = np.linspace(0, 0.03, 10)
    moved = np.stack([shape + np.where(left[:, None], 0, s) * np.array([1.0, 0, 0]) for s in shifts])
    together = affinity(shape, moved, np.ones((10, 40)), 0.001)
    assert together[np.ix_(left, left)].mean() > 20 * together[np.ix_(left, ~left)].mean()
    weight = np.ones(40)
    weight[:3] = 0
    points, _, _ = placed(shape, moved[-1], weight, together, np.full(40, 0.001))
    np.testing.assert_allclose(points, moved[-1], atol=1e-3)


def test_gaps_are_less_sure_the_longer_they_are() -> None:
    times = np.arange(FRAMES) / 20
    measured = np.ones(FRAMES, bool)
    measured[5:10] = False
    off = off_line(times, measured)
    assert (off[measured] == 0).all() and off[7] == off.max() and off[5] < off[6] < off[7]
    assert off_line(times, times == times[3])[0] > 0
