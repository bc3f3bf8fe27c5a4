"""Simulated robot episodes with recorded end-effector poses and the exact motion of every material point. Simulated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.episode import Frame
from data.simulation.film import Film
from data.simulation.metaworld import FRAME_HZ, STEPS_PER_FRAME, record_expert
from data.simulation.render import View
from data.simulation.scene import Look, TaskScene, random_look
from data.simulation.write import DEPTH_UNIT_M, encode_video
from data.video import frames as video_frames
from extract.effector import Camera
from extract.steps import Shot

NOISE, TAIL_S = 0.3, 0.5
FOV_DEG = (30.0, 60.0)
SLACK = 0.012
ASSUMED_FOV_DEG = 60.0  # what extraction assumes when nothing tells


@dataclass(frozen=True)
class RobotCase:
    """One episode as extraction gets it, and what it must not see.

    frames: colours after H.264 and the recorded poses; no depth, no mask. camera: assumed, as in extraction.
    true_camera: exact. mask: bool [F,H,W] gripper. depth: f32 [F,H,W] metres. geom: int16 [F,H,W] simulator's geom.
    camera_from_geom: f64 [F,G,4,4]. camera_from_base: f64 [4,4].
    """

    name: str
    frames: list[Frame]
    camera: Camera
    true_camera: Camera
    mask: np.ndarray
    depth: np.ndarray
    geom: np.ndarray
    camera_from_geom: np.ndarray
    camera_from_base: np.ndarray

    @property
    def shot(self) -> Shot:
        """The episode as one shot, seen with the assumed camera."""
        return Shot(self.frames, self.camera)

    def follow(self, pixels_K2: np.ndarray, slots_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the material seen at ``pixels_K2`` in frames ``slots_K`` is in every frame.

        Corners of an outline may lie a little outside: within 1.2 % of the picture (1.5 of 128 pixels) they are taken
        to the nearest pixel of the gripper. Returns f64 [F,K,3] metres in the camera frame, and bool [K]: it belongs
        to the gripper.
        """
        height, width = self.mask.shape[1:]
        column = np.clip(np.floor(pixels_K2[:, 0]).astype(int), 0, width - 1)
        row = np.clip(np.floor(pixels_K2[:, 1]).astype(int), 0, height - 1)
        for k, slot in enumerate(slots_K):
            rows, columns = np.nonzero(self.mask[slot])
            away = np.hypot(columns + 0.5 - pixels_K2[k, 0], rows + 0.5 - pixels_K2[k, 1])
            if len(away) and away.min() <= SLACK * max(height, width):
                row[k], column[k] = rows[away.argmin()], columns[away.argmin()]
        points = self.true_camera.unproject(pixels_K2, self.depth[slots_K, row, column].astype(float))
        owner = self.geom[slots_K, row, column]
        homogeneous = np.concatenate([points, np.ones((len(points), 1))], 1)
        local = np.einsum("kij,kj->ki", np.linalg.inv(self.camera_from_geom[slots_K, owner]), homogeneous)
        followed = np.einsum("fkij,kj->fki", self.camera_from_geom[:, owner], local)[..., :3]
        return followed, self.mask[slots_K, row, column]

    @property
    def shown_moving_F(self) -> np.ndarray:
        """bool [F]: at least 30 pixels (of 128 x 128) of the gripper are seen, and its pose moves half a pixel."""
        side = self.mask.shape[1]
        poses = np.stack([pose for frame in self.frames if (pose := frame.base_from_effector) is not None])
        path = poses[:, :3, 3] @ self.camera_from_base[:3, :3].T + self.camera_from_base[:3, 3]
        speed = np.linalg.norm(np.gradient(self.true_camera.project(path), axis=0), axis=1)
        return (self.mask.sum((1, 2)) >= 30 * (side / 128) ** 2) & (speed > 0.5 * side / 128)


def robot_case(folder: Path, task: str, index: int, seed: int, side: int, camera_seed: int | None = None) -> RobotCase:
    """The episode ``index`` of ``task`` at ``side`` pixels. ``folder`` keeps what was rendered.

    camera_seed: fixes the camera and looks; episodes that share it were filmed by one static camera. None: of its own.
    """
    camera_seed = 1000 * seed + index if camera_seed is None else camera_seed
    name = f"{task}-{seed}-{index}-{camera_seed}-{side}"
    path = folder / f"{name}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _render(path, task, index, seed, side, _look(camera_seed))
    with np.load(path) as stored:
        kept = {key: stored[key] for key in stored.files}
    images = [image for _, _, image in video_frames(path.with_suffix(".mp4"), None, None)]
    frames = [
        Frame(number, number / FRAME_HZ, image, base_from_effector=kept["base_from_effector"][number])
        for number, image in enumerate(images)
    ]
    size = (side, side)
    focal = 0.5 * side / np.tan(np.deg2rad(ASSUMED_FOV_DEG) / 2)
    assumed = np.array([[focal, 0, side / 2], [0, focal, side / 2], [0, 0, 1.0]])
    return RobotCase(
        name,
        frames,
        Camera(assumed, size, "assumed"),
        Camera(kept["intrinsics"], size, "given"),
        kept["mask"],
        kept["depth"].astype(np.float32) * np.float32(DEPTH_UNIT_M),
        kept["geom"],
        kept["camera_from_geom"],
        kept["camera_from_base"],
    )


def _look(camera_seed: int) -> Look:
    """A camera at either side of the table, 20 to 50 degrees above it; the field of view between 30 and 60 degrees.

    Not behind the robot, where its own arm hides the gripper.
    """
    rng = np.random.default_rng([camera_seed, 77])
    look = random_look(rng, 0.0)
    azimuth, height = rng.uniform(-0.7, 0.35), rng.uniform(0.35, 0.9)  # from +x to the front, and up
    fov = rng.uniform(*FOV_DEG)
    target = np.array([0.0, 0.62, 0.13]) + rng.uniform(-0.05, 0.05, 3)
    distance = 0.42 / np.tan(np.deg2rad(fov) / 2) * rng.uniform(0.9, 1.2)  # the work space fills the picture
    away = np.array([rng.choice([-1, 1]) * np.cos(azimuth), np.sin(azimuth), 0.0])
    eye = target + distance * (np.cos(height) * away + np.array([0, 0, np.sin(height)]))
    view = View(tuple(eye.tolist()), tuple(target.tolist()), float(fov))
    return Look(view, look.table_rgb, look.floor_rgb, look.lamps, look.ambient)


def _render(path: Path, task: str, index: int, seed: int, side: int, look: Look) -> None:
    recording = record_expert(task, index, seed, NOISE, TAIL_S)
    poses, recorded, geoms = [], [], []
    with TaskScene(task, side, show_goal=False) as scene:
        film = Film(scene, look)
        for frame in range(recording.frames):
            state = recording.snapshots[frame * STEPS_PER_FRAME]
            scene.load(state)
            film.shoot(state.tcp)
            geoms.append(scene.render()[0].geom.astype(np.int16))
            pose = np.tile(np.eye(4), (len(scene.data.geom_xpos), 1, 1))
            pose[:, :3, :3] = scene.data.geom_xmat.reshape(-1, 3, 3)
            pose[:, :3, 3] = scene.data.geom_xpos
            poses.append(film.camera_from_world @ pose)
            recorded.append(scene.effector_pose())
        intrinsics = scene.renderer.intrinsics()
    encode_video(path.with_suffix(".mp4"), film.images, FRAME_HZ)
    np.savez_compressed(
        path,
        mask=np.stack([row["mask"] for row in film.rows]),
        depth=np.stack([row["depth"] for row in film.rows]),
        geom=np.stack(geoms),
        camera_from_geom=np.stack(poses),
        base_from_effector=np.stack(recorded),
        camera_from_base=film.camera_from_world,
        intrinsics=intrinsics,
    )
