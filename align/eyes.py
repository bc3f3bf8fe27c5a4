"""What a running policy sees: the effector's recent cloud, and the picture that its predictor learned to read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from align.followers import Following
from align.live import LiveCloud
from align.moments import Past
from data.episode import Frame
from extract.effector import Camera
from extract.scene import SceneMemory
from extract.scene_pictures import actor_of
from extract.small import halved, small_frame
from pretrain.model.configuration_kinecloud import KinecloudConfig


@dataclass(frozen=True)
class View:
    """What a policy is told of the picture and of the past. image: u8 [H,W,3]. depth: f32 [H,W] metres or None."""

    image: np.ndarray
    depth: np.ndarray | None
    intrinsics_33: np.ndarray
    past: Past


class Eyes:
    """One camera at rest, from the first frame of an episode on.

    A predictor that learned from scenes without their actor is shown such, made as extraction makes them.
    """

    def __init__(self, camera: Camera, following: Following, config: KinecloudConfig, image_side: int):
        """image_side: of the pictures that extraction stores, ``extract.image_side``."""
        self._camera = camera
        self._cloud = LiveCloud(following.start(camera), config.past_times)
        self._wants_scene, self._wants_depth = config.scene != "none", config.depth
        scale = min(1.0, image_side / max(camera.image_size))
        self._size = (max(1, round(camera.image_size[0] * scale)), max(1, round(camera.image_size[1] * scale)))
        self._small = camera.scaled(self._size)
        self._memory = SceneMemory()
        self._shown: tuple[np.ndarray, np.ndarray | None] | None = None

    def see(self, frame: Frame, opening: float, grasp_3: np.ndarray | None = None) -> None:
        """Takes in the next frame. opening: metres. grasp_3: see ``LiveCloud.see``."""
        seen = self._cloud.see(frame, opening, grasp_3)
        if not self._wants_scene:
            self._shown = frame.image, frame.depth
            return
        small = small_frame(frame, halved(frame.image), self._size, scenes=True)
        if small.actor is not None:
            actor_HW = small.actor
        elif seen is not None:
            actor_HW = actor_of(small, True, seen.points_N3, seen.grasp_3, self._small, self._memory)
        else:
            return  # nobody knows which pixels are the robot's
        self._shown = self._memory.see(small.image, small.depth, actor_HW)

    def view(self) -> View | None:
        """What the policy is told now; None as long as the effector was never seen."""
        past = self._cloud.past()
        if past is None or self._shown is None:
            return None
        camera = self._small if self._wants_scene else self._camera
        return View(self._shown[0], self._shown[1] if self._wants_depth else None, camera.intrinsics_33, past)
