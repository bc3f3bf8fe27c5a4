"""Camera motion on rendered clips with exact paths: static is static, paths are met, and doubt is said."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data.geometry import invert_rigid
from data.simulation.handheld import CameraPath, HandheldSettings, make_handheld
from data.simulation.write import DEPTH_UNIT_M
from extract.camera.config import CameraMotionConfig
from extract.camera.motion import CameraMotion, estimate_camera_motion
from extract.camera.tracks import BackgroundTracks
from extract.effector import Camera

SMALL = HandheldSettings(width=320, height=240, seconds=1.6, rate_hz=20)


@dataclass(frozen=True)
class Filmed:
    images: list[np.ndarray]
    depth: np.ndarray
    boxes: list[np.ndarray]
    truth: np.ndarray
    camera: Camera


def film(seed: int, kind: CameraPath, settings: HandheldSettings = SMALL) -> Filmed:
    images, arrays, sidecar = make_handheld(seed, replace(settings, camera=kind))
    boxes = [np.array([[*np.argwhere(m).min(0)[::-1], *(np.argwhere(m).max(0)[::-1] + 1)]]) for m in arrays["mask"]]
    camera = Camera(np.array(sidecar["intrinsics"]), (settings.width, settings.height), "given")
    depth = arrays["depth"] * np.float32(DEPTH_UNIT_M)
    return Filmed(images, depth, boxes, arrays["truth_world_from_camera"].astype(float), camera)


@pytest.fixture(scope="module")
def walk() -> Filmed:
    return film(11, "walk")


def followed(filmed: Filmed, depth: bool, boxes: bool = True) -> BackgroundTracks:
    tracks = BackgroundTracks(CameraMotionConfig(relative=True))
    for slot, image in enumerate(filmed.images):
        found = filmed.boxes[slot] if boxes else np.zeros((0, 4))
        assert tracks.add(image, filmed.depth[slot] if depth else None, found) == slot
    return tracks


def motion(filmed: Filmed, depth: bool, boxes: bool = True) -> CameraMotion:
    return followed(filmed, depth, boxes).solve(filmed.camera, range(len(filmed.images)))


def path_error(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Largest distance of the camera's places, as a share of the true path; largest angle, degrees."""
    length = np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1).sum()
    apart = np.linalg.norm(found[:, :3, 3] - truth[:, :3, 3], axis=1).max()
    trace = np.einsum("tij,tij->t", found[:, :3, :3], truth[:, :3, :3])
    return float(apart / length), float(np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1))).max())


def test_with_depth_the_path_is_metric_and_met(walk: Filmed) -> None:
    found = motion(walk, depth=True)
    assert (found.kind, found.scale) == ("estimated", "metric"), found.reason
    assert np.array_equal(found.world_from_camera_T44[0].round(9), np.eye(4))
    share, degrees = path_error(found.world_from_camera_T44, walk.truth)
    assert share < 0.02 and degrees < 0.5
    assert found.residual_px < 0.6 and found.inliers > 0.6


def test_without_depth_the_path_has_its_shape_and_no_scale(walk: Filmed) -> None:
    found = motion(walk, depth=False)
    assert (found.kind, found.scale) == ("estimated", "relative"), found.reason
    path, truth = found.world_from_camera_T44.copy(), walk.truth
    path[:, :3, 3] *= (path[:, :3, 3] * truth[:, :3, 3]).sum() / (path[:, :3, 3] ** 2).sum()
    share, degrees = path_error(path, truth)
    assert share < 0.05 and degrees < 0.8


def test_paths_without_scale_can_be_left_out(walk: Filmed) -> None:
    tracks = BackgroundTracks(CameraMotionConfig(relative=False))
    for image in walk.images[:16]:
        tracks.add(image, None, [])
    found = tracks.solve(walk.camera, range(16))
    assert found.kind == "unknown" and "scale of its path is not known" in found.reason


@pytest.mark.parametrize("boxes", [True, False])
def test_a_static_camera_is_exactly_static_however_large_the_moving_hand(boxes: bool) -> None:
    filmed = film(12, "static", replace(SMALL, seconds=0.8, hand_distance_m=(0.16, 0.18)))
    found = motion(filmed, depth=False, boxes=boxes)
    assert found.kind == "static", found.reason
    assert np.array_equal(found.world_from_camera_T44, np.tile(np.eye(4), (16, 1, 1)))


@pytest.mark.parametrize("depth", [True, False])
def test_a_turning_camera_needs_no_depth(depth: bool) -> None:
    filmed = film(13, "turn", replace(SMALL, seconds=1.2))
    found = motion(filmed, depth)
    assert (found.kind, found.scale) == ("estimated", "turn"), found.reason
    assert (found.world_from_camera_T44[:, :3, 3] == 0).all()
    trace = np.einsum("tij,tij->t", found.world_from_camera_T44[:, :3, :3], filmed.truth[:, :3, :3])
    assert np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1))).max() < 0.25
    assert np.degrees(np.arccos((np.trace(filmed.truth[-1, :3, :3]) - 1) / 2)) > 3, "it must turn for a test"


def test_any_stretch_can_be_asked_for_until_it_is_forgotten(walk: Filmed) -> None:
    tracks = followed(walk, depth=True)
    part = tracks.solve(walk.camera, range(10, 24))
    share, _ = path_error(part.world_from_camera_T44, invert_rigid(walk.truth[10]) @ walk.truth[10:24])
    assert part.kind == "estimated" and share < 0.03
    again = followed(walk, depth=True).solve(walk.camera, range(10, 24))
    assert np.array_equal(part.world_from_camera_T44, again.world_from_camera_T44), "same frames, same bytes"
    tracks.forget(10)
    assert sorted(tracks.rows) == list(range(10, 32))
    kept = tracks.solve(walk.camera, range(10, 24))
    assert np.array_equal(part.world_from_camera_T44, kept.world_from_camera_T44)
    with pytest.raises(KeyError, match="slot 9"):
        tracks.solve(walk.camera, range(9, 24))


def test_memory_of_a_frame_is_small(walk: Filmed) -> None:
    tracks = followed(walk, depth=True)
    row = tracks.rows[20]
    assert row.ids.nbytes + row.pixels.nbytes + row.depth.nbytes <= 16 * CameraMotionConfig().points
    assert all(len(r.ids) <= CameraMotionConfig().points for r in tracks.rows.values())


def test_nothing_to_hold_on_to_is_unknown_with_a_reason() -> None:
    camera = Camera(np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]]), (320, 240), "given")
    tracks = BackgroundTracks(CameraMotionConfig(relative=True))
    for _ in range(10):
        tracks.add(np.full((240, 320, 3), 128, np.uint8), None, [])
    found = tracks.solve(camera, range(10))
    assert found.kind == "unknown" and found.scale is None and "too few background points" in found.reason
    assert np.array_equal(found.world_from_camera_T44, np.tile(np.eye(4), (10, 1, 1)))


def test_background_in_a_corner_is_no_background() -> None:
    """A textured sleeve moves over a plain wall: rigid, in enough points, and yet not the camera."""
    rng = np.random.default_rng(0)
    sleeve = cv2.GaussianBlur(rng.integers(0, 255, (110, 90, 3), dtype=np.uint8), (5, 5), 1)
    camera = Camera(np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]]), (320, 240), "given")
    tracks = BackgroundTracks(CameraMotionConfig(relative=True))
    for frame in range(16):
        image = np.full((240, 320, 3), 128, np.uint8)
        image[120:230, 10 + 3 * frame : 100 + 3 * frame] = sleeve
        tracks.add(image, None, [])
    found = tracks.solve(camera, range(16))
    assert found.kind == "unknown" and "of the picture" in found.reason


def test_a_cut_in_the_stretch_is_unknown(walk: Filmed) -> None:
    other = film(14, "walk", replace(SMALL, seconds=0.5))
    tracks = BackgroundTracks(CameraMotionConfig(relative=True))
    for image, depth in [*zip(walk.images[:10], walk.depth[:10]), *zip(other.images, other.depth)]:  # noqa: B905
        tracks.add(image, depth, [])
    found = tracks.solve(walk.camera, range(20))
    assert found.kind == "unknown" and "cannot be followed from frame 9 to 10" in found.reason
    assert tracks.solve(walk.camera, range(0, 10)).kind == "estimated"
    assert tracks.solve(walk.camera, range(10, 20)).kind == "estimated"


def test_a_jump_is_found_again_by_appearance() -> None:
    """A camera before a great wall with a picture on it turns by 14 degrees, and rolls, from frame to frame."""
    rng = np.random.default_rng(1)
    wall = sum(
        cv2.resize(rng.uniform(0, 255, (side, side, 3)).astype(np.float32), (1400, 1400), interpolation=cv2.INTER_CUBIC)
        for side in (40, 90, 200)
    )
    wall = np.clip(np.asarray(wall) / 3, 0, 255).astype(np.uint8)
    k = np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]])
    k_wall = np.array([[300.0, 0, 700], [0, 300, 700], [0, 0, 1]])
    tracks, truth = BackgroundTracks(CameraMotionConfig(relative=True)), []
    for frame in range(4):
        turn = Rotation.from_euler("yz", [14.0 * frame - 20, 6.0 * frame], degrees=True).as_matrix()
        view = cv2.warpPerspective(wall, k @ turn.T @ np.linalg.inv(k_wall), (320, 240))
        tracks.add(view, None, [])
        truth.append(turn)
    camera = Camera(k, (320, 240), "given")
    found = tracks.solve(camera, range(4))
    assert (found.kind, found.scale) == ("estimated", "turn"), found.reason
    off = np.array(truth[0]).T @ np.array(truth) @ found.world_from_camera_T44[:, :3, :3].transpose(0, 2, 1)
    assert Rotation.from_matrix(off).magnitude().max() < np.radians(0.3)


def test_a_stretch_is_told_alike_before_and_after_more_is_seen(walk: Filmed) -> None:
    """Rows may be taken away and judged at once, as a stream does, or later, when the next frame has bridged a jump."""
    tracks, rows = BackgroundTracks(CameraMotionConfig(relative=True)), []
    for image, depth in zip(walk.images[:12], walk.depth[:12], strict=True):
        rows.append(tracks.rows.pop(tracks.add(image, depth, [])))
    asked = (walk.camera, tracks.config, float(tracks.scale_2.mean()), "metric", None)
    before = estimate_camera_motion(rows, *asked)
    shifted = np.roll(walk.images[11], (60, -90), (0, 1))
    tracks.add(shifted, walk.depth[11], [])
    assert rows[-1].bridge is not None and len(rows[-1].bridge.ids) > 10, "the jump was bridged"
    after = estimate_camera_motion(rows, *asked)
    assert np.array_equal(before.world_from_camera_T44, after.world_from_camera_T44)
    assert (before.residual_px, before.inliers, before.points) == (after.residual_px, after.inliers, after.points)


def test_a_slow_frame_rate_is_enough(walk: Filmed) -> None:
    """Every seventh frame only: about 3 Hz."""
    slow = replace(walk, images=walk.images[::7], depth=walk.depth[::7], boxes=walk.boxes[::7], truth=walk.truth[::7])
    found = motion(slow, depth=True)
    assert found.kind == "estimated", found.reason
    share, degrees = path_error(found.world_from_camera_T44, slow.truth)
    assert share < 0.03 and degrees < 0.6
