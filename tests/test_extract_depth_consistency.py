"""Made-up depth with a random scale in every frame and noise in every pixel comes out steady, anchored and honest."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
from scipy.special import ndtri

from data.episode import Frame
from extract.depth.consistency import Corrections, Fit, Kind, consistent_frames, fit_anchors, to_values
from extract.steps import DepthAnchor
from tests.tiny_models import block, make_shot

HEIGHT, WIDTH, COUNT = 96, 128, 40
KINDS: tuple[Kind, ...] = ("metric", "disparity")


@dataclass(frozen=True)
class Made:
    """A clip whose truth is known. values: what a network would say, at half size."""

    truth: list[np.ndarray]
    frames: list[Frame]
    values: list[np.ndarray]

    def corrected(self, kind: Kind, known_boxes: bool = True) -> Corrections:
        boxes = [box(t) if known_boxes else None for t in range(len(self.frames))]
        return consistent_frames(self.values, self.frames, kind, boxes)

    def depth(self, corrections: Corrections, fit: Fit) -> list[np.ndarray]:
        pairs = zip(self.values, corrections.scale_T, corrections.shift_T, strict=True)
        return [fit.depth((value - shift) / scale) for value, scale, shift in pairs]


def box(t: int) -> np.ndarray:
    rows, columns = block(t, HEIGHT, WIDTH)
    return np.array([columns.start, rows.start, columns.stop, rows.stop], float)


def made(
    kind: Kind, seed: int, noise: float = 0.02, jitter: float = 0.05, jump: float = 0.2, moving: bool = False
) -> Made:
    """A slanted scene at 1.2 to 1.8 m with a block before it that comes and goes around 0.5 m.

    noise: of patches of 8 pixels. jitter: one sigma of log scale from frame to frame. jump: in the middle frame.
    moving: the camera comes closer, 4 mm per frame, and no picture is like another.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    clip, log_scale = np.exp(rng.normal(0, 0.2)), rng.normal(0, jitter, COUNT)
    log_scale[COUNT // 2] += jump
    truth, frames, values = [], [], []
    for t, frame in enumerate(make_shot(COUNT, HEIGHT, WIDTH, seed).frames):
        depth = 1.8 - 0.6 * y / HEIGHT + 0.1 * np.sin(x / 20) - (0.004 * t if moving else 0)
        depth[block(t, HEIGHT, WIDTH)] = 0.5 + 0.05 * np.sin(t / 6)
        wrong = cv2.resize(rng.normal(0, noise, (HEIGHT // 8, WIDTH // 8)), (WIDTH, HEIGHT))
        seen = depth * np.exp(wrong) * clip * np.exp(log_scale[t])
        output = seen if kind == "metric" else 3 / seen + rng.normal(0.1, 0.05)
        truth.append(depth)
        frames.append(replace(frame, image=np.roll(frame.image, 5 * t, 1)) if moving else frame)
        values.append(to_values(output[::2, ::2], kind))
    return Made(truth, frames, values)


def hand_anchors(
    case: Made, seed: int, sigma: float, every: int = 1, factor: float = 1.0, own: float = 0.02
) -> list[DepthAnchor]:
    """21 points on the block in every n-th frame, all off by one factor (a hand's size) and each frame by its own."""
    rng, anchors = np.random.default_rng([seed, 1]), []
    for t in range(0, COUNT, every):
        x0, y0, x1, y1 = box(t)
        pixels = rng.uniform([x0 + 2, y0 + 2], [x1 - 2, y1 - 2], (21, 2))
        columns, rows = np.floor(pixels).astype(int).T
        depth = case.truth[t][rows, columns] * factor * np.exp(rng.normal(0, own))
        anchors.append(DepthAnchor(t, pixels, depth, np.full(21, sigma), "assumed"))
    return anchors


def sensor_anchors(case: Made, seed: int, frames: int) -> list[DepthAnchor]:
    """200 points all over some frames, 0.5 % of noise each."""
    rng = np.random.default_rng([seed, 2])
    anchors = []
    for t in np.linspace(0, COUNT - 1, frames).astype(int):
        pixels = rng.uniform(0, [WIDTH, HEIGHT], (200, 2))
        columns, rows = np.floor(pixels).astype(int).T
        depth = case.truth[t][rows, columns] * np.exp(rng.normal(0, 0.005, 200))
        anchors.append(DepthAnchor(int(t), pixels, depth, np.full(200, 0.005), "metric"))
    return anchors


def ratio_T(case: Made, depth: list[np.ndarray], on_block: bool) -> np.ndarray:
    """[T]: median of estimated over true depth, on the block or on the scene."""
    ratios = []
    for t, found in enumerate(depth):
        inside = np.zeros((HEIGHT, WIDTH), bool)
        inside[block(t, HEIGHT, WIDTH)] = True
        which = (inside == on_block)[::2, ::2] & (found > 0)
        ratios.append(np.median((found / case.truth[t][::2, ::2])[which]))
    return np.array(ratios)


def steps(ratio: np.ndarray) -> np.ndarray:
    return np.abs(np.diff(np.log(ratio)))


def untouched(case: Made, fit: Fit) -> list[np.ndarray]:
    return case.depth(Corrections(np.ones(COUNT), np.zeros(COUNT), 0.0, True), fit)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moving", [False, True])
def test_jumps_between_frames_vanish(kind: Kind, moving: bool) -> None:
    for seed in (1, 2, 3):
        case = made(kind, seed, moving=moving)
        corrections = case.corrected(kind)
        assert corrections.still != moving
        fit = fit_anchors(case.values, corrections, [], (WIDTH, HEIGHT), kind, 0.15)
        before = steps(ratio_T(case, untouched(case, fit), on_block=False))
        after = steps(ratio_T(case, case.depth(corrections, fit), on_block=False))
        assert before.max() > 0.12 and np.median(after) < np.median(before) / 5 and after.max() < 0.025
        on_block = steps(ratio_T(case, case.depth(corrections, fit), on_block=True))
        assert on_block.max() < (0.04 if kind == "metric" else 0.08)  # extrapolated from the scene behind it


@pytest.mark.parametrize("kind", KINDS)
def test_a_still_camera_does_not_drift_and_the_clip_keeps_its_mean(kind: Kind) -> None:
    case = made(kind, 4)
    corrections = case.corrected(kind)
    fit = fit_anchors(case.values, corrections, [], (WIDTH, HEIGHT), kind, 0.15)
    ratio = ratio_T(case, case.depth(corrections, fit), on_block=False)
    assert ratio.std() / ratio.mean() < 0.01
    assert abs(np.log(ratio[:10].mean() / ratio[-10:].mean())) < 0.01
    before = ratio_T(case, untouched(case, fit), on_block=False)
    assert np.median(ratio) == pytest.approx(np.median(before), rel=0.05)


def test_slow_change_by_a_moving_camera_is_kept() -> None:
    case = made("metric", 5, noise=0.0, jitter=0.0, jump=0.0, moving=True)
    corrections = case.corrected("metric")
    assert not corrections.still
    path = np.array([np.median(truth[80:]) for truth in case.truth])
    assert path[-1] / path[0] < 0.9
    assert np.abs(corrections.shift_T - corrections.shift_T.mean()).max() < 0.005


@pytest.mark.parametrize("kind", KINDS)
def test_something_that_stays_in_place_and_changes_depth_does_not_pull_the_scene_along(kind: Kind) -> None:
    case = made(kind, 6)
    corrections = case.corrected(kind, known_boxes=False)
    fit = fit_anchors(case.values, corrections, [], (WIDTH, HEIGHT), kind, 0.15)
    on_block = ratio_T(case, case.depth(corrections, fit), on_block=True)
    assert on_block.std() / on_block.mean() < 0.04  # the block itself comes and goes by 10 %


@pytest.mark.parametrize("kind", KINDS)
def test_anchors_are_met(kind: Kind) -> None:
    for seed in (7, 8):
        case = made(kind, seed)
        corrections = case.corrected(kind)
        for every in (1, 7):
            anchors = hand_anchors(case, seed, 0.0, every, own=0.002)
            fit = fit_anchors(case.values, corrections, anchors, (WIDTH, HEIGHT), kind, 0.15)
            assert fit.anchored == "assumed"
            on_block = ratio_T(case, case.depth(corrections, fit), on_block=True)
            assert np.median(on_block) == pytest.approx(1, abs=0.015)
        fit = fit_anchors(case.values, corrections, sensor_anchors(case, seed, 8), (WIDTH, HEIGHT), kind, 0.15)
        assert fit.anchored == "metric"
        for on_block in (False, True):
            ratio = ratio_T(case, case.depth(corrections, fit), on_block)
            assert np.median(ratio) == pytest.approx(1, abs=0.02)


def test_a_sensor_goes_before_an_assumed_size_and_gross_outliers_do_not_count() -> None:
    case = made("metric", 9)
    corrections = case.corrected("metric")
    sensor, hand = sensor_anchors(case, 9, 8), hand_anchors(case, 9, 0.0)
    wrong = [replace(anchor, depth_K=anchor.depth_K * 1.5) for anchor in hand]
    fits = [
        fit_anchors(case.values, corrections, anchors, (WIDTH, HEIGHT), "metric", 0.15)
        for anchors in (sensor, sensor + wrong)
    ]
    assert fits[0] == fits[1]
    spoilt = [replace(anchor, depth_K=anchor.depth_K * 3) if i % 5 == 0 else anchor for i, anchor in enumerate(hand)]
    clean = fit_anchors(case.values, corrections, hand, (WIDTH, HEIGHT), "metric", 0.15)
    fit = fit_anchors(case.values, corrections, spoilt, (WIDTH, HEIGHT), "metric", 0.15)
    assert fit.shift == pytest.approx(clean.shift, abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", ["hand", "sensor"])
def test_sigma_is_honest(kind: Kind, source: str) -> None:
    within, clips = [], 12
    for clip in range(clips):
        case = made(kind, 100 + clip, noise=0.01 + 0.05 * clip / (clips - 1))
        corrections = case.corrected(kind)
        # A hand's size is wrong by one factor in the whole clip; over the clips these have a sigma of 6 %.
        factor = float(np.exp(0.06 * ndtri(((5 * clip) % clips + 0.5) / clips)))
        hand, sensor = hand_anchors(case, clip, 0.06, factor=factor), sensor_anchors(case, clip, 6)
        anchors = hand if source == "hand" else sensor
        fit = fit_anchors(case.values, corrections, anchors, (WIDTH, HEIGHT), kind, 0.15)
        depth = case.depth(corrections, fit)
        for t in range(0, COUNT, 5):
            rows, columns = block(t, HEIGHT // 2, WIDTH // 2)
            columns = slice(box(t)[0].astype(int) // 2 + 2, box(t)[2].astype(int) // 2 - 2)
            off = np.log(depth[t] / case.truth[t][::2, ::2])[rows, columns]
            within.append(np.abs(off / fit.sigma).ravel())
    one, two = (float((np.concatenate(within) < limit).mean()) for limit in (1, 2))
    assert 0.6 < one < 0.8 and two > 0.9, f"{one:.2f} within one sigma, {two:.2f} within two"


def test_without_anchors_metres_stay_and_disparity_has_no_unit() -> None:
    metric = made("metric", 10)
    fit = fit_anchors(metric.values, metric.corrected("metric"), [], (WIDTH, HEIGHT), "metric", 0.17)
    assert (fit.anchored, fit.sigma, fit.shift) == (None, 0.17, 0.0)
    other = made("disparity", 10)
    corrections = other.corrected("disparity")
    fit = fit_anchors(other.values, corrections, [], (WIDTH, HEIGHT), "disparity", 0.17)
    assert fit.anchored is None
    assert np.median(np.stack(other.depth(corrections, fit))) == pytest.approx(1, rel=0.02)
    assert fit.depth(np.array([-1.0, 0.0, 1e-9, np.nan])).tolist() == [0, 0, 0, 0]


def test_one_frame_and_empty_frames_do_no_harm() -> None:
    case = made("metric", 11)
    single = consistent_frames(case.values[:1], case.frames[:1], "metric", [None])
    assert single.scale_T.tolist() == [1] and single.shift_T.tolist() == [0]
    blind = [np.full_like(value, np.nan) if t == 3 else value for t, value in enumerate(case.values)]
    corrections = consistent_frames(blind, case.frames, "metric", [None] * COUNT)
    assert np.isfinite(corrections.shift_T).all() and np.isfinite(corrections.noise)
    anchors = [DepthAnchor(0, np.array([[-5.0, 3.0], [500.0, 2.0]]), np.ones(2), np.full(2, 0.05), "metric")]
    assert fit_anchors(blind, corrections, anchors, (WIDTH, HEIGHT), "metric", 0.15).anchored is None


@pytest.mark.parametrize("kind", KINDS)
def test_same_numbers_every_time(kind: Kind) -> None:
    case = made(kind, 12)
    first, second = case.corrected(kind), case.corrected(kind)
    assert first.shift_T.tobytes() == second.shift_T.tobytes() and first.scale_T.tobytes() == second.scale_T.tobytes()
