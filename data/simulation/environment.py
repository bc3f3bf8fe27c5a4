"""A Meta-World task as a policy meets it: pictures with depth and mask in, 20 Hz actions out. Simulated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.episode import Frame
from data.simulation.metaworld import CONTROL_HZ, FRAME_HZ, STEPS_PER_FRAME, Snapshot, environment, reset, snapshot
from data.simulation.mixing import mixed
from data.simulation.scene import NOMINAL_LOOK, Look, TaskScene
from data.simulation.tasks import INSTRUCTIONS
from data.simulation.write import DEPTH_UNIT_M, FAR_M, encode_depth


@dataclass(frozen=True)
class Observation:
    """frame: image, depth and gripper mask. proprio: f32 [4], tcp xyz (world) and opening, metres. opening: metres.

    actor: bool [H,W], pixels of the whole robot. grasp: f32 [3], metres, camera frame, between the tips of the jaws.
    """

    frame: Frame
    proprio: np.ndarray
    opening: float
    actor: np.ndarray
    grasp: np.ndarray


class TaskEnvironment:
    """One task, closed loop. Same renderer, markers and units as the recorded episodes.

    Only one may be open in a process at a time, and it is not to be mixed with recording in the same process: both
    share the task's physics and the graphics context.
    """

    def __init__(
        self,
        task: str,
        resolution: int = 128,
        show_goal: bool = False,
        extra_object_range_m: float = 0.0,
        action_mixing: int | None = None,
    ):
        self.task, self.instruction = task, INSTRUCTIONS[task]
        self.image_size = (resolution, resolution)
        self._extra, self._mixing = extra_object_range_m, action_mixing
        self._env = environment(task)
        self._scene = TaskScene(task, resolution, show_goal)
        self._look = NOMINAL_LOOK
        self._steps = 0
        self._success = False
        self._state: Snapshot | None = None

    def reset(self, seed: int, look: Look | None = None) -> Observation:
        """Start the episode of ``seed``, seen with ``look`` (see ``scene.random_look``; nominal without)."""
        self._look = look or NOMINAL_LOOK
        self._scene.set_look(self._look)
        reset(self._env, seed, self._extra)
        self._steps, self._success = 0, False
        self._state = snapshot(self._env)
        return self.observe()

    def observe(self) -> Observation:
        """What the camera and the robot's own sensors tell now. ``Frame.time`` is seconds since reset."""
        state = self._now()
        self._scene.load(state)
        rendering, mask = self._scene.render()
        seen = np.where(rendering.depth < FAR_M, rendering.depth, 0)
        depth = encode_depth(seen).astype(np.float32) * np.float32(DEPTH_UNIT_M)
        frame = Frame(self._steps, self._steps / FRAME_HZ, rendering.image, depth, mask)
        camera_from_world = np.linalg.inv(self.world_from_camera)
        grasp = (camera_from_world[:3, :3] @ state.tcp + camera_from_world[:3, 3]).astype(np.float32)
        return Observation(frame, state.proprio(), state.opening, self._scene.actor(rendering), grasp)

    def step(self, action_4: np.ndarray) -> None:
        """Execute one 20 Hz action: the command, clipped to [-1, 1], is held for 4 control steps.

        With ``action_mixing`` the command is the mixed action (see ``mixing``), and is clipped after it is mixed.

        Raises RuntimeError when the episode is over (``done``) or was never started.
        """
        self._now()
        if self.done:
            raise RuntimeError(f"{self.task}: the episode is over after {self._steps} steps; call reset(seed)")
        command = np.clip(mixed(action_4, self._mixing), -1, 1)
        for _ in range(STEPS_PER_FRAME):
            *_, info = self._env.step(command)
            self._success = self._success or info["success"] > 0.5
        self._steps += 1
        self._state = snapshot(self._env)

    @property
    def success(self) -> bool:
        """True once the task was solved at any control step since reset."""
        return self._success

    @property
    def done(self) -> bool:
        """True when no further step fits into the simulator's time limit (about 6 s)."""
        return (self._steps + 1) * STEPS_PER_FRAME >= self._env.max_path_length

    @property
    def seconds(self) -> float:
        """Simulated time since reset."""
        return self._steps * STEPS_PER_FRAME / CONTROL_HZ

    @property
    def intrinsics(self) -> np.ndarray:
        """f64 [3,3], pixels."""
        return self._scene.renderer.intrinsics()

    @property
    def world_from_camera(self) -> np.ndarray:
        """f64 [4,4], metres, OpenCV axes."""
        return self._look.view.world_from_camera()

    def close(self) -> None:
        """Free the graphics context."""
        self._scene.close()

    def __enter__(self) -> TaskEnvironment:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _now(self) -> Snapshot:
        if self._state is None:
            raise RuntimeError(f"{self.task}: call reset(seed) first")
        return self._state
