"""The mask tracker follows material points of rendered solids and jaws, whose motion is known exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data.episode import Frame
from data.geometry import transform
from extract.effector import Camera, extract
from extract.mask.config import MaskConfig
from extract.mask.extractor import MaskExtractor
from extract.mask.surface import visible_points
from extract.mask.tracker import Pose, SurfaceTracker

SIZE = 128
CAMERA = Camera(np.array([[176.0, 0, 64], [0, 176, 64], [0, 0, 1]]), (SIZE, SIZE), "given")
FRAMES = 20

Box = tuple[np.ndarray, np.ndarray, np.ndarray]  # camera_from_box [4,4], half sizes [3], colour [3] in 0..1


def render(boxes: Sequence[Box], index: int) -> tuple[Frame, np.ndarray]:
    """A frame by exact ray casting, and which box each pixel shows (int [H,W], -1 for none). Textured, no noise."""
    column, row = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
    rays = CAMERA.unproject(np.stack([column, row], -1), np.ones((SIZE, SIZE)))
    depth = np.full((SIZE, SIZE), np.inf)
    owner = np.full((SIZE, SIZE), -1)
    image = np.full((SIZE, SIZE, 3), 40, np.uint8)
    for number, (camera_from_box, half, colour) in enumerate(boxes):
        box_from_camera = np.linalg.inv(camera_from_box)
        origin, direction = box_from_camera[:3, 3], rays @ box_from_camera[:3, :3].T
        with np.errstate(divide="ignore"):
            sides = np.stack([(-half - origin) / direction, (half - origin) / direction])
        enter, leave = sides.min(0).max(-1), sides.max(0).min(-1)
        hit = (enter < leave) & (enter > 0) & (enter < depth)
        depth[hit], owner[hit] = enter[hit], number
        material = origin + enter[hit, None] * direction[hit]
        stripes = 0.75 + 0.25 * np.sin(material @ np.array([150.0, 110, 130]))
        image[hit] = np.clip(255 * colour * stripes[:, None], 0, 255)
    seen = owner >= 0
    return Frame(index, index / 20, image, np.where(seen, depth, 0).astype(np.float32), seen), owner


def placed(position: Sequence[float], turn: Sequence[float] = (0, 0, 0)) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
    pose[:3, 3] = position
    return pose


def solid() -> list[list[Box]]:
    """One box that crosses the picture, comes nearer and turns by some 35 degrees, about 12 mm per frame."""
    half, colour = np.array([0.05, 0.035, 0.03]), np.array([0.9, 0.5, 0.3])
    motion = np.linspace(0, 1, FRAMES)
    return [
        [
            (
                placed([0.22 * t - 0.1, 0.05 * np.sin(3 * t), 0.85 - 0.1 * t], [0.3 + 0.3 * t, 0.4 - 0.5 * t, 0]),
                half,
                colour,
            )
        ]
        for t in motion
    ]


def jaws() -> list[list[Box]]:
    """A palm with two fingers that start 70 mm apart, close to 20 mm within six frames, and stay, while all moves."""
    scene = []
    for frame in range(FRAMES):
        gap = 0.07 - 0.05 * np.clip((frame - 6) / 6, 0, 1)
        hand = placed([0.06 - 0.006 * frame, -0.03 + 0.002 * frame, 0.8], [0.25, -0.2, 0.1])
        scene.append(
            [
                (hand, np.array([0.06, 0.025, 0.03]), np.array([0.8, 0.2, 0.15])),
                (hand @ placed([-gap / 2 - 0.01, 0.06, 0]), np.array([0.01, 0.04, 0.012]), np.array([0.9, 0.9, 0.9])),
                (hand @ placed([gap / 2 + 0.01, 0.06, 0]), np.array([0.01, 0.04, 0.012]), np.array([0.1, 0.8, 0.8])),
            ]
        )
    return scene


def truth(scene: list[list[Box]], owner: np.ndarray, points_N3: np.ndarray, reference: int) -> np.ndarray:
    """[F,N,3]: the material seen at ``points_N3`` in the reference frame, moved with its box."""
    column, row = np.floor(CAMERA.project(points_N3)).astype(int).T
    boxes = owner[row, column]
    moved = np.empty((len(scene), *points_N3.shape))
    for number in np.unique(boxes):
        mine = boxes == number
        material = transform(np.linalg.inv(scene[reference][number][0]), points_N3[mine])
        for frame, at in enumerate(scene):
            moved[frame, mine] = transform(at[number][0], material)
    return moved


def followed(scene: list[list[Box]]) -> tuple[np.ndarray, np.ndarray]:
    """Errors [F,N] and frame-to-frame displacement errors [F-1,N] of the whole extractor, metres."""
    rendered = [render(boxes, number) for number, boxes in enumerate(scene)]
    extraction = extract(MaskExtractor(MaskConfig(points=100)), [frame for frame, _ in rendered], CAMERA)
    assert not extraction.rejections and len(extraction.tracks) == 1
    points = extraction.tracks[0].points.astype(np.float64)
    reference = int(np.argmax([(owner >= 0).sum() for _, owner in rendered]))
    wrong = points - truth(scene, rendered[reference][1], points[reference], reference)
    return np.linalg.norm(wrong, axis=-1), np.linalg.norm(np.diff(wrong, axis=0), axis=-1)


def test_a_moving_and_turning_box_is_followed_to_a_third_of_a_pixel() -> None:
    points, steps = followed(solid())  # a pixel is 4.5 mm wide there
    assert np.median(points) < 0.0015
    assert np.percentile(points, 90) < 0.004
    assert np.median(steps) < 0.001


def test_points_stay_on_their_material_from_the_first_frame_to_the_last() -> None:
    points, _ = followed(solid())
    assert np.median(points[0]) < 0.003 and np.median(points[-1]) < 0.003


@pytest.mark.parametrize("opening", [False, True])
def test_jaws_that_close_or_open_are_followed(opening: bool) -> None:
    points, steps = followed(jaws()[::-1] if opening else jaws())
    assert np.median(points) < 0.0025
    assert np.percentile(points, 90) < 0.008  # a jaw that is not followed would be 25 mm off
    assert np.median(steps) < 0.002


def follow_online(scene: list[list[Box]]) -> Iterator[tuple[Frame, SurfaceTracker, list[Pose]]]:
    frames = [render(boxes, number)[0] for number, boxes in enumerate(scene)]
    tracker = SurfaceTracker(frames[0], CAMERA, 60)
    poses = [tracker.start]
    for frame in frames[1:]:
        poses.append(tracker.follow(frame, poses[-1], poses[-2] if len(poses) > 1 else None))
        yield frame, tracker, poses


def test_online_following_needs_no_future_and_polishing_makes_it_better() -> None:
    scene = solid()
    _, owner = render(scene[0], 0)
    plain, polished = [], []
    for frame, tracker, poses in follow_online(scene):
        expected = truth(scene, owner, tracker.points(tracker.start), 0)[frame.index]
        tracker.learn(poses)
        plain.append(np.linalg.norm(tracker.points(poses[-1]) - expected, axis=-1))
        polished.append(np.linalg.norm(tracker.points(tracker.polish(frame, poses[-1])) - expected, axis=-1))
    assert np.median(plain) < 0.005
    assert np.median(polished) < 0.0025
    assert np.median(polished) < np.median(plain)


def test_points_of_the_reference_lie_on_measured_pixels_and_are_visible() -> None:
    frame, _ = render(solid()[0], 0)
    tracker = SurfaceTracker(frame, CAMERA, 50)
    points = tracker.points(tracker.start)
    assert visible_points(points, frame, CAMERA).all()
    column, row = np.floor(CAMERA.project(points)).astype(int).T
    assert frame.depth is not None
    np.testing.assert_allclose(points[:, 2], frame.depth[row, column], atol=1e-6)


def test_points_behind_the_surface_or_beside_the_mask_are_not_visible() -> None:
    frame, _ = render(solid()[0], 0)
    tracker = SurfaceTracker(frame, CAMERA, 50)
    points = tracker.points(tracker.start)
    assert not visible_points(points * 1.05, frame, CAMERA).any()  # 4 cm behind, on the same rays
    assert not visible_points(points + np.array([0.3, 0, 0]), frame, CAMERA).any()
    assert not visible_points(-points, frame, CAMERA).any()


def test_a_frame_without_depth_is_refused_by_name() -> None:
    frame, _ = render(solid()[0], 7)
    with pytest.raises(ValueError, match="frame 7: mask and depth are needed"):
        SurfaceTracker(Frame(7, 0.0, frame.image, None, frame.mask), CAMERA, 50)
