"""The actor's pixels: the effector with its arm, not what it touches, not what it stands before."""

from __future__ import annotations

import time

import numpy as np
import pytest

from extract.actor import actor_pixels, widened
from extract.effector import Camera

SIZE = 128
CAMERA = Camera(np.array([[180.0, 0, 64], [0, 180, 64], [0, 0, 1]]), (SIZE, SIZE), "given")
TABLE_M = 1.0
ARM = (slice(0, 40), slice(56, 72))
EFFECTOR = (slice(40, 80), slice(52, 76))
HELD = (slice(80, 92), slice(56, 72))


def reach() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth of an arm that comes from above, 0.7 m away before a table at 1 m, and holds a block below it; the
    effector's points, and its grasp point at the block's upper edge."""
    depth = np.full((SIZE, SIZE), TABLE_M, np.float32)
    depth[ARM] = depth[EFFECTOR] = depth[HELD] = 0.7
    rows, columns = np.mgrid[42:80:4, 54:76:4]
    pixels = np.stack([columns + 0.5, rows + 0.5], -1).reshape(-1, 2)
    points = CAMERA.unproject(pixels, np.full(len(pixels), 0.7))
    grasp = CAMERA.unproject(np.array([64.0, 78.0]), np.array(0.7))
    return depth, points, grasp


def test_the_arm_belongs_to_the_actor_and_the_block_does_not() -> None:
    depth, points, grasp = reach()
    actor = actor_pixels(depth, CAMERA, points, grasp)
    assert actor[ARM].all() and actor[EFFECTOR].all()
    assert actor[83:].sum() == 0, "only the fringe of the effector reaches into the block"
    grown = np.zeros_like(actor)
    grown[ARM] = grown[EFFECTOR] = True
    assert not (actor & ~widened(grown, 4 / SIZE)).any()


def test_a_thing_beside_the_effector_stays_although_it_is_as_far_away() -> None:
    depth, points, grasp = reach()
    depth[50:78, 76:120] = 0.7  # touches the effector's side
    actor = actor_pixels(depth, CAMERA, points, grasp)
    assert actor[EFFECTOR].all() and not actor[50:78, 90:].any()


def test_an_arm_that_comes_into_the_picture_elsewhere_is_found_by_what_it_hides() -> None:
    depth, points, grasp = reach()
    wall = np.full((SIZE, SIZE), TABLE_M, np.float32)
    depth[0:20, 90:128] = 0.8
    assert not actor_pixels(depth, CAMERA, points, grasp)[5:15, 95:].any()
    assert actor_pixels(depth, CAMERA, points, grasp, wall)[0:20, 90:].all()
    never = np.zeros_like(wall)
    assert not actor_pixels(depth, CAMERA, points, grasp, never)[5:15, 95:].any()


def test_where_something_else_hides_the_effector_nothing_is_taken() -> None:
    depth, points, grasp = reach()
    depth[:] = 0.4
    assert not actor_pixels(depth, CAMERA, points, grasp).any()


@pytest.mark.parametrize("grasp", [None, np.full(3, np.nan)])
def test_without_a_grasp_point_only_the_effector_is_known(grasp: np.ndarray | None) -> None:
    depth, points, _ = reach()
    actor = actor_pixels(depth, CAMERA, points, grasp)
    assert actor[EFFECTOR].mean() > 0.5 and not actor[:38].any()


def test_without_depth_the_arm_leaves_the_picture_behind_the_effector() -> None:
    _, points, grasp = reach()
    actor = actor_pixels(None, CAMERA, points, grasp)
    assert actor[ARM].all() and actor[44:78, 54:74].all()
    assert not actor[95:].any() and not actor[:, :30].any() and not actor[:, 100:].any()
    sideways = CAMERA.unproject(np.array([54.0, 60.0]), np.array(0.7))
    square = points[np.abs(CAMERA.project(points)[:, 1] - 60) < 12]
    actor = actor_pixels(None, CAMERA, square, sideways)
    assert actor[58:62, 80:].all() and not actor[:, :40].any()


def test_no_points_in_front_of_the_camera_are_no_actor() -> None:
    depth, points, grasp = reach()
    assert not actor_pixels(depth, CAMERA, -points, grasp).any()


def test_it_is_quick_enough_for_control() -> None:
    depth, points, grasp = reach()
    seen = np.full_like(depth, TABLE_M)
    spent = []
    for _ in range(20):
        start = time.process_time()
        actor_pixels(depth, CAMERA, points, grasp, seen)
        spent.append(time.process_time() - start)
    assert min(spent) < 0.002
