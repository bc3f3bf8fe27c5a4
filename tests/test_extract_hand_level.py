"""The distance of an image-only clip rests on two estimates."""

from __future__ import annotations

import numpy as np
import pytest

from extract.hand.observe import HandObservations, level, observe
from extract.hand.skeleton import palm_size
from tests.hand_cases import CAMERA, moving_hand


def seen_exactly(frames: int = 20) -> tuple[np.ndarray, HandObservations, float]:
    """True joints, exact observations of them, and the true palm size."""
    time, joints = moving_hand(frames)
    nothing = np.full(joints.shape[:2], np.nan)
    palm = float(palm_size(joints).mean())
    measured = np.ones(frames, bool)
    return joints, observe(time, CAMERA.project(joints), joints, nothing, measured, CAMERA, palm), palm


def test_a_right_distance_is_left_almost_alone() -> None:
    joints, observed, palm = seen_exactly()
    assert level(joints, observed, palm) == pytest.approx(1, abs=0.06), "chords are foreshortened by a turned palm"


@pytest.mark.parametrize("wrong", [0.8, 1.25])
def test_a_wrong_distance_is_brought_half_way(wrong: float) -> None:
    joints, observed, palm = seen_exactly()
    right = level(joints, observed, palm)
    assert level(joints * wrong, observed, palm) == pytest.approx(right / np.sqrt(wrong), rel=1e-3)
