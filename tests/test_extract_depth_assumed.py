"""Depth as the user states it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from extract.depth.assumed import AssumedDepth
from extract.gripper.config import GripperConfig
from extract.gripper.steps import build_steps
from pipeline.config import Config
from pipeline.errors import UserError
from tests.tiny_models import make_shot


def test_every_pixel_is_at_the_stated_distance_and_its_scale_is_unknown() -> None:
    shot = make_shot(3, 48, 64)
    config = GripperConfig.model_validate({"depth": {"name": "assumed", "distance_m": 0.8}})
    source = build_steps(config).depth
    assert isinstance(source, AssumedDepth)
    maps = source(shot, [])
    assert len(maps.maps) == 3 and maps.scale == "relative" and maps.sigma == 0.01
    for depth, frame in zip(maps.maps, shot.frames, strict=True):
        assert depth is not None and depth.shape == frame.image.shape[:2]
        np.testing.assert_array_equal(depth, np.float32(0.8))


@pytest.mark.parametrize("depth", ["assumed", {"name": "assumed", "distance_m": 0}])
def test_a_distance_must_be_stated(tmp_path: Path, depth: object) -> None:
    config = Config({"gripper": {"depth": depth}}, tmp_path / "config.yaml")
    with pytest.raises(UserError, match="distance_m"):
        config.section("gripper", GripperConfig)
