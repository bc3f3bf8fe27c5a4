"""The hand's mask from its landmarks, against the exact mask of a simulated hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data.episode import Frame
from data.simulation.closeup import CloseupSettings, make_closeup
from data.simulation.write import DEPTH_UNIT_M
from extract.effector import Camera
from extract.hand.detection import Detection
from extract.segment.landmarks import LandmarkMask, LandmarkMaskSettings
from extract.steps import BoxDetection, Shot


@pytest.fixture(scope="module")
def clip() -> tuple[Shot, list[Detection], np.ndarray]:
    """Four frames with exact landmarks and masks."""
    images, arrays, sidecar = make_closeup(1011, CloseupSettings(seconds=0.16, step_mm=5.0))
    camera = Camera(np.array(sidecar["intrinsics"]), (640, 480), "given")
    depth = arrays["depth"] * np.float32(DEPTH_UNIT_M)
    frames = [Frame(t, t / 25, image, depth[t]) for t, image in enumerate(images)]
    joints = arrays["truth_joints"].astype(float)
    seen = [Detection("right", 0.9, camera.project(hand), hand - hand.mean(0)) for hand in joints]
    return Shot(frames, camera), seen, arrays["mask"]


def overlap(masks: list[np.ndarray | None], truth: np.ndarray) -> float:
    scores = []
    for mask, true in zip(masks, truth, strict=True):
        assert mask is not None and mask.shape == true.shape and mask.dtype == bool
        scores.append((mask & true).sum() / (mask | true).sum())
    return float(np.mean(scores))


def test_colour_and_depth_make_the_mask_better(clip):
    shot, seen, truth = clip
    blind = Shot([replace(frame, depth=None) for frame in shot.frames], shot.camera)
    flesh = overlap(LandmarkMask(LandmarkMaskSettings(use_colour=False))(blind, seen), truth)
    colour = overlap(LandmarkMask()(blind, seen), truth)
    depth = overlap(LandmarkMask()(shot, seen), truth)
    assert flesh > 0.7
    assert colour > max(flesh, 0.85)
    assert depth > 0.85


def test_a_thing_in_front_of_the_hand_is_no_hand_where_depth_tells(clip):
    shot, seen, truth = clip
    frame = shot.frames[0]
    assert frame.depth is not None
    covered = frame.depth.copy()
    rows = np.flatnonzero(truth[0].any(1))
    covered[rows[0] : rows[len(rows) // 3]] = 0.2
    (mask,) = LandmarkMask()(Shot([replace(frame, depth=covered)], shot.camera), seen[:1])
    (whole,) = LandmarkMask()(Shot([frame], shot.camera), seen[:1])
    assert mask is not None and whole is not None
    assert mask[rows[0] : rows[len(rows) // 3]].sum() < 0.1 * whole[rows[0] : rows[len(rows) // 3]].sum()


def test_hands_beyond_the_picture_and_other_effectors_are_no_error(clip):
    shot, seen, _ = clip
    gone = replace(seen[0], landmarks_px=seen[0].landmarks_px + np.array([5000, 0]))
    masks = LandmarkMask()(shot, [None, gone, BoxDetection("gripper", 0.9, np.array([0, 0, 9, 9.0])), seen[3]])
    assert masks[0] is None and masks[2] is None
    assert masks[1] is not None and not masks[1].any()
    assert masks[3] is not None and masks[3].any()
