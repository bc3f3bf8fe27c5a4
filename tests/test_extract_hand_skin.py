"""The whole skin in depth: fingers are found where the landmarks are wrong, and nothing changes where there is none."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from extract.hand.equations import Equations
from extract.hand.fingers import find_fingers
from extract.hand.observe import HandObservations, observe, sample_surface_depth
from extract.hand.patch import HandPatch, before_the_scene, hand_patch
from extract.hand.place import PlacedHand, Surroundings, place_hand
from extract.hand.skeleton import INDEX_TIP, LANDMARK_SPAN, PALM_SIZE, RADII, THUMB_TIP, palm_size
from extract.hand.skin_fit import add_skin, skin_view
from extract.hand.surface import pinch_middle
from extract.hand.touch import FROM, PARTS, touch, tube_distances
from extract.hand.uncertainty import Assumptions
from tests.hand_cases import CAMERA, hand_213, moving_hand

PALM = float(palm_size(hand_213())) / LANDMARK_SPAN
FRAMES = 6
COARSE = 4  # pixels
TABLE_M = 0.62
SKIN, CLOTH = (205, 150, 120), (40, 60, 160)


@cache
def filmed() -> tuple[np.ndarray, np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Times, joints, depth images and pictures of a hand of tubes before a wall."""
    time, joints = moving_hand(FRAMES)
    scale = float(palm_size(hand_213())) / PALM_SIZE
    depths = [_depth(hand, scale) for hand in joints]
    pictures = [np.where((depth < TABLE_M)[..., None], SKIN, CLOTH).astype(np.uint8) for depth in depths]
    return time, joints, depths, pictures


def _depth(joints_213: np.ndarray, scale: float) -> np.ndarray:
    """f32 [480,640] metres: rays are followed until they meet a tube."""
    width, height = CAMERA.image_size
    columns, rows = np.meshgrid(np.arange(COARSE / 2, width, COARSE), np.arange(COARSE / 2, height, COARSE))
    rays = CAMERA.unproject(np.stack([columns, rows], -1).reshape(-1, 2), np.ones(columns.size))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    gone = np.full(len(rays), joints_213[:, 2].min() - 0.05)
    for _ in range(25):
        away = tube_distances((rays * gone[:, None])[None], joints_213[None, PARTS], scale * RADII[PARTS], FROM)[1]
        gone += away[0].min(-1)
    z = np.minimum(gone * rays[:, 2], TABLE_M).reshape(columns.shape)
    return np.kron(z, np.ones((COARSE, COARSE))).astype(np.float32)


def wrong_landmarks(joints_T213: np.ndarray) -> np.ndarray:
    """Pixels as a detector gives them that takes the spread thumb to lie along the index finger, which it bends."""
    pixels = CAMERA.project(joints_T213)
    for number, joint in enumerate((2, 3, 4)):
        pixels[:, joint] += (number + 1) * np.array([-22.0, -10.0])
    pixels[:, INDEX_TIP] += (6, 12)
    return pixels


def patches_of(pixels: np.ndarray) -> list[HandPatch | None]:
    _, _, depths, pictures = filmed()
    return [hand_patch(image, depth, None, at) for image, depth, at in zip(pictures, depths, pixels, strict=True)]


def observed_with(pixels: np.ndarray) -> HandObservations:
    time, joints, depths, _ = filmed()
    surface = np.array([sample_surface_depth(depth, None, at) for depth, at in zip(depths, pixels, strict=True)])
    world = joints - joints.mean(1, keepdims=True)
    return observe(time, pixels, world, surface, np.ones(len(time), bool), CAMERA, PALM)


def placed(pixels: np.ndarray, around: Surroundings | None) -> PlacedHand:
    return place_hand(observed_with(pixels), PALM, 0.004, Assumptions(), around=around)


def test_distances_from_tubes_are_those_of_a_naive_loop():
    rng = np.random.default_rng(0)
    points, ends, radii = rng.normal(size=(2, 7, 3)), rng.normal(size=(2, 4, 2, 3)), rng.uniform(0.1, 0.4, (4, 2))
    fraction, away = tube_distances(points + 50, ends + 50, radii)
    for t, p, b in np.ndindex(away.shape):
        shares = np.linspace(0, 1, 4001)
        spots = ends[t, b, 0] + shares[:, None] * (ends[t, b, 1] - ends[t, b, 0])
        nearest = np.linalg.norm(points[t, p] - spots, axis=1).argmin()
        radius = radii[b, 0] + shares[nearest] * (radii[b, 1] - radii[b, 0])
        assert away[t, p, b] == pytest.approx(np.linalg.norm(points[t, p] - spots[nearest]) - radius, abs=2e-4)
        assert fraction[t, p, b] == pytest.approx(shares[nearest], abs=1e-3)


def test_the_slope_of_the_skin_terms_is_that_of_their_errors():
    joints, radii = moving_hand(1)[1], np.full(21, 0.009)
    points = touchable(joints)
    found = touch(points, joints, radii)
    equations = Equations(joints)
    equations.add_along_bones(PARTS[found.part], found.fraction, -found.normal, found.away, np.ones(found.away.shape))
    for joint, axis in ((4, 0), (8, 1), (3, 0)):
        moved = joints.copy()
        moved[0, joint, axis] += 1e-6
        change = (touch(points, moved, radii).away ** 2 - found.away**2).sum() / 2 / 1e-6
        assert equations.gradient[0, 21 * axis + joint] == pytest.approx(change, rel=1e-3, abs=1e-6)


def touchable(joints_T213: np.ndarray) -> np.ndarray:
    """Points some millimetres off the bones of thumb and index finger."""
    rng = np.random.default_rng(1)
    a, b = joints_T213[:, [2, 3, 6, 7]], joints_T213[:, [3, 4, 7, 8]]
    share = rng.uniform(0.2, 0.8, (1, 4, 1))
    return a + share * (b - a) + rng.normal(0, 0.01, a.shape)


def test_fingers_are_found_where_landmarks_are_not():
    time, joints, _, _ = filmed()
    pixels = wrong_landmarks(joints)
    believed = CAMERA.unproject(pixels, joints[..., 2])
    found = find_fingers(time, believed, patches_of(pixels), "right", PALM * LANDMARK_SPAN / PALM_SIZE, CAMERA)
    tips = [THUMB_TIP, INDEX_TIP]
    assert np.linalg.norm(believed - joints, axis=-1)[:, THUMB_TIP].min() > 0.05
    assert np.median(np.linalg.norm(found.joints_T213 - joints, axis=-1)[:, tips]) < 0.02
    assert np.isnan(found.joints_T213[:, [0, 5, 9, 12, 20]]).all()
    assert found.seen_T21[:, THUMB_TIP].mean() > 0.5


def test_the_grasp_point_comes_from_the_skin_and_not_from_the_landmarks():
    _, joints, _, _ = filmed()
    pixels = wrong_landmarks(joints)
    true = pinch_middle(joints)
    blind, seeing = (
        np.linalg.norm(pinch_middle(placed(pixels, around).joints_T213) - true, axis=-1)
        for around in (None, Surroundings(patches_of(pixels), "right", CAMERA))
    )
    assert np.median(blind) > 0.02
    assert np.median(seeing) < 0.01


def test_right_landmarks_stay_right():
    _, joints, _, _ = filmed()
    pixels = CAMERA.project(joints)
    fit = placed(pixels, Surroundings(patches_of(pixels), "right", CAMERA))
    assert np.median(np.linalg.norm(fit.joints_T213 - joints, axis=-1)) < 0.008
    assert (fit.sigma_T2 > 0).all() and np.median(fit.sigma_T2) < 0.02


def test_without_patches_nothing_changes():
    _, joints, _, _ = filmed()
    pixels = CAMERA.project(joints)
    plain, none = placed(pixels, None), placed(pixels, Surroundings([None] * FRAMES, "right", CAMERA))
    assert plain.joints_T213.tobytes() == none.joints_T213.tobytes()
    assert plain.sigma_T2.tobytes() == none.sigma_T2.tobytes()


def test_a_frame_whose_landmarks_are_astray_starts_from_its_neighbours_and_counts_less():
    time, joints, _, _ = filmed()
    pixels = CAMERA.project(joints)
    believed = joints.copy()
    believed[2] += (0.04, 0, 0)
    view = skin_view(time, believed, patches_of(pixels), "right", PALM * LANDMARK_SPAN / PALM_SIZE, CAMERA)
    assert view.doubt_T21[2, 9] > 2 * view.doubt_T21[[0, 1, 3, 4, 5], 9].max()
    np.testing.assert_allclose(view.joints_T213[2], (joints[1] + joints[3]) / 2, atol=1e-9)


def test_a_finger_that_the_sensor_looks_past_is_pulled_to_the_skin():
    time, joints, _, _ = filmed()
    believed = joints.copy()
    believed[:, 20] -= (0.02, 0, 0)  # the tip of the little finger, beside the hand
    view = skin_view(time, joints, patches_of(CAMERA.project(joints)), "right", 1.0, CAMERA)
    equations = Equations(believed)
    add_skin(equations, view, RADII)
    assert (equations.gradient[:, 20] < 0).all()  # the cost falls as x grows


def test_skin_is_told_by_the_palm_and_a_mask_says_it_better():
    _, joints, depths, pictures = filmed()
    pixels = CAMERA.project(joints)[0]
    patch = hand_patch(pictures[0], depths[0], None, pixels)
    assert (patch.skin_HW == (patch.depth_HW < TABLE_M)).mean() > 0.99
    mask = np.zeros(depths[0].shape, bool)
    assert not hand_patch(pictures[0], depths[0], mask, pixels).skin_HW.any()
    np.testing.assert_allclose(
        CAMERA.project(patch.points(patch.skin_HW, CAMERA)), patch.pixels(*np.nonzero(patch.skin_HW)), atol=1e-6
    )


def test_a_table_of_the_colour_of_skin_is_no_skin():
    _, joints, depths, _ = filmed()
    pixels = CAMERA.project(joints)
    alike = np.full((480, 640, 3), SKIN, np.uint8)
    # The hand comes from 150 pixels further to the right, so that the scene behind it was seen.
    patches, marks = [], []
    for row, shift in enumerate((150, 100, 50, 0)):
        depth = np.roll(depths[row], shift, axis=1)
        patches.append(hand_patch(alike, depth, None, pixels[row] + (shift, 0)))
        marks.append(pixels[row] + (shift, 0))
    assert all(patch.skin_HW.all() for patch in patches)
    for patch in before_the_scene(patches, np.array(marks)):
        assert patch is not None
        assert patch.skin_HW[patch.depth_HW >= TABLE_M].mean() < 0.2
        assert patch.skin_HW[patch.depth_HW < TABLE_M - 0.02].mean() > 0.9
