"""An arm that enters the picture is found at its far end, in simulation and drawn; a moving camera lowers the score."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from data.episode import Frame
from extract.effector import Camera
from extract.robot.chain import far_ends
from extract.robot.looks import colours, likeness
from extract.robot.motion import MotionDetector, MotionSettings
from extract.robot.tracks import TrackSettings, picture_tracks
from tests.benchmarks.robot_cases import RobotCase, robot_case


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> RobotCase:
    return robot_case(tmp_path_factory.mktemp("robots"), "faucet-close-v3", 1, 100, 128)


@pytest.fixture(scope="module")
def drawn() -> tuple[list[Frame], np.ndarray]:
    """An arm of two links before a textured wall, and the place of its tip: f64 [T,2] pixels."""
    rng = np.random.default_rng(3)
    wall = cv2.resize(rng.integers(60, 190, (24, 32, 3)).astype(np.uint8), (160, 120), interpolation=cv2.INTER_CUBIC)
    frames, tips = [], []
    for slot in range(24):
        image = wall.copy()
        angle = 0.2 + 0.04 * slot
        elbow = np.array([50 * np.cos(angle), 60 + 30 * np.sin(angle) - 10])
        tip = elbow + 45 * np.array([np.cos(0.06 * slot - 0.4), np.sin(0.06 * slot - 0.4)])
        for start, end, width in (((-5, 60), elbow, 14), (elbow, tip, 8)):
            cv2.line(image, _whole(start), _whole(end), (230, 30, 30), width)
        frames.append(Frame(slot, slot / 20, image))
        tips.append(tip)
    return frames, np.array(tips)


def _whole(point) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _camera(frames: list[Frame]) -> Camera:
    height, width = frames[0].image.shape[:2]
    return Camera(np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]]), (width, height), "assumed")


def test_the_end_of_a_drawn_arm_is_found_in_nearly_every_frame(drawn):
    frames, tips = drawn
    found = list(MotionDetector(MotionSettings())(iter(frames), _camera(frames)))
    assert [frame for frame, _ in found] == frames
    hits = []
    for (_, boxes), tip in zip(found, tips, strict=True):
        hits += [bool(((box.box_4[:2] - 3 < tip) & (tip < box.box_4[2:] + 3)).all()) for box in boxes]
    assert len(hits) >= 20 and np.mean(hits) > 0.9


def test_the_simulated_gripper_is_found(case):
    hits = []
    for (_, boxes), mask in zip(
        MotionDetector(MotionSettings())(iter(case.frames), case.camera), case.mask, strict=True
    ):
        grown = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8))
        for box in boxes:
            x, y = (box.box_4[:2] + box.box_4[2:]) / 2
            hits.append(bool(grown[int(min(y, 127)), int(min(x, 127))]))
    assert len(hits) > 0.8 * len(case.frames) and np.mean(hits) > 0.8


def test_a_moving_camera_and_a_still_picture_are_not_believed(drawn):
    frames, _ = drawn
    still = MotionDetector(MotionSettings()).boxes(frames)
    shifted = [
        replace(frame, image=np.roll(frame.image, (2 * slot, 3 * slot), (0, 1))) for slot, frame in enumerate(frames)
    ]
    moved = MotionDetector(MotionSettings()).boxes(shifted)
    assert np.median([box.score for box in still if box]) > 0.4
    assert max((box.score for box in moved if box), default=0.0) < 0.2
    at_rest = [replace(frame, image=frames[0].image) for frame in frames]
    assert MotionDetector(MotionSettings()).boxes(at_rest) == [None] * len(frames)


def test_long_videos_are_held_in_bounded_parts(drawn):
    frames, _ = drawn
    read = []

    def source():
        for frame in frames:
            read.append(frame.index)
            yield frame

    detector = MotionDetector(MotionSettings(max_frames=10))
    ahead = [len(read) - frame.index for frame, _ in detector(source(), _camera(frames))]
    assert max(ahead) <= 10 and len(ahead) == len(frames)


def test_a_thin_end_is_farther_than_a_thick_bend():
    region = np.zeros((80, 100), bool)
    region[20:44, :60] = True  # a thick arm from the left
    region[44:62, 50:54] = True  # with a thin finger that hangs from its end
    entrance = np.zeros_like(region)
    entrance[:, :2] = True
    first = far_ends(region, entrance, region, region)[0]
    np.testing.assert_allclose(first.tip_2, [52, 61], atol=3)
    assert first.region_HW[60, 52] and not first.region_HW[30, 5]


def test_tracks_follow_a_known_shift_to_a_fraction_of_a_pixel():
    rng = np.random.default_rng(0)
    wall = cv2.GaussianBlur(rng.integers(0, 255, (120, 160)).astype(np.uint8), (0, 0), 1.5)
    steps = np.cumsum(np.concatenate([[[0, 0]], rng.uniform(-2, 2, (9, 2))]), 0)
    images = [
        np.repeat(cv2.warpAffine(wall, np.array([[1, 0, x], [0, 1, y]], float), (160, 120))[..., None], 3, 2)
        for x, y in steps
    ]
    tracks = picture_tracks(images, TrackSettings())
    whole = tracks.take(np.logical_and.reduce(tracks.seen_TK))
    assert whole.seen_TK.shape[1] > 50
    moved = whole.pixels_TK2 - whole.pixels_TK2[:1]
    assert np.median(np.abs(moved - steps[:, None])) < 0.1


def test_an_end_looks_like_those_of_other_frames_but_not_like_itself():
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, 10:20], image[:, 20:] = (200, 40, 40), (40, 40, 200)
    part = [np.zeros((20, 30), bool) for _ in range(3)]
    for number, region in enumerate(part):
        region[:, 10 * number : 10 * number + 10] = True
    looks = np.stack([colours(image, part[1]), colours(image, part[1]), colours(image, part[2])])
    alike = likeness(looks, np.array([0, 1, 1]), np.array([0, 1]), np.array([1.0, 1.0]))
    np.testing.assert_allclose(alike, [1, 1, 0], atol=1e-3)
    alone = likeness(looks[:1], np.array([0]), np.array([0]), np.array([1.0]))
    np.testing.assert_allclose(alone, [0])
