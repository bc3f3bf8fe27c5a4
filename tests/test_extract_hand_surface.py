"""Skin points: the same spot of skin in every frame, on the skin, seen only where the camera can see them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from extract.hand.skeleton import PALM_SIZE
from extract.hand.surface import facing_camera, hidden_by_hand, make_surface, pinch_middle, pinch_opening
from tests.hand_cases import hand_213


@pytest.mark.parametrize("count", [16, 200, 333])
def test_every_number_of_points_is_given_exactly_and_apart(count):
    points, normals = make_surface(count, PALM_SIZE).points(hand_213()[None], "right")
    assert points.shape == normals.shape == (1, count, 3)
    apart = np.linalg.norm(points[0][:, None] - points[0][None], axis=-1) + np.eye(count)
    assert apart.min() > 1e-4
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-9)


def test_points_move_rigidly_with_the_hand():
    surface = make_surface(200, PALM_SIZE)
    turn = Rotation.from_euler("xyz", [0.7, -1.9, 2.4]).as_matrix()
    moved, _ = surface.points((hand_213() @ turn.T + [0.1, -0.2, 0.6])[None], "right")
    still, _ = surface.points(hand_213()[None], "right")
    np.testing.assert_allclose(moved, still @ turn.T + [0.1, -0.2, 0.6], atol=1e-9)


def test_points_do_not_jump_when_a_finger_bends():
    surface = make_surface(200, PALM_SIZE)
    hand = hand_213()
    frames = []
    for bend in np.linspace(-0.2, 1.7, 60):
        bent = hand.copy()
        bent[6:9] = (hand[6:9] - hand[5]) @ Rotation.from_euler("x", bend).as_matrix().T + hand[5]
        bent[2:5] = (hand[2:5] - hand[1]) @ Rotation.from_euler("y", 0.6 * bend).as_matrix().T + hand[1]
        frames.append(bent)
    joints = np.array(frames)
    points, _ = surface.points(joints, "right")
    joint_step = np.linalg.norm(np.diff(joints, axis=0), axis=-1).max()
    assert np.linalg.norm(np.diff(points, axis=0), axis=-1).max() < 2 * joint_step


def test_a_hand_hides_half_of_itself():
    surface = make_surface(200, PALM_SIZE)
    joints = (hand_213() + np.array([0, 0.05, 0.5]))[None]
    points, normals = surface.points(joints, "right")
    seen = facing_camera(points, normals) & ~hidden_by_hand(points, joints, surface.scale)
    assert 0.35 < seen.mean() < 0.6
    # The palm looks at the camera: its front is seen, its back is not.
    front = np.append(np.zeros(len(surface.tube), bool), surface.palm_front)
    back = np.append(np.zeros(len(surface.tube), bool), ~surface.palm_front)
    assert seen[0, front].mean() > 0.7 and seen[0, back].mean() < 0.05
    assert np.median(points[0, seen[0], 2]) < np.median(points[0, ~seen[0], 2])


def test_the_other_side_turns_the_palm_over():
    surface = make_surface(200, PALM_SIZE)
    mirrored = hand_213() * [-1, 1, 1]
    _, right = surface.points(hand_213()[None], "right")
    _, left = surface.points(mirrored[None], "left")
    palm = slice(len(surface.tube), None)
    np.testing.assert_allclose(left[0, palm] * [-1, 1, 1], right[0, palm], atol=1e-9)


def test_the_grasp_point_is_between_the_tips_and_moves_with_the_hand():
    hand = hand_213()
    between = pinch_middle(hand[None])[0]
    np.testing.assert_allclose(between - hand[4], hand[8] - between)
    np.testing.assert_allclose(pinch_middle(hand[None] + 0.1)[0], between + 0.1)


def test_opening_is_the_free_space_between_the_tips():
    joints = np.repeat(hand_213()[None], 2, axis=0)
    joints[0, 8] = joints[0, 4] + [0, -0.005, 0]
    joints[1, 8] = joints[1, 4] + [0, -0.080, 0]
    closed, open_ = pinch_opening(joints, 1.0)
    assert closed == 0
    assert 0.06 < open_ < 0.08
