"""Networks for depth and the sensor as sources of depth; tiny networks of the real architectures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from extract.depth.learned import (
    DepthAnything,
    DepthAnythingSettings,
    DepthPro,
    DepthProSettings,
    LearnedMaps,
    effector_boxes,
)
from extract.depth.sensor import SensorDepth, SensorDepthSettings
from extract.effector import Camera
from extract.steps import DepthAnchor, Shot
from pipeline.errors import UserError
from tests.tiny_models import make_shot, tiny_depth_anything, tiny_depth_pro


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("depth")
    for kind in ("relative", "metric"):
        tiny_depth_anything(root / kind, kind)
    tiny_depth_pro(root / "pro")
    tiny_depth_pro(root / "pro-without-view", field_of_view=False)
    return root


def anything(folder: Path, kind: str, **values: object) -> DepthAnything:
    return DepthAnything(
        DepthAnythingSettings.model_validate({"checkpoint": str(folder / kind), "device": "cpu"} | values)
    )


def pro(folder: Path, name: str = "pro", **values: object) -> DepthPro:
    return DepthPro(DepthProSettings.model_validate({"checkpoint": str(folder / name), "device": "cpu"} | values))


def at(slot: int, depth: float, scale: str = "metric") -> DepthAnchor:
    pixels = np.array([[10.0, 12.0], [20.5, 30.0], [40.0, 20.0], [50.0, 40.0], [32.0, 24.0]])
    return DepthAnchor(slot, pixels, np.full(5, depth), np.full(5, 0.02), scale)  # pyright: ignore


@pytest.mark.parametrize("kind", ["relative", "metric"])
def test_outputs_are_the_networks_own(folder: Path, kind: str) -> None:
    import torch
    from transformers import DepthAnythingForDepthEstimation, DPTImageProcessorPil

    shot = make_shot(3, 48, 64)
    ours = list(anything(folder, kind, batch=2).outputs(shot))
    model = DepthAnythingForDepthEstimation.from_pretrained(folder / kind).eval()
    processor = DPTImageProcessorPil.from_pretrained(folder / kind)
    with torch.inference_mode():
        for frame, output in zip(shot.frames, ours, strict=True):
            theirs = model(**processor(images=frame.image, return_tensors="pt")).predicted_depth[0].numpy()
            np.testing.assert_allclose(output, theirs, rtol=1e-4)
    assert ours[0].std() > 0


@pytest.mark.parametrize(("kind", "untied"), [("relative", "relative"), ("metric", "assumed")])
def test_maps_fill_the_frame_and_say_what_their_scale_rests_on(folder: Path, kind: str, untied: str) -> None:
    shot, source = make_shot(5, 48, 64), anything(folder, kind, untied_sigma=0.21)
    depth = source(shot, [])
    assert (depth.scale, depth.sigma, depth.source) == (untied, 0.21, "depth-anything")
    assert len(depth.maps) == 5 and [map_HW.shape for map_HW in depth.maps if map_HW is not None] == [(48, 64)] * 5
    for scale in ("metric", "assumed"):
        tied = source(shot, [at(slot, 0.7, scale) for slot in range(5)])
        assert tied.scale == scale and 0 < tied.sigma < 1
        values = [map_HW[int(y), int(x)] for map_HW in tied.maps if map_HW is not None for x, y in at(0, 1).pixels_K2]
        assert np.median(values) == pytest.approx(0.7, rel=0.02)
        assert all(map_HW is not None and map_HW.dtype == np.float32 and (map_HW > 0).all() for map_HW in tied.maps)


def test_batches_and_threads_change_nothing_that_matters(folder: Path) -> None:
    import torch

    shot, threads = make_shot(5, 48, 64), torch.get_num_threads()
    ones, threes = (anything(folder, "metric", batch=size)(shot, []).maps for size in (1, 3))
    np.testing.assert_allclose(np.stack(list(ones)), np.stack(list(threes)), rtol=1e-4)  # pyright: ignore
    try:
        torch.set_num_threads(3)
        again = anything(folder, "metric", batch=1)(shot, []).maps
    finally:
        torch.set_num_threads(threads)
    assert np.stack(list(ones)).tobytes() == np.stack(list(again)).tobytes()  # pyright: ignore


def test_maps_are_a_sequence_made_on_access(folder: Path) -> None:
    maps = anything(folder, "metric")(make_shot(4, 48, 64), []).maps
    assert isinstance(maps, LearnedMaps) and len(maps) == 4
    np.testing.assert_array_equal(np.stack(maps[1:3]), np.stack([maps[1], maps[2]]))  # pyright: ignore
    np.testing.assert_array_equal(maps[-1], maps[3])  # pyright: ignore
    with pytest.raises(IndexError):
        maps[4]


def test_depth_pro_gives_metres_for_the_focal_length_it_is_told(folder: Path) -> None:
    shot, source = make_shot(2, 48, 64), pro(folder)
    k = shot.camera.intrinsics_33 @ np.diag([2, 2, 1])
    twice = Shot(shot.frames, Camera(k, (64, 48), "given"))
    near, far = (source(each, []) for each in (shot, twice))
    assert (near.scale, near.source) == ("assumed", "depth-pro")
    once, doubled = near.maps[0], far.maps[0]
    assert once is not None and doubled is not None
    ok = (once > 0) & (doubled > 0)  # beyond 100 m nothing is known
    assert ok.mean() > 0.5
    np.testing.assert_allclose(doubled[ok], 2 * once[ok], rtol=1e-4)


def test_depth_pro_uses_its_own_field_of_view_only_for_an_assumed_camera(folder: Path) -> None:
    shot = make_shot(2, 48, 64)
    assumed = Shot(shot.frames, replace(shot.camera, origin="assumed"))
    known = next(iter(pro(folder).outputs(shot)))  # its focal length is one image width
    guessed = next(iter(pro(folder).outputs(assumed)))
    fields = pro(folder)._inferred([frame.image for frame in shot.frames])[1]
    np.testing.assert_allclose(guessed / known, 0.5 / np.tan(np.deg2rad(np.median(fields)) / 2), rtol=1e-5)
    blind = pro(folder, "pro-without-view")
    np.testing.assert_array_equal(next(iter(blind.outputs(assumed))), next(iter(blind.outputs(shot))))


def test_weights_are_known_by_their_checksum(folder: Path) -> None:
    assert list(anything(folder, "metric").weights_sha256) == ["depth_anything/model.safetensors"]
    assert list(pro(folder).weights_sha256) == ["depth_pro/model.safetensors"]
    assert SensorDepth(SensorDepthSettings()).weights_sha256 == {}


def test_a_checkpoint_of_the_other_network_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="this step needs 'depth_pro'"):
        pro(folder, "metric")(make_shot(1, 48, 64), [])


def test_bodies_of_assumed_size_are_kept_out_of_the_comparison_of_frames() -> None:
    boxes = effector_boxes([at(1, 1.0, "assumed"), at(2, 1.0, "metric")], 3)
    assert boxes[0] is None and boxes[2] is None
    np.testing.assert_array_equal(boxes[1], [10, 12, 50, 40])  # pyright: ignore


def test_sensor_depth_is_passed_on_and_cleaned() -> None:
    shot = make_shot(3, 48, 64, depth=True)
    frames = list(shot.frames)
    broken = np.array(frames[1].depth)
    broken[0, :3] = np.nan, np.inf, -1
    frames[1], frames[2] = replace(frames[1], depth=broken), replace(frames[2], depth=None)
    depth = SensorDepth(SensorDepthSettings(sigma_m=0.004))(Shot(frames, shot.camera), [])
    assert depth.scale == "metric" and depth.sigma == pytest.approx(0.004 / 1.0) and depth.source == "sensor"
    assert depth.maps[0] is frames[0].depth and depth.maps[2] is None
    np.testing.assert_array_equal(depth.maps[1][0, :4], [0, 0, 0, 1])  # pyright: ignore
    with pytest.raises(UserError, match="no depth images"):
        SensorDepth(SensorDepthSettings())(make_shot(2, 48, 64), [])
