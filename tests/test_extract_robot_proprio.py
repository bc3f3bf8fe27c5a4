"""The camera of a simulated robot is found from its recorded poses, or refused with a reason."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.video import Unreadable
from extract.config import ExtractConfig
from extract.effector import EffectorTrack, extract
from extract.effectors import build_extractor
from extract.gates import faults
from extract.robot.config import ProprioSettings
from extract.robot.proprio import ProprioDetector, gripper_track, gripper_tracks
from extract.steps import Shot
from tests.benchmarks.robot_cases import RobotCase, robot_case

TASKS = ("window-close-v3", "drawer-close-v3")


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> list[RobotCase]:
    folder: Path = tmp_path_factory.mktemp("robots")
    return [robot_case(folder, task, 0, 100, 128, camera_seed=100000) for task in TASKS]


def _depth_error(case: RobotCase, track) -> float:
    """Median error of the gripper's distance as a share of it, by the recorded path of the true camera."""
    poses = np.stack([pose for frame in case.frames if (pose := frame.base_from_effector) is not None])[
        track.frame_slots
    ]
    middle = np.median(track.points.astype(float), 1)
    inverse = np.linalg.inv(poses) @ track.world_from_camera_T44
    offset = np.median(np.einsum("tij,tj->ti", inverse[:, :3, :3], middle) + inverse[:, :3, 3], 0)
    truth = case.camera_from_base @ poses
    expected = np.einsum("tij,j->ti", truth[:, :3, :3], offset) + truth[:, :3, 3]
    return float(np.median(np.linalg.norm(middle - expected, axis=1) / expected[:, 2]))


@pytest.fixture(scope="module")
def known(cases) -> EffectorTrack:
    """The first case with its focal length given."""
    return gripper_track(Shot(cases[0].frames, cases[0].true_camera), ProprioSettings()).tracks[0]


def test_two_episodes_tell_the_camera(cases):
    shots = [case.shot for case in cases]
    found = gripper_tracks(shots, ProprioSettings(together=2, max_sigma=0.05))
    for case, extraction in zip(cases, found, strict=True):
        (track,) = extraction.tracks
        assert track.camera is not None and track.camera.origin == "estimated"
        assert track.camera.focal_px == pytest.approx(case.true_camera.focal_px, rel=0.06)
        assert track.scale == "metric" and track.depth_source == "proprio"
        assert _depth_error(case, track) < 0.06
        assert track.points.shape == (len(track.frame_slots), track.visible.shape[1], 3)
        assert np.isfinite(track.points).all() and (track.sigma > 0).all()


def test_the_extract_stage_takes_it_by_name(cases, known):
    config = ExtractConfig.model_validate({"gripper": {"detect": "proprio"}})
    extractor = build_extractor("gripper", config)
    (track,) = extract(extractor, cases[0].frames, cases[0].true_camera).tracks
    assert extractor.name == "proprio/1" and not faults(track.quality, extractor.gates)
    assert track.points.tobytes() == known.points.tobytes()
    bare = [replace(frame, base_from_effector=None) for frame in cases[0].frames[:3]]
    assert not any(sight.found for sight in extractor.look(bare, cases[0].camera))


def test_a_path_that_cannot_tell_the_distance_is_refused(cases):
    half = Shot(cases[1].frames[:14], cases[1].camera)
    extraction = gripper_track(half, ProprioSettings())
    assert not extraction.tracks
    reason, detail = extraction.rejections[0]
    assert reason in ("ill_conditioned", "no_rigid_tracks") and "needed" in detail


def test_boxes_lie_on_the_gripper(cases):
    case = cases[0]
    hits = []
    for slot, (frame, found) in enumerate(ProprioDetector(ProprioSettings())(iter(case.frames), case.camera)):
        assert frame is case.frames[slot]
        for detection in found:
            rows, columns = np.nonzero(case.mask[slot])
            centre = (detection.box_4[:2] + detection.box_4[2:]) / 2
            hits.append(np.hypot(columns + 0.5 - centre[0], rows + 0.5 - centre[1]).min() < 4)
    assert len(hits) > 0.8 * len(case.frames) and np.mean(hits) > 0.9


def test_same_input_same_bytes(cases, known):
    again = gripper_track(Shot(cases[0].frames, cases[0].true_camera), ProprioSettings()).tracks[0]
    assert known.points.tobytes() == again.points.tobytes() and known.sigma.tobytes() == again.sigma.tobytes()


def test_known_focal_length_is_kept(cases, known):
    assert known.camera is not None and known.camera.origin == "given"
    assert known.camera.focal_px == pytest.approx(cases[0].true_camera.focal_px, rel=0.01)
    assert _depth_error(cases[0], known) < 0.03


def test_resting_robot_and_foreign_poses_are_refused(cases):
    case = cases[0]
    pose = case.frames[0].base_from_effector
    resting = [replace(frame, base_from_effector=pose) for frame in case.frames]
    assert gripper_track(Shot(resting, case.camera), ProprioSettings()).rejections[0][0] == "too_little_motion"
    still = [replace(frame, image=case.frames[0].image) for frame in case.frames]
    assert gripper_track(Shot(still, case.camera), ProprioSettings()).rejections[0][0] == "nothing_moves"
    without = [replace(frame, base_from_effector=None) for frame in case.frames]
    assert gripper_track(Shot(without, case.camera), ProprioSettings()).rejections[0][0] == "no_poses"


def test_a_pose_that_is_not_rigid_is_named(cases):
    frames = list(cases[0].frames)
    frames[3] = replace(frames[3], base_from_effector=2 * np.eye(4))
    with pytest.raises(Unreadable, match=r"bad_arrays: base_from_effector: frame 3 .*rotation"):
        gripper_track(Shot(frames, cases[0].camera), ProprioSettings())
