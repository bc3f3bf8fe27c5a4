"""Masks from boxes without a network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data.episode import Frame
from extract.segment.box import Box, BoxSettings, empty_plate
from extract.steps import BoxDetection, Shot
from tests.tiny_models import block, make_shot

HEIGHT, WIDTH = 96, 128


def box_of(index: int) -> np.ndarray:
    """The block's box, two pixels too large on every side."""
    rows, columns = block(index, HEIGHT, WIDTH)
    return np.array([columns.start - 2, rows.start - 2, columns.stop + 2, rows.stop + 2], float)


def case(depth: bool, noise: float = 4.0, jump: int = 3) -> tuple[Shot, list[BoxDetection | None]]:
    """The wandering block, ``jump`` pixels per frame, with noise in the picture and in depth."""
    rng = np.random.default_rng(0)
    whole = make_shot(20 * jump, HEIGHT, WIDTH, depth=depth)
    frames, seen = [], []
    for frame in whole.frames[::jump]:
        image = np.clip(frame.image + rng.normal(0, noise, frame.image.shape), 0, 255).astype(np.uint8)
        metres = None if frame.depth is None else frame.depth + rng.normal(0, 0.002, frame.depth.shape)
        frames.append(replace(frame, image=image, depth=None if metres is None else metres.astype(np.float32)))
        seen.append(BoxDetection("gripper", 0.9, box_of(frame.index)))
    return Shot(frames, whole.camera), seen


def shares(shot: Shot, masks: list[np.ndarray | None]) -> list[float]:
    """Intersection over union with the block in each frame that has a mask."""
    found = []
    for frame, mask in zip(shot.frames, masks, strict=True):
        truth = np.zeros((HEIGHT, WIDTH), bool)
        truth[block(frame.index, HEIGHT, WIDTH)] = True
        if mask is not None:
            found.append(float((mask & truth).sum() / (mask | truth).sum()))
    return found


@pytest.mark.parametrize("depth", [False, True])
def test_the_mask_is_the_thing_and_not_its_box(depth: bool) -> None:
    shot, seen = case(depth)
    masks = Box(BoxSettings())(shot, seen)
    found = shares(shot, masks)
    assert len(found) == len(seen) and min(found) > 0.9
    for mask, detection in zip(masks, seen, strict=True):
        assert mask is not None and detection is not None and mask.shape == (HEIGHT, WIDTH) and mask.dtype == bool
        x0, y0, x1, y1 = detection.box_4.astype(int)
        outside = mask.copy()
        outside[y0:y1, x0:x1] = False
        assert not outside.any()


def test_depth_alone_finds_it_where_colours_are_the_same() -> None:
    shot, seen = case(depth=True)
    grey = [replace(frame, image=np.full_like(frame.image, 120)) for frame in shot.frames]
    assert min(shares(shot, Box(BoxSettings())(Shot(grey, shot.camera), seen))) > 0.8
    one = Shot(grey[:1], shot.camera)
    assert min(shares(one, Box(BoxSettings())(one, seen[:1]))) > 0.8  # one frame: no empty picture, only the plane


def test_holes_in_depth_are_bridged_by_colour() -> None:
    shot, seen = case(depth=True)
    frames: list[Frame] = []
    for frame in shot.frames:
        assert frame.depth is not None
        holes = frame.depth.copy()
        holes[:, (np.arange(WIDTH) // 4) % 2 == 0] = 0
        frames.append(replace(frame, depth=holes))
    assert min(shares(shot, Box(BoxSettings())(Shot(frames, shot.camera), seen))) > 0.9


def test_frames_without_a_detection_and_shots_without_evidence_have_no_mask() -> None:
    shot, seen = case(depth=False)
    seen[4] = None
    masks = Box(BoxSettings())(shot, seen)
    assert masks[4] is None and all(mask is not None for slot, mask in enumerate(masks) if slot != 4)
    rng = np.random.default_rng(1)
    moving = [
        replace(frame, image=np.roll(frame.image, rng.integers(0, 96, 2), (0, 1))) for frame in shot.frames
    ]  # another place behind it in every frame: nothing to compare with
    assert empty_plate(moving, [None if d is None else d.box_4 for d in seen]) is None
    assert set(Box(BoxSettings())(Shot(moving, shot.camera), seen)) == {None}
    assert Box(BoxSettings())(Shot([], shot.camera), []) == []


def test_boxes_at_and_beyond_the_border_do_no_harm() -> None:
    shot, seen = case(depth=True)
    odd = [[-20, -10, 300, 200], [120, 80, 140, 110], [300, 300, 310, 320], [5, 5, 5, 5], [10, 10, 11, 11]]
    boxes = [BoxDetection("gripper", 0.9, np.array(values, float)) for values in odd] + seen[5:]
    masks = Box(BoxSettings())(shot, boxes)
    assert masks[2] is None and masks[3] is None and masks[4] is None
    assert all(mask is None or mask.shape == (HEIGHT, WIDTH) for mask in masks)


def test_large_frames_are_looked_at_small_and_masked_at_their_own_size() -> None:
    shot, seen = case(depth=True)
    large = []
    for frame in shot.frames:
        assert frame.depth is not None
        image, depth = (np.repeat(np.repeat(values, 6, 0), 6, 1) for values in (frame.image, frame.depth))
        large.append(replace(frame, image=image, depth=depth))
    boxes = [BoxDetection("gripper", 0.9, found.box_4 * 6) for found in seen if found is not None]
    for frame, mask in zip(shot.frames, Box(BoxSettings())(Shot(large, shot.camera), boxes), strict=True):
        truth = np.zeros((HEIGHT, WIDTH), bool)
        truth[block(frame.index, HEIGHT, WIDTH)] = True
        truth = np.repeat(np.repeat(truth, 6, 0), 6, 1)
        assert mask is not None and mask.shape == truth.shape
        assert (mask & truth).sum() / (mask | truth).sum() > 0.9


def test_same_bytes_every_time() -> None:
    shot, seen = case(depth=False)
    first, second = (Box(BoxSettings())(shot, seen) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one is not None and other is not None and one.tobytes() == other.tobytes()
