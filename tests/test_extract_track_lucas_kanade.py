"""Lucas-Kanade tracks of rendered solids whose image motion is known exactly, and of one simulated gripper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from extract.lift.unproject import Unproject, UnprojectConfig
from extract.steps import DepthMaps, Shot, Tracks
from extract.track.chaining import carry, query_frame, query_points
from extract.track.lucas_kanade import LucasKanade, LucasKanadeConfig
from pipeline.errors import UserError
from tests.benchmarks.mask_cases import Case, gripper_case
from tests.test_extract_mask_tracker import CAMERA, FRAMES, Box, render, solid, truth

COUNT = 60


@cache
def simulated_gripper() -> Case:
    """Rendered once for all tests; nobody changes it."""
    return gripper_case("drawer-close-v3", 0, 7)


def filmed(
    scene: Sequence[Sequence[Box]], without_depth: bool = False
) -> tuple[Shot, list[np.ndarray], list[np.ndarray]]:
    """The shot, its masks, and which box each pixel shows. A striped table lies behind."""
    frames, owners = [], []
    column, row = np.meshgrid(np.arange(128), np.arange(128))
    table = (90 + 60 * np.sin(0.8 * column) * np.sin(0.5 * row)).astype(np.uint8)[..., None].repeat(3, -1)
    for number, boxes in enumerate(scene):
        frame, owner = render(list(boxes), number)
        assert frame.mask is not None
        image = np.where(frame.mask[..., None], frame.image, table)
        frames.append(replace(frame, image=image, depth=None if without_depth else frame.depth))
        owners.append(owner)
    return Shot(frames, CAMERA), [frame.mask for frame in frames], owners


def image_errors(scene: list[list[Box]], owners: list[np.ndarray], depth_HW: np.ndarray, tracks: Tracks) -> np.ndarray:
    """f64 [T,N] pixels between the tracks and the material that they started on."""
    start = tracks.pixels_TN2[tracks.query].astype(np.float64)
    column, row = np.floor(start).astype(int).T
    material = CAMERA.unproject(start, depth_HW[row, column].astype(np.float64))
    there = CAMERA.project(truth(scene, owners[tracks.query], material, tracks.query))
    return np.linalg.norm(tracks.pixels_TN2 - there, axis=-1)


def test_a_moving_and_turning_box_is_followed_to_a_pixel_without_depth() -> None:
    scene = solid()
    shot, masks, owners = filmed(scene, without_depth=True)
    tracks = LucasKanade()(shot, masks, COUNT)
    depth = render(scene[tracks.query], 0)[0].depth
    assert depth is not None
    off = image_errors(scene, owners, depth, tracks)
    assert tracks.pixels_TN2.shape == (FRAMES, COUNT, 2) and tracks.visible_TN.mean() > 0.7
    assert np.median(off[tracks.visible_TN]) < 1
    assert np.median(np.abs(np.diff(off, axis=0))) < 0.2
    # A two-dimensional Gaussian has 86 % within two sigmas.
    assert (off < 2 * tracks.error_TN)[tracks.visible_TN].mean() > 0.6


def test_the_comparison_with_the_query_frame_takes_out_drift() -> None:
    case = simulated_gripper()
    shot, masks = Shot(case.frames, case.camera), [frame.mask for frame in case.frames]
    off = []
    for anchor in (True, False):
        tracks = LucasKanade(LucasKanadeConfig(anchor=anchor))(shot, masks, 100)
        start, depth = tracks.pixels_TN2[tracks.query].astype(np.float64), case.frames[tracks.query].depth
        assert depth is not None
        column, row = np.floor(start).astype(int).T
        there = case.follow(case.camera.unproject(start, depth[row, column].astype(np.float64)), tracks.query)
        off.append(np.median(np.linalg.norm(tracks.pixels_TN2 - case.camera.project(there), axis=-1)))
    assert off[0] < 0.9 * off[1] and off[0] < 1


def test_points_that_something_covers_are_not_visible_but_carried_to_where_they_are() -> None:
    scene = solid()
    shot, masks, owners = filmed(scene)
    column = np.arange(128)[None]
    frames, cut = list(shot.frames), list(masks)
    for slot in (14, 15, 16):
        # A bar of the table's look comes before the box's right half.
        columns = np.nonzero(masks[slot])[1]
        bar = np.broadcast_to(column > np.median(columns), masks[slot].shape)
        frames[slot] = replace(frames[slot], image=np.where(bar[..., None], 90, frames[slot].image).astype(np.uint8))
        cut[slot] = masks[slot] & ~bar
    tracks = LucasKanade()(Shot(frames, CAMERA), cut, COUNT)
    depth = shot.frames[tracks.query].depth
    assert depth is not None
    off = image_errors(scene, owners, depth, tracks)
    for slot in (14, 15, 16):
        there = tracks.pixels_TN2[slot].astype(np.float64)
        covered = there[:, 0] > np.median(np.nonzero(masks[slot])[1]) + 2
        assert covered.sum() > 10
        assert not tracks.visible_TN[slot][covered].any()
        assert np.median(off[slot][covered]) < 3
        assert (tracks.error_TN[slot][covered] > tracks.error_TN[slot][~covered].min()).all()
    assert tracks.visible_TN[18].mean() > 0.5  # found again
    assert np.median(off[18][tracks.visible_TN[18]]) < 1


def test_frames_without_a_mask_are_bridged_and_not_visible() -> None:
    shot, masks, _ = filmed(solid())
    holes: list[np.ndarray | None] = [None if slot in (8, 9) else mask for slot, mask in enumerate(masks)]
    whole, bridged = LucasKanade()(shot, masks, COUNT), LucasKanade()(shot, holes, COUNT)
    assert whole.query == bridged.query
    assert not bridged.visible_TN[[8, 9]].any() and bridged.visible_TN[[7, 10]].mean() > 0.5
    assert np.median(np.linalg.norm(bridged.pixels_TN2[8:10] - whole.pixels_TN2[8:10], axis=-1)) < 1


def test_no_mask_is_an_error_that_says_so_and_the_same_shot_gives_the_same_bytes() -> None:
    shot, masks, _ = filmed(solid()[:6])
    with pytest.raises(UserError, match="none of 6 frames shows 8 pixels"):
        LucasKanade()(shot, [None] * 6, COUNT)
    first, second = LucasKanade()(shot, masks, COUNT), LucasKanade()(shot, masks, COUNT)
    for name in ("pixels_TN2", "visible_TN", "error_TN"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()


def test_the_query_frame_shows_most_and_its_points_are_spread() -> None:
    small, large = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    small[2:6, 2:6], large[2:12, 3:23] = True, True
    assert query_frame([None, small, large, large, large, small]) == 2  # of equals the nearest to the middle
    points = query_points(large, 8)
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)[~np.eye(8, dtype=bool)]
    assert apart.min() > 5 and len(query_points(small, 50)) == 50


def test_lost_points_move_with_their_neighbours_affine_motion() -> None:
    rng = np.random.default_rng(3)
    before = rng.uniform(0, 40, (30, 2))
    turn = np.array([[0.9, -0.3], [0.3, 0.95]])
    lost = np.array([[12.0, 20.0], [30.0, 8.0]])
    moved = carry(before, before @ turn + 4, np.ones(30, bool), lost, np.zeros(2))
    np.testing.assert_allclose(moved, lost @ turn + 4, atol=0.7)
    np.testing.assert_allclose(
        carry(before, before, np.zeros(30, bool), lost, np.array([1.0, 2])), lost + np.array([1, 2])
    )


def test_a_simulated_gripper_is_tracked_and_lifted() -> None:
    case = simulated_gripper()
    shot = Shot(case.frames, case.camera)
    masks = [frame.mask for frame in case.frames]
    tracks = LucasKanade()(shot, masks, 100)
    depth = DepthMaps([frame.depth for frame in case.frames], "metric", 0.001, "sensor")
    lifted = Unproject(UnprojectConfig())(shot, masks, tracks, depth)
    points = lifted.points.astype(np.float64)
    wrong = points - case.follow(points[tracks.query], tracks.query)
    assert np.median(np.linalg.norm(wrong, axis=-1)) < 0.0025
    assert np.median(np.linalg.norm(np.diff(wrong, axis=0), axis=-1)) < 0.0012
    assert lifted.visible.mean() > 0.6 and lifted.scale == "metric" and lifted.depth_source == "sensor"
