"""Camera motion on real footage: tripods are static whoever moves before them, a head-worn camera is solved."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.geometry import invert_rigid, transform
from data.video import frames, intrinsics_from_fov
from extract.camera.config import CameraMotionConfig
from extract.camera.tracks import BackgroundTracks
from extract.effector import Camera


@pytest.mark.parametrize("name", ["02_cups", "04_coffee", "05_default_juggle"])
def test_people_who_move_do_not_unsettle_a_static_camera(footage: Path, name: str) -> None:
    tracks = BackgroundTracks(CameraMotionConfig(relative=True))
    for _, _, image in frames(footage / f"human/sam2_gallery/{name}.mp4", None, (0, 70)):
        tracks.add(image, None, [])
    camera = Camera(intrinsics_from_fov(60, 1280, 720), (1280, 720), "assumed")
    found = tracks.solve(camera, range(70))
    assert found.kind == "static", found.reason
    assert found.residual_px < 0.3 and np.array_equal(found.world_from_camera_T44, np.tile(np.eye(4), (70, 1, 1)))


def test_depth_carried_along_the_path_of_a_head_worn_camera_meets_the_depth_measured_later(footage: Path) -> None:
    """One frame per second. The path is judged by what it was not made from: the depth of whole later frames."""
    folder = footage / "rgbd/cerd_pour/pour_water_01"
    k = np.array([[682.8, 0, 640], [0, 682.8, 360], [0, 0, 1.0]])
    tracks, depths = BackgroundTracks(CameraMotionConfig(relative=True)), []
    for path in sorted((folder / "rgb_left").glob("*.jpg")):
        image = cv2.imread(str(path))
        depth = cv2.imread(str(folder / "depth_mm" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        assert image is not None and depth is not None
        depths.append(depth.astype(np.float32) / 1000)
        tracks.add(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), depths[-1], [])
    found = tracks.solve(Camera(k, (1280, 720), "given"), range(len(depths)))
    assert (found.kind, found.scale) == ("estimated", "metric"), found.reason
    row, column = (place.ravel() for place in np.mgrid[4:716:8, 4:1276:8])
    z = depths[0][row, column]
    near = (z > 0) & (z < 3)
    rays = np.column_stack([(column + 0.5 - 640) / 682.8, (row + 0.5 - 360) / 682.8, np.ones(len(z))])
    points = (rays * z[:, None])[near]
    for later in (5, 8, 11):
        apart = {}
        for name, pose in (("path", found.world_from_camera_T44[later]), ("rest", np.eye(4))):
            seen = transform(invert_rigid(pose), points)
            uv = np.floor((seen @ k.T)[:, :2] / seen[:, 2:]).astype(int)
            inside = (uv >= 0).all(1) & (uv < [1280, 720]).all(1)
            there = depths[later][uv[inside, 1], uv[inside, 0]]
            apart[name] = float(np.median(np.abs(there - seen[inside, 2])[there > 0]))
        assert apart["path"] < 0.01 and apart["path"] < 0.4 * apart["rest"], (later, apart)
