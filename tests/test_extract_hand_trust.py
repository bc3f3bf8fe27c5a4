"""Which frames and tracks of hands are trusted: bad ones are told from fast, turning and resting hands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from extract.hand.trust import Seen, relief, rightness, scores, second_look, sides, trusted
from tests.hand_cases import CAMERA, moving_hand, seen_surface

FRAMES = 50


@pytest.fixture
def seen() -> Seen:
    """A sound right hand with sensor depth."""
    time, joints = moving_hand(FRAMES)
    return Seen(
        time_K=time,
        landmarks_K212=CAMERA.project(joints),
        world_K213=joints - joints.mean(1, keepdims=True),
        right_K=np.ones(FRAMES, bool),
        score_K=np.full(FRAMES, 0.95),
        sharpness_K=np.full(FRAMES, 0.2),
        repeated_K=np.zeros(FRAMES, bool),
        place_K=np.where(np.arange(FRAMES) % 20 == 0, 0.03, np.nan),
        mirrored_right_K=np.where(np.arange(FRAMES) % 20 == 0, 0.9, np.nan),
        surface_z_K21=seen_surface(joints, 0.061),
    )


def moved(seen: Seen, rows: range | list[int], by: np.ndarray) -> Seen:
    landmarks = seen.landmarks_K212.copy()
    landmarks[list(rows)] += by
    return replace(seen, landmarks_K212=landmarks)


def scaled(seen: Seen, rows: range, factor: float) -> Seen:
    landmarks = seen.landmarks_K212.copy()
    middle = landmarks[list(rows)].mean(1, keepdims=True)
    landmarks[list(rows)] = middle + factor * (landmarks[list(rows)] - middle)
    return replace(seen, landmarks_K212=landmarks)


def test_a_sound_hand_is_trusted_in_every_frame_however_fast_it_moves(seen):
    assert trusted(seen, CAMERA.image_size).all()
    assert trusted(
        moved(seen, range(FRAMES), np.linspace([-120, 60], [120, -60], FRAMES)[:, None]), CAMERA.image_size
    ).all()


def test_frames_with_the_hand_elsewhere_or_swollen_are_cut(seen):
    stray = ~trusted(moved(seen, [10, 11, 30], np.array([-140.0, 60.0])), CAMERA.image_size)
    assert np.flatnonzero(stray).tolist() == [10, 11, 30]
    swollen = ~trusted(scaled(seen, range(20, 23), 1.5), CAMERA.image_size)
    assert np.flatnonzero(swollen).tolist() == [20, 21, 22]


def test_blurred_frames_and_those_outside_the_picture_are_cut(seen):
    sharpness = seen.sharpness_K.copy()
    sharpness[15:20] = 0.05
    assert np.flatnonzero(~trusted(replace(seen, sharpness_K=sharpness), CAMERA.image_size)).tolist() == [
        *range(15, 20)
    ]
    outside = moved(seen, range(FRAMES), np.array([-seen.landmarks_K212[..., 0].mean(), 0.0]))
    assert not trusted(outside, CAMERA.image_size).any()


def test_a_repeated_picture_counts_only_while_the_hand_rests(seen):
    repeated = np.zeros(FRAMES, bool)
    repeated[[12, 13, 33]] = True
    landmarks = seen.landmarks_K212 + np.linspace([-80, 0], [80, 0], FRAMES)[:, None]
    landmarks[[12, 13]], landmarks[33] = landmarks[11], landmarks[32]
    shown = replace(seen, repeated_K=repeated, landmarks_K212=landmarks)
    assert np.flatnonzero(~trusted(shown, CAMERA.image_size)).tolist() == [12, 13, 33]
    resting = replace(shown, landmarks_K212=np.repeat(landmarks[:1], FRAMES, axis=0))
    assert trusted(resting, CAMERA.image_size).all()


def test_a_jump_in_scale_or_place_shows_in_the_scores_and_turning_does_not(seen):
    sound = scores(seen, CAMERA, 0.061)
    assert sound["swell"] < 0.05 and sound["jump"] < 0.1 and sound["depth_jump"] < 0.03
    assert abs(sound["depth_by_size"]) < 0.1 and sound["sensed"] == 1
    assert scores(scaled(seen, range(20, 50), 1.4), CAMERA, 0.061)["swell"] > 0.3
    assert scores(moved(seen, range(20, 50), np.array([-250.0, 0.0])), CAMERA, 0.061)["jump"] > 0.7
    width = 1 + 0.3 * np.sin(np.arange(FRAMES) / 2)[:, None]  # as when the hand turns quickly about its length
    turning = seen.landmarks_K212.copy()
    turning[..., 0] = 320 + (turning[..., 0] - turning[..., 0].mean(1, keepdims=True)) * width
    assert scores(replace(seen, landmarks_K212=turning), CAMERA, 0.061)["swell"] < 0.1


def test_wrong_depth_shows_in_the_scores(seen):
    half = seen.surface_z_K21.copy()
    half[25:] += 0.12
    assert scores(replace(seen, surface_z_K21=half), CAMERA, 0.061)["depth_jump"] > 0.15
    assert scores(replace(seen, surface_z_K21=1.4 * seen.surface_z_K21), CAMERA, 0.061)["depth_by_size"] > 0.25
    holes = seen.surface_z_K21.copy()
    holes[::2] = np.nan
    assert scores(replace(seen, surface_z_K21=holes), CAMERA, 0.061)["sensed"] == 0.5
    blind = scores(replace(seen, surface_z_K21=np.full((FRAMES, 21), np.nan)), CAMERA, 0.061)
    assert not {"depth_jump", "depth_by_size", "sensed"} & set(blind)


def test_scores_that_need_a_rate_are_left_out_of_slow_stills(seen):
    assert not {"jump", "swell", "depth_jump"} & set(scores(replace(seen, time_K=25 * seen.time_K), CAMERA, 0.061))


def test_the_relief_in_the_sensor_overrules_wrong_labels(seen):
    taken_for_left = replace(
        seen,
        right_K=~seen.right_K,
        world_K213=seen.world_K213 * [1, 1, -1],
        mirrored_right_K=-seen.mirrored_right_K,
    )
    assert np.nanmean(relief(seen)) > 0.5 > -0.5 > np.nanmean(relief(taken_for_left))
    assert rightness(seen) > 0.5 and rightness(taken_for_left) > 0.3
    blind = np.full((FRAMES, 21), np.nan)
    assert rightness(replace(taken_for_left, surface_z_K21=blind)) < -0.5
    assert rightness(seen.part(np.zeros(FRAMES, bool))) == 0


def test_of_two_hands_at_once_the_doubtful_one_is_the_other():
    assert sides([0.9, 0.1], [(0, 1)]) == ["right", "left"]
    assert sides([-0.2, -0.9], [(0, 1)]) == ["right", "left"]
    assert sides([0.9, 0.8], [(0, 1)]) == ["right", "right"]  # two people
    assert sides([0.9, 0.1], []) == ["right", "right"]


def test_a_hand_that_second_looks_do_not_find_stands_out(seen):
    assert second_look(seen)["second_look"] == pytest.approx(0.03)
    lost = np.where(np.isnan(seen.place_K), np.nan, np.inf)
    assert second_look(replace(seen, place_K=lost))["second_look"] == 9
    assert second_look(replace(seen, place_K=np.full(FRAMES, np.nan))) == {}
