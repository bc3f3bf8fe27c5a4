"""The real detector on a simulated close-up with exact truth, and what it says about a video without hands."""

from __future__ import annotations

import numpy as np
import pytest

from data.episode import Frame
from data.simulation.closeup import CloseupSettings, make_closeup
from extract.effector import Extraction, extract
from extract.hand.config import HandConfig
from extract.hand.extractor import HandExtractor
from tests.benchmarks.hand_clips import HandClip, read_clips
from tests.hand_cases import CAMERA


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> HandClip:
    from data.simulation.write import write_episode

    folder = tmp_path_factory.mktemp("closeup")
    images, arrays, sidecar = make_closeup(1006, CloseupSettings(step_mm=8.0, seconds=1.2))
    write_episode(folder, "closeup", images, 25, arrays, sidecar)
    return read_clips(folder)[0]


@pytest.fixture(scope="module")
def extraction(clip) -> Extraction:
    return extract(HandExtractor(HandConfig()), clip.frames(with_depth=True), clip.camera)


def test_a_hand_with_sensor_depth_is_where_it_is(clip, extraction):
    (track,) = extraction.tracks
    truth = clip.arrays["truth_joints"][track.frame_slots]
    assert track.side == clip.side and track.scale == "metric"
    assert track.points.shape == (len(track.frame_slots), 200, 3) and track.points.dtype == np.float32
    assert np.median(np.abs(track.points[..., 2].mean(1) / truth[..., 2].mean(1) - 1)) < 0.03
    moved, true = (x[10:].mean(1) - x[:-10].mean(1) for x in (track.points, truth))
    assert np.median(np.linalg.norm(moved - true, axis=1)) < 0.5 * np.median(np.linalg.norm(true, axis=1))
    assert 0.2 < track.visible.mean() < 0.7 and (track.sigma > 0).all()
    assert ((track.confidence >= 0) & (track.confidence <= 1)).all() and (track.opening >= 0).all()


def test_the_same_frames_give_the_same_bytes(clip, extraction):
    again = extract(HandExtractor(HandConfig()), clip.frames(with_depth=True), clip.camera)
    for first, second in zip(extraction.tracks, again.tracks, strict=True):
        for name in ("points", "visible", "sigma", "confidence", "opening", "overlay_px"):
            assert getattr(first, name).tobytes() == getattr(second, name).tobytes(), name


def test_a_lost_hand_is_carried_over_a_gap_and_marked(clip):
    frames = list(clip.frames(with_depth=True))
    for slot in range(12, 16):
        blank = np.full_like(frames[slot].image, 90)
        frames[slot] = Frame(frames[slot].index, frames[slot].time, blank, frames[slot].depth, frames[slot].mask)
    (track,) = extract(HandExtractor(HandConfig(max_gap_s=0.4)), frames, clip.camera).tracks
    rows = np.flatnonzero((track.frame_slots >= 12) & (track.frame_slots < 16))
    assert len(rows) == 4 and not track.visible[rows].any()
    assert (track.sigma[rows] > track.sigma[0]).any(1).all()
    truth = clip.arrays["truth_joints"][12:16]
    assert np.linalg.norm(track.points[rows].mean(1) - truth.mean(1), axis=-1).max() < 0.05


def test_the_detector_keeps_the_terminal_clean(clip, capfd):
    extract(HandExtractor(HandConfig()), list(clip.frames(with_depth=False))[:4], clip.camera)
    assert capfd.readouterr() == ("", "")


def test_a_video_without_hands_shows_nothing():
    rng = np.random.default_rng(0)
    frames = [Frame(t, t / 25, rng.integers(0, 255, (120, 160, 3), dtype=np.uint8)) for t in range(6)]
    extractor = HandExtractor(HandConfig())
    sights = list(extractor.look(frames, CAMERA))
    assert len(sights) == 6 and not any(sight.found for sight in sights)
    assert extractor.lift(sights, CAMERA) == Extraction([], [])


def test_no_frames_at_all_give_no_tracks():
    assert extract(HandExtractor(HandConfig()), [], CAMERA) == Extraction([], [])
