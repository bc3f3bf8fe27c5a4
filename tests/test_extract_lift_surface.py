"""The surface lifter as a step, the averaging of its template, and fine sampling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from extract.lift.surface import Surface, SurfaceConfig
from extract.mask.surface import measured_surface
from extract.steps import DepthMaps, Shot
from pipeline.errors import UserError
from tests.test_extract_mask_tracker import CAMERA, render, solid, truth

SCENE = solid()[::2]


def rendered(noise_m: float = 0.0) -> tuple[Shot, list[np.ndarray | None], DepthMaps, list[np.ndarray]]:
    rng = np.random.default_rng(4)
    pairs = [render(boxes, number) for number, boxes in enumerate(SCENE)]
    maps: list[np.ndarray | None] = []
    for frame, _ in pairs:
        assert frame.depth is not None
        maps.append(np.where(frame.depth > 0, frame.depth + rng.normal(0, noise_m, frame.depth.shape), 0))
    bare = [replace(frame, mask=None, depth=None) for frame, _ in pairs]
    masks: list[np.ndarray | None] = [frame.mask for frame, _ in pairs]
    depth = DepthMaps(maps, "metric", max(noise_m, 1e-4) / 0.8, "sensor")
    return Shot(bare, CAMERA), masks, depth, [owner for _, owner in pairs]


def test_masks_and_depth_of_the_steps_are_used_and_a_noisy_template_is_averaged() -> None:
    shot, masks, depth, owners = rendered(0.003)
    lifted = Surface(SurfaceConfig(points=80))(shot, masks, None, depth)
    reference = int(np.argmax([0 if mask is None else mask.sum() for mask in masks]))
    pixels = CAMERA.project(lifted.points[reference].astype(np.float64))
    clean = render(SCENE[reference], 0)[0].depth
    assert clean is not None
    column, row = np.floor(pixels).astype(int).T
    start = CAMERA.unproject(pixels, clean[row, column].astype(np.float64))
    first = lifted.points[reference][:, 2] - start[:, 2]
    assert np.std(first) < 0.8 * 0.003  # a single depth value is off by 3 mm
    there = truth(SCENE, owners[reference], start, reference)
    off = np.linalg.norm(lifted.points - there, axis=-1)
    assert np.median(off) < 0.0035 and lifted.scale == "metric" and lifted.depth_source == "sensor"
    surer = Surface(SurfaceConfig(points=80))(shot, masks, None, replace(depth, sigma=0.0001))
    assert (surer.sigma[:, 1] < lifted.sigma[:, 1]).all()


def test_frames_without_mask_or_depth_are_not_measured_and_none_at_all_is_an_error() -> None:
    shot, masks, depth, _ = rendered()
    masks[4] = None
    maps = list(depth.maps)
    maps[6] = None
    lifted = Surface(SurfaceConfig(points=40))(shot, masks, None, replace(depth, maps=maps))
    assert not lifted.visible[[4, 6]].any() and (lifted.confidence[[4, 6]] == 0).all()
    assert np.isfinite(lifted.points).all() and (lifted.sigma[4] > lifted.sigma[3]).all()
    with pytest.raises(UserError, match="no frame of 10 shows 30 effector pixels with depth from sensor"):
        Surface()(shot, [None] * len(SCENE), None, depth)


def test_fine_samples_fill_the_pixels_and_lie_on_the_surface() -> None:
    frame, _ = render(SCENE[0], 0)
    coarse, fine = measured_surface(frame, CAMERA, 10**6), measured_surface(frame, CAMERA, 10**6, 2)
    assert len(fine.points_N3) == 4 * len(coarse.points_N3) and np.isclose(fine.pitch_m, coarse.pitch_m / 2)
    assert len(measured_surface(frame, CAMERA, 300, 2).points_N3) <= 300
    pixels, centres = CAMERA.project(fine.points_N3), CAMERA.project(coarse.points_N3).repeat(4, axis=0)
    np.testing.assert_allclose(np.abs(pixels - centres), 0.25, atol=1e-6)
    gap = np.abs(fine.points_N3[:, 2] - coarse.points_N3.repeat(4, axis=0)[:, 2])
    assert np.median(gap) > 0 and np.percentile(gap, 95) < 0.006
