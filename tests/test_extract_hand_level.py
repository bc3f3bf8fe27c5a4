"""The distance of an image-only clip rests on several estimates."""

from __future__ import annotations

import numpy as np
import pytest

from extract.hand.observe import HandObservations, level, observe, palm_distances
from extract.hand.skeleton import LANDMARK_SPAN, PALM, palm_size
from tests.hand_cases import CAMERA, moving_hand


def seen_exactly(frames: int = 20, with_depth: bool = False) -> tuple[np.ndarray, HandObservations]:
    """True joints, and exact observations of them."""
    time, joints = moving_hand(frames)
    nothing = np.full(joints.shape[:2], np.nan)
    palm = float(palm_size(joints).mean()) / LANDMARK_SPAN
    measured = np.ones(frames, bool)
    depth = CAMERA.focal_px * (joints[..., 2] / joints[:, :1, 2] - 1) if with_depth else None
    return joints, observe(time, CAMERA.project(joints), joints, nothing, measured, CAMERA, palm, depth)


@pytest.mark.parametrize("with_depth", [False, True])
def test_a_right_distance_is_left_almost_alone(with_depth: bool) -> None:
    joints, observed = seen_exactly(with_depth=with_depth)
    assert level(joints, observed) == pytest.approx(1, abs=0.05), "chords are foreshortened by a turned palm"


@pytest.mark.parametrize("wrong", [0.8, 1.25])
def test_a_wrong_distance_is_brought_two_thirds_back(wrong: float) -> None:
    joints, observed = seen_exactly()
    right = level(joints, observed)
    assert level(joints * wrong, observed) == pytest.approx(right / wrong ** (2 / 3), rel=1e-3)


def test_the_landmarks_own_depth_tells_the_distance_of_a_slanted_palm() -> None:
    joints, observed = seen_exactly(with_depth=True)
    _, slanted = palm_distances(observed.rays_T212, observed.image_z_T21, float(palm_size(joints).mean()))
    np.testing.assert_allclose(slanted, joints[:, PALM, 2].mean(1), rtol=0.02)
