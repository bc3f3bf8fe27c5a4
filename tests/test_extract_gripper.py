"""The chain of steps on real input: given masks, motion boxes, Lucas-Kanade, sensor depth; linking of boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from extract.effector import EffectorTrack, extract
from extract.gripper.config import GripperConfig
from extract.gripper.extractor import GripperExtractor
from extract.gripper.link import iou, linked
from extract.steps import BoxDetection
from tests.benchmarks.mask_cases import Case, gripper_case


def box(x: float, y: float, score: float = 0.9, label: str = "gripper") -> BoxDetection:
    return BoxDetection(label, score, np.array([x, y, x + 20.0, y + 20.0]))


def test_two_effectors_keep_their_boxes_whatever_their_order() -> None:
    rng = np.random.default_rng(0)
    times = np.arange(40) / 20
    found = []
    for slot in range(40):
        pair = [box(10 + 2 * slot, 30), box(110 - 2 * slot, 80)]
        found.append([pair[i] for i in rng.permutation(2)])
    first, second = linked(times, found, 2, 0.5)
    assert [d.box_4[1] for d in (*first, *second) if d is not None] == [found[0][0].box_4[1]] * 40 + [
        found[0][1].box_4[1]
    ] * 40


def test_the_best_is_kept_and_gaps_are_none() -> None:
    times = np.arange(10) / 20
    found = [[box(10 + slot, 10), box(80, 80, 0.4)] if slot not in (4, 5) else [] for slot in range(10)]
    (only,) = linked(times, found, 1, 0.5)
    assert [d is None for d in only] == [slot in (4, 5) for slot in range(10)]
    assert all(d.score == 0.9 for d in only if d is not None)


def test_labels_are_never_mixed_and_long_losses_end_an_effector() -> None:
    times = np.arange(4) / 2
    other = linked(times, [[box(0, 0)], [box(0, 0, label="hand")]] * 2, 9, 10.0)
    assert [sum(d is not None for d in row) for row in other] == [2, 2]
    lost = linked(times, [[box(0, 0)], [], [], [box(0, 0)]], 9, 1.0)
    assert [sum(d is not None for d in row) for row in lost] == [1, 1]


def test_overlap_of_boxes() -> None:
    assert iou(np.array([0, 0, 2, 2.0]), np.array([1, 0, 3, 2.0])) == 1 / 3
    assert iou(np.array([0, 0, 1, 1.0]), np.array([2, 2, 3, 3.0])) == 0
    assert iou(np.zeros(4), np.zeros(4)) == 0


@pytest.fixture(scope="module")
def case() -> Case:
    """The gripper in one simulated episode, 128 px, exact depth."""
    return gripper_case("drawer-close-v3", 0, 11)


def errors_mm(case: Case, track: EffectorTrack) -> np.ndarray:
    """Distance of every visible point from where its material is, taken from the first frame that shows it well."""
    first = int(track.visible.mean(1).argmax())
    truth = case.follow(track.points[first].astype(float), int(track.frame_slots[first]))[track.frame_slots]
    wrong = np.linalg.norm(track.points - truth, axis=-1)
    return 1000 * wrong[track.visible]


@pytest.mark.parametrize("lift", ["unproject", "surface"])
def test_a_given_mask_is_followed_by_either_lifter(case: Case, lift: str) -> None:
    config = GripperConfig.model_validate({"detect": "given", "segment": "given", "lift": lift, "points": 60})
    extractor = GripperExtractor(config)
    (track,) = extract(extractor, case.frames, case.camera).tracks
    assert track.scale == "metric" and track.depth_source == "sensor" and track.points.shape[1] == 60
    assert np.median(errors_mm(case, track)) < 4
    assert extractor.name.endswith("+lucas-kanade+sensor+unproject" if lift == "unproject" else "+given+sensor+surface")


def test_without_any_mask_motion_finds_the_gripper_and_depth_cuts_it_out() -> None:
    case = gripper_case("button-press-v3", 0, 11)
    bare = [replace(frame, mask=None) for frame in case.frames]
    extraction = extract(GripperExtractor(GripperConfig(points=60)), bare, case.camera)
    track = max(extraction.tracks, key=lambda found: len(found.frame_slots))
    assert len(track.frame_slots) > 0.4 * len(bare)
    assert track.quality["score"] > 0.5  # the detector is sure of itself here
    u, v = np.floor(case.camera.project(track.points)).astype(int).transpose(2, 0, 1)
    on_gripper = []
    for row, slot in enumerate(track.frame_slots):
        mask = case.frames[slot].mask
        assert mask is not None
        if (seen := track.visible[row]).any():
            on_gripper.append(mask[np.clip(v[row], 0, 127), np.clip(u[row], 0, 127)][seen].mean())
    assert np.median(on_gripper) > 0.5


def test_without_depth_the_stretch_is_rejected_with_the_remedy(case: Case) -> None:
    bare = [replace(frame, depth=None) for frame in case.frames[:20]]
    config = GripperConfig.model_validate({"detect": "given", "segment": "given"})
    extraction = extract(GripperExtractor(config), bare, case.camera)
    assert extraction.tracks == []
    assert [reason for reason, _ in extraction.rejections] == ["no_lift"]
    assert "depth" in extraction.rejections[0][1]


def test_found_but_never_cut_out_is_a_rejection_that_says_so(case: Case) -> None:
    maskless = [replace(frame, mask=None) for frame in case.frames[:20]]
    config = GripperConfig.model_validate({"detect": "picture", "segment": "given"})
    extraction = extract(GripperExtractor(config), maskless, case.camera)
    assert extraction.tracks == [] and extraction.rejections == [
        ("no_mask", f"found in 20 frames, from {maskless[0].time:.2f} s on; cut out in none")
    ]


def test_the_whole_picture_is_followed_where_nothing_finds_the_effector(case: Case) -> None:
    bare = [replace(frame, mask=None, depth=None) for frame in case.frames]
    depth = {"name": "assumed", "distance_m": 1.5}
    config = GripperConfig.model_validate({"detect": "picture", "segment": "picture", "depth": depth, "points": 100})
    (track,) = extract(GripperExtractor(config), bare, case.camera).tracks
    assert track.scale == "relative" and track.points.shape == (len(bare), 100, 3)
    np.testing.assert_allclose(track.points[..., 2], 1.5, rtol=1e-3)
    pixels = case.camera.project(track.points[0])
    assert (np.ptp(pixels, axis=0) > 90).all(), "all over the picture of 128 px"
    moved = np.linalg.norm(track.points[-1] - track.points[0], axis=-1)
    mask = case.frames[0].mask
    assert mask is not None
    u, v = np.clip(np.floor(pixels).astype(int), 0, 127).T
    on_arm = mask[v, u]
    assert on_arm.any() and np.median(moved[on_arm]) > 5 * np.median(moved[~on_arm])
