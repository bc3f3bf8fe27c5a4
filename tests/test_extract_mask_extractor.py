"""The mask extractor as a whole: gaps, rejections, uncertainty, determinism, and one simulated gripper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from data.episode import Frame
from extract.effector import EffectorTrack, Extraction, extract
from extract.mask.config import MaskConfig
from extract.mask.extractor import MaskExtractor
from tests.benchmarks.mask_tracking import measure, summary
from tests.test_extract_mask_tracker import CAMERA, FRAMES, render, solid
from tests.test_extract_track_lucas_kanade import simulated_gripper

CONFIG = MaskConfig(points=40)


def frames() -> list[Frame]:
    return [render(boxes, number)[0] for number, boxes in enumerate(solid())]


def hide(shown: list[Frame], hidden: range) -> list[Frame]:
    """The same frames with the effector out of the mask in some of them."""
    return [
        replace(frame, mask=np.zeros_like(frame.mask)) if number in hidden else frame
        for number, frame in enumerate(shown)
    ]


def only_track(shown: list[Frame], config: MaskConfig = CONFIG) -> EffectorTrack:
    extraction = extract(MaskExtractor(config), shown, CAMERA)
    assert len(extraction.tracks) == 1
    return extraction.tracks[0]


def test_bridged_frames_are_close_not_visible_and_less_sure() -> None:
    whole, bridged = only_track(frames()), only_track(hide(frames(), range(9, 12)))
    assert not bridged.visible[9:12].any() and (bridged.confidence[9:12] == 0).all()
    assert bridged.visible[[8, 12]].any() and (bridged.confidence[[8, 12]] == 1).all()
    # Twice as far from what was measured, more than twice as unsure; wider than any measured frame.
    assert (bridged.sigma[9:12] > 2 * bridged.sigma[[8, 12]].max(0)).all()
    assert (bridged.sigma[10] > bridged.sigma[9]).all() and (bridged.sigma[10] > bridged.sigma[11]).all()
    off = np.linalg.norm(bridged.points[9:12].mean(1) - whole.points[9:12].mean(1), axis=-1)
    assert (off < bridged.sigma[9:12].max(1)).all()


def test_a_long_loss_cuts_the_clip() -> None:
    extractor = MaskExtractor(MaskConfig(points=40, max_gap_s=0.1, min_seconds=0.3))
    extraction = extract(extractor, hide(frames(), range(9, 12)), CAMERA)
    assert [track.frame_slots.tolist() for track in extraction.tracks] == [[*range(9)], [*range(12, FRAMES)]]


def test_frames_without_effector_mask_or_depth_count_as_not_seen() -> None:
    bare = [replace(frame, mask=None, depth=None) for frame in frames()[:4]]
    for unseen in (hide(frames()[:4], range(4)), bare):
        sights = list(MaskExtractor(CONFIG).look(unseen, CAMERA))
        assert not any(sight.found for sight in sights)
        assert MaskExtractor(CONFIG).lift(sights, CAMERA) == Extraction([], [])


def test_a_short_appearance_is_rejected() -> None:
    extraction = extract(MaskExtractor(CONFIG), hide(frames(), range(4, FRAMES)), CAMERA)
    assert extraction.tracks == [] and [reason for reason, _ in extraction.rejections] == ["too_short"]


def test_the_same_frames_give_the_same_bytes() -> None:
    first, second = only_track(frames()), only_track(frames())
    for name in ("points", "visible", "sigma", "confidence"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()


def test_fewer_pixels_than_points_still_give_every_point() -> None:
    track = only_track(frames(), MaskConfig(points=2000))
    assert track.points.shape == (FRAMES, 2000, 3) and np.isfinite(track.points).all()


def test_a_simulated_gripper_is_followed_and_its_uncertainty_is_honest() -> None:
    row = summary([measure(simulated_gripper())["tracker"]])
    assert row["point_median_mm"] < 1.6 and row["point_p90_mm"] < 6
    assert row["step_median_mm"] < 1.2
    assert 0.5 < row["coverage_across"] < 0.9 and 0.5 < row["coverage_along"] < 0.9
    assert row["visible"] > 0.6
