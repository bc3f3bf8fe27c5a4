"""A gripper drawn as boxes over a table, as a static camera sees it: episodes with and without labels, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data.config import IndexConfig, Source
from data.episode import Frame
from data.index import Episode
from data.simulation.write import write_episode
from extract.effector import Camera
from tests.indexed import indexed

SIDE = 160
CAMERA = Camera(np.array([[220.0, 0, 80], [0, 220.0, 80], [0, 0, 1]]), (SIDE, SIDE), "given")
RATE = 20
DOWN = np.array([[0.0, 0.8, 0.6], [1, 0, 0], [0, 0.6, -0.8]])  # camera_from_effector; x: where the jaws point
BASE_FROM_CAMERA = np.array([[0.0, -1, 0, 0.4], [-1, 0, 0, 0.1], [0, 0, -1, 1.5], [0, 0, 0, 1]])
# Low and high corner in metres, side of the jaw that it belongs to, colour. The grasp point is the origin.
PARTS = (
    ((-0.16, -0.05, -0.03), (-0.09, 0.05, 0.03), 0, (200, 30, 30)),
    ((-0.20, -0.025, -0.02), (-0.16, 0.025, 0.02), 0, (30, 30, 160)),
    ((-0.09, 0.0, -0.012), (0.01, 0.014, 0.012), 1, (225, 225, 225)),
    ((-0.09, -0.014, -0.012), (0.01, 0.0, 0.012), -1, (20, 200, 210)),
)
FACES = ((0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5))


@dataclass(frozen=True)
class Drawn:
    """T frames. images: u8 [S,S,3]. poses_T44: camera_from_effector, metres. opening_T: metres."""

    images: list[np.ndarray]
    poses_T44: np.ndarray
    opening_T: np.ndarray

    def frames(self) -> list[Frame]:
        """Colour and time, nothing else."""
        return [Frame(t, t / RATE, image) for t, image in enumerate(self.images)]


def drawn(seed: int, count: int = 24, shown: bool = True) -> Drawn:
    """A gripper that wanders, turns a little, and opens or closes, over things on a table."""
    random = np.random.default_rng(seed)
    table = _table(random)
    ends = np.stack([random.uniform((-0.2, -0.15, 0.75), (0.2, 0.2, 1.1)) for _ in range(3)])
    share = np.linspace(0, 2, count)
    path = np.stack([np.interp(share, (0, 1, 2), ends[:, axis]) for axis in range(3)], -1)
    opening = np.interp(share, (0, 1, 2), random.uniform(0.01, 0.09, 3))
    turn = np.interp(share, (0, 1, 2), random.uniform(-0.15, 0.15, 3))
    poses = np.tile(np.eye(4), (count, 1, 1))
    images = []
    for t in range(count):
        c, s = np.cos(turn[t]), np.sin(turn[t])
        poses[t, :3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ DOWN
        poses[t, :3, 3] = path[t]
        image = table.copy()
        if shown:
            _draw(image, poses[t], opening[t])
        noise = random.normal(scale=2, size=image.shape)
        images.append(np.clip(image + noise, 0, 255).astype(np.uint8))
    return Drawn(images, poses, opening)


def written(
    folder: Path, labelled: int, unlabelled: int = 0, world_from_camera: bool = True, first_seed: int = 0
) -> list[Episode]:
    """Episodes as files, and their index: ``labelled`` with recorded poses and opening, then some without."""
    source = folder / "videos"
    source.mkdir(parents=True, exist_ok=True)
    for number in range(labelled + unlabelled):
        made, told = drawn(first_seed + number), number < labelled
        count = len(made.images)
        arrays: dict[str, np.ndarray] = {}
        if told:
            arrays = {
                "base_from_effector": BASE_FROM_CAMERA @ made.poses_T44,
                "opening": made.opening_T.astype(np.float32),
                "actions": np.zeros((count, 3), np.float32),
                "proprio": np.zeros((count, 3), np.float32),
            }
            if world_from_camera:
                arrays["world_from_camera"] = np.tile(BASE_FROM_CAMERA, (count, 1, 1)).astype(np.float32)
        spec = {"names": ["x", "y", "z"], "unit": "m", "frame": "base", "mode": "delta", "rate_hz": float(RATE),
                "proprio_names": ["x", "y", "z"]}  # fmt: skip
        sidecar = {"effector": "gripper", "embodiment": "drawn-gripper", "labelled": told,
                   "intrinsics": CAMERA.intrinsics_33.tolist(), "action_spec": spec if told else None}  # fmt: skip
        write_episode(source, f"episode-{number:03d}", made.images, RATE, arrays, sidecar)
    config = IndexConfig(sources=[Source(name="drawn", kind="video", path=source, effector="gripper")])
    episodes, rejected = indexed(config, folder / "index", source)
    assert not rejected, rejected
    return sorted(episodes, key=lambda episode: episode.path.name)


def _table(random: np.random.Generator) -> np.ndarray:
    """f64 [S,S,3]: planks of one colour, and a few things that lie there."""
    image = np.tile(random.uniform(60, 150, 3), (SIDE, SIDE, 1))
    image += np.repeat(random.normal(scale=10, size=(1, SIDE // 8, 1)), 8, axis=1)
    for _ in range(5):
        low = random.integers(0, SIDE - 20, 2)
        high = low + random.integers(8, 40, 2)
        image[low[0] : high[0], low[1] : high[1]] = random.uniform(30, 220, 3)
    return image


def _draw(image: np.ndarray, pose_44: np.ndarray, opening: float) -> None:
    """Faces of the boxes, the furthest first, brighter or darker by where they face, with a line across each."""
    faces = []
    for low, high, side, colour in PARTS:
        shift = np.array([0, side * opening / 2, 0])
        corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
        points = (corners + shift) @ pose_44[:3, :3].T + pose_44[:3, 3]
        for number, face in enumerate(FACES):
            ring = points[list(face)]
            faces.append((float(np.linalg.norm(ring.mean(0))), ring, np.array(colour) * (0.6 + 0.08 * number)))
    canvas = np.ascontiguousarray(np.clip(image, 0, 255).astype(np.uint8))
    for _, ring, colour in sorted(faces, key=lambda face: -face[0]):
        pixels = np.rint((CAMERA.project(ring) - 0.5) * 16).astype(np.int32)
        cv2.fillConvexPoly(canvas, pixels, tuple(float(c) for c in colour), cv2.LINE_AA, 4)
        middle = (pixels[[0, 1]] + pixels[[3, 2]]) // 2
        dark = tuple(float(c) for c in colour * 0.5)
        cv2.line(canvas, tuple(map(int, middle[0])), tuple(map(int, middle[1])), dark, 1, cv2.LINE_AA, 4)
    image[:] = canvas
