"""Simulated episodes with the exact motion of every material point, for scoring trackers. Simulated, robot and hand."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data.episode import Frame
from data.simulation.film import Film
from data.simulation.hand import random_hand_shape
from data.simulation.metaworld import FRAME_HZ, STEPS_PER_FRAME, record_expert
from data.simulation.scene import TaskScene, random_look
from data.simulation.twin import between, pose_hand, random_manner, source_times, stance
from data.simulation.write import DEPTH_UNIT_M, encode_video
from data.video import frames as video_frames
from extract.effector import Camera

RESOLUTION = 128
NOISE, JITTER_M, TAIL_S = 0.3, 0.03, 0.5


@dataclass(frozen=True)
class Case:
    """One episode as the extractor gets it, and what it must not see.

    geom: int [F,H,W] simulator's geom under each pixel. camera_from_geom: f64 [F,G,4,4] metres.
    """

    name: str
    frames: list[Frame]
    camera: Camera
    geom: np.ndarray
    camera_from_geom: np.ndarray

    def follow(self, points_N3: np.ndarray, frame: int) -> np.ndarray:
        """f64 [F,N,3]: where the material seen at ``points_N3`` (camera frame, at ``frame``) is in every frame."""
        height, width = self.geom.shape[1:]
        column, row = np.floor(self.camera.project(points_N3)).astype(int).T
        owner = self.geom[frame, np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
        homogeneous = np.concatenate([points_N3, np.ones((len(points_N3), 1))], 1)
        local = np.einsum("nij,nj->ni", np.linalg.inv(self.camera_from_geom[frame])[owner], homogeneous)
        return np.einsum("fnij,nj->fni", self.camera_from_geom[:, owner], local)[..., :3]


def cached(folder: Path, make: Callable[[str, int, int], Case], task: str, index: int, seed: int) -> Case:
    """``make(task, index, seed)``, rendered once and kept in ``folder`` as plain arrays."""
    path = folder / f"{make.__name__}-{task}-{index}-{seed}-{RESOLUTION}.npz"
    if not path.is_file():
        case = make(task, index, seed)
        folder.mkdir(parents=True, exist_ok=True)
        held = {name: np.stack([getattr(frame, name) for frame in case.frames]) for name in ("image", "depth", "mask")}
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".npz", delete=False) as file:
            np.savez_compressed(
                file,
                allow_pickle=False,
                name=case.name,
                time=[frame.time for frame in case.frames],
                intrinsics=case.camera.intrinsics_33,
                geom=case.geom,
                poses=case.camera_from_geom,
                **held,
            )
        Path(file.name).replace(path)
    with np.load(path, allow_pickle=False) as stored:
        size = stored["image"].shape[2], stored["image"].shape[1]
        columns = zip(stored["time"], stored["image"], stored["depth"], stored["mask"], strict=True)
        frames = [Frame(number, float(time), *arrays) for number, (time, *arrays) in enumerate(columns)]
        camera = Camera(stored["intrinsics"], size, "given")
        return Case(str(stored["name"]), frames, camera, stored["geom"], stored["poses"])


def noisy(case: Case, sigma_m: float, seed: int) -> Case:
    """The same case with independent Gaussian noise on every measured depth, as a sensor adds it."""
    rng = np.random.default_rng([seed, len(case.frames)])
    frames = []
    for frame in case.frames:
        assert frame.depth is not None
        measured = frame.depth > 0
        depth = np.where(measured, frame.depth + rng.normal(0, sigma_m, frame.depth.shape), 0).astype(np.float32)
        frames.append(replace(frame, depth=depth))
    return replace(case, frames=frames)


def gripper_case(task: str, index: int, seed: int) -> Case:
    """The robot's gripper in one expert episode."""
    recording = record_expert(task, index, seed, NOISE, TAIL_S)
    with TaskScene(task, RESOLUTION, show_goal=False) as scene:
        shots = _Shots(scene, np.random.default_rng([seed, index]))
        for frame in range(recording.frames):
            state = recording.snapshots[frame * STEPS_PER_FRAME]
            scene.load(state)
            shots.take(state.tcp)
        return shots.case(f"{task} gripper {seed}.{index}")


def hand_case(task: str, index: int, seed: int, side: str = "right") -> Case:
    """The human-hand twin of the same motion."""
    recording = record_expert(task, index, seed, NOISE, TAIL_S)
    rng = np.random.default_rng([seed, index, 1])
    with TaskScene(task, RESOLUTION, show_goal=False, hand_side=side) as scene:
        rig = scene.hand
        assert rig is not None
        shots = _Shots(scene, rng)
        rig.reshape(random_hand_shape(rng, side))
        manner, sign = stance(rig, recording.snapshots[0], random_manner(rng), shots.film.world_from_camera[:3, 3])
        for time_s in source_times(recording.frames / FRAME_HZ, manner):
            state = between(recording.snapshots, float(time_s))
            pose_hand(rig, state, manner, sign)
            scene.load(state)
            shots.take(state.tcp)
        return shots.case(f"{task} hand {seed}.{index}")


class _Shots:
    """Collects frames with the pose of every geom."""

    def __init__(self, scene: TaskScene, rng: np.random.Generator):
        self.scene = scene
        self.film = Film(scene, random_look(rng, JITTER_M))
        self.geoms: list[np.ndarray] = []
        self.poses: list[np.ndarray] = []

    def take(self, tcp_3: np.ndarray) -> None:
        self.film.shoot(tcp_3)
        data = self.scene.data
        poses = np.tile(np.eye(4), (len(data.geom_xpos), 1, 1))
        poses[:, :3, :3] = data.geom_xmat.reshape(-1, 3, 3)
        poses[:, :3, 3] = data.geom_xpos
        self.poses.append(self.film.camera_from_world @ poses)
        self.geoms.append(self.scene.render()[0].geom)

    def case(self, name: str) -> Case:
        film = self.film
        depth = [row["depth"].astype(np.float32) * np.float32(DEPTH_UNIT_M) for row in film.rows]
        frames = [
            Frame(number, number / FRAME_HZ, image, depth[number], film.rows[number]["mask"])
            for number, image in enumerate(_through_h264(film.images))
        ]
        camera = Camera(self.scene.renderer.intrinsics(), (RESOLUTION, RESOLUTION), "given")
        return Case(name, frames, camera, np.stack(self.geoms), np.stack(self.poses))


def _through_h264(images: list[np.ndarray]) -> list[np.ndarray]:
    """The colours that are left after the compression every stored episode goes through."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.mp4"
        encode_video(path, images, FRAME_HZ)
        return [image for _, _, image in video_frames(path, None, None)]
