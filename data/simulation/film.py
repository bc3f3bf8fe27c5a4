"""Task episodes as they are stored, and the robot's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from data.simulation.metaworld import FRAME_HZ, STEPS_PER_FRAME, Recording, action_spec
from data.simulation.scene import Look, TaskScene, random_look
from data.simulation.tasks import INSTRUCTIONS
from data.simulation.write import FAR_M, encode_depth


@dataclass(frozen=True)
class Episode:
    """images: uint8 [H,W,3] each. arrays: content of NAME.npz. sidecar: content of NAME.json."""

    images: list[np.ndarray]
    arrays: dict[str, np.ndarray]
    sidecar: dict[str, Any]


class Film:
    """Collects an episode's frames and what belongs to each of them, in one look."""

    def __init__(self, scene: TaskScene, look: Look):
        self.scene = scene
        scene.set_look(look)
        self.world_from_camera = look.view.world_from_camera()
        self.camera_from_world = np.linalg.inv(self.world_from_camera)
        self.images: list[np.ndarray] = []
        self.rows: list[dict[str, np.ndarray]] = []

    def in_camera(self, points_N3: np.ndarray) -> np.ndarray:
        return (points_N3 @ self.camera_from_world[:3, :3].T + self.camera_from_world[:3, 3]).astype(np.float32)

    def shoot(self, tcp_3: np.ndarray, **extra: np.ndarray) -> None:
        """Keeps one frame. tcp_3: the grasp point, metres, world frame; extra: what else belongs to the frame."""
        rendering, mask = self.scene.render()
        grasp = self.in_camera(tcp_3)
        self.images.append(rendering.image)
        depth = np.where(rendering.depth < FAR_M, rendering.depth, 0)
        fixed = {
            "depth": encode_depth(depth),
            "mask": mask,
            "actor": self.scene.actor(rendering),
            "grasp": grasp,
            "truth_tcp": grasp,
            "world_from_camera": self.world_from_camera.astype(np.float32),
        }
        self.rows.append({**fixed, **extra})

    def episode(self, recording: Recording, embodiment: str, **facts: Any) -> Episode:
        arrays = {key: np.stack([row[key] for row in self.rows]) for key in self.rows[0]}
        sidecar = {
            "instruction": INSTRUCTIONS[recording.task],
            "embodiment": embodiment,
            "effector": "mask",
            "side": None,
            "intrinsics": self.scene.renderer.intrinsics().tolist(),
            "frame_range": None,
            "simulated": True,
            "labelled": False,
            "task": recording.task,
            "seed": recording.seed,
            "success": True,
            "action_spec": None,
            **facts,
        }
        return Episode(self.images, arrays, sidecar)


def robot_episode(
    scene: TaskScene,
    recording: Recording,
    rng: np.random.Generator,
    camera_jitter_m: float,
    labelled: bool,
    action_mixing: int | None = None,
) -> Episode:
    """The robot as it moved, at 20 Hz, with the pose that its kinematics recorded (base frame: the simulator's world).

    ``action_mixing``: labels are the actions of a robot whose translation is mixed with this seed (see ``mixing``).
    Truth: the tool centre point and the poses of the gripper's rigid parts.
    """
    film = Film(scene, random_look(rng, camera_jitter_m))
    for frame in range(recording.frames):
        state = recording.snapshots[frame * STEPS_PER_FRAME]
        scene.load(state)
        film.shoot(
            state.tcp,
            opening=np.asarray(state.opening, np.float32),
            base_from_effector=scene.effector_pose(),
            truth_source_time=np.asarray(frame / FRAME_HZ, np.float32),
            truth_gripper_parts=(film.camera_from_world @ scene.gripper_parts()).astype(np.float32),
        )
    episode = film.episode(recording, "sawyer-gripper")
    if labelled:
        episode.arrays.update(actions=recording.actions(action_mixing), proprio=recording.proprio())
        episode.sidecar.update(labelled=True, action_spec=action_spec(action_mixing))
    return episode
