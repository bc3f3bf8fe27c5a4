"""A render-only copy of a Meta-World scene: same geoms, own camera, random looks, and optionally the human hand."""

# pyright: reportAttributeAccessIssue=false
# (mujoco fills its namespace from a C extension without type stubs)
from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from data.simulation.hand import HandRig, HandShape, attach_hand
from data.simulation.metaworld import Snapshot, environment
from data.simulation.render import Rendering, RgbdRenderer, View, add_camera
from pipeline.errors import UserError

GRIPPER_BODIES = ("right_hand", "hand", "rightclaw", "leftclaw", "rightpad", "leftpad")
# The three rigid parts of the gripper, as truth for trackers: palm, right finger, left finger.
GRIPPER_PARTS = ("rail", "rightpad_geom", "leftpad_geom")
PALM_TO_TCP_M = 0.095  # along the palm's x axis, where the fingers point
ROBOT_ROOT = "base"
GOAL_SITES = {"coffee-pull-v3": "mug_goal", "coffee-push-v3": "coffee_goal"}  # elsewhere the marker is called "goal"
EYE, TARGET, FOVY_DEG = (0.80, 0.35, 0.75), (0.0, 0.68, 0.13), 40.0


@dataclass(frozen=True)
class Look:
    """Camera and looks of one episode. Colours multiply what the scene has; lights are relative strengths."""

    view: View
    table_rgb: tuple[float, ...]
    floor_rgb: tuple[float, ...]
    lamps: tuple[float, ...]
    ambient: float


def random_look(rng: np.random.Generator, camera_jitter_m: float) -> Look:
    """Camera around the nominal place (within +-jitter; the target moves a third as much), table colour, light."""
    eye = np.array(EYE) + camera_jitter_m * rng.uniform(-1, 1, 3)
    target = np.array(TARGET) + camera_jitter_m / 3 * rng.uniform(-1, 1, 3)
    view = View(
        tuple(eye.tolist()), tuple(target.tolist()), float(FOVY_DEG + 25 * camera_jitter_m * rng.uniform(-1, 1))
    )
    tint = rng.uniform(0.75, 1.0) * rng.uniform(0.8, 1.0, (2, 3))
    return Look(view, tuple(tint[0]), tuple(tint[1]), tuple(rng.uniform(0.7, 1.2, 3)), float(rng.uniform(0.85, 1.15)))


NOMINAL_LOOK = Look(View(EYE, TARGET, FOVY_DEG), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), 1.0)


class TaskScene:
    """Draws snapshots of one task. With ``hand_side`` the robot is invisible and a posable hand is there instead."""

    def __init__(self, task: str, resolution: int, show_goal: bool, hand_side: str | None = None):
        spec = mujoco.MjSpec.from_file(environment(task).model_name)
        add_camera(spec)
        if hand_side is not None:
            attach_hand(spec, hand_side)
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        mujoco.mj_forward(self.model, self.data)
        self._lamps = self.model.light_diffuse.copy()
        self._headlight = self.model.vis.headlight.ambient.copy()
        self._hide_markers(task, show_goal)
        self.hand: HandRig | None = None
        robot = self._robot_geoms()
        if hand_side is not None:
            self.model.geom_rgba[robot, 3] = 0
            self.model.geom_matid[robot] = -1  # a material's own colour would win over the transparent one
            self.hand = HandRig(self.model, self.data, HandShape(side=hand_side))
            self.effector_geoms, self.actor_geoms = self.hand.geoms, self.hand.actor_geoms
        else:
            bodies = {self.model.body(name).id for name in GRIPPER_BODIES}
            owners = self.model.geom_bodyid
            self.effector_geoms = np.array([g for g in range(self.model.ngeom) if owners[g] in bodies])
            self.actor_geoms = robot
        self.renderer = RgbdRenderer(self.model, resolution, resolution)
        self.set_look(NOMINAL_LOOK)

    def set_look(self, look: Look) -> None:
        """Use this camera and these looks from now on."""
        self.renderer.look(look.view)
        self.model.light_diffuse[:] = self._lamps * np.array(look.lamps)[: self.model.nlight, None]
        self.model.vis.headlight.ambient[:] = self._headlight * look.ambient
        self.model.mat("table_wood").rgba[:3] = look.table_rgb
        self.model.mat("basic_floor").rgba[:3] = look.floor_rgb

    def load(self, snapshot: Snapshot) -> None:
        """Put every geom of the task where the snapshot has it (a posed hand stays as it is)."""
        count = len(snapshot.geom_position)
        self.data.geom_xpos[:count] = snapshot.geom_position
        self.data.geom_xmat[:count] = snapshot.geom_rotation.reshape(-1, 9)
        if self._goal is not None:
            self.data.site_xpos[self._goal] = snapshot.goal

    def render(self) -> tuple[Rendering, np.ndarray]:
        """The picture of what is loaded, and the effector's mask bool [H,W]."""
        rendering = self.renderer.render(self.data)
        return rendering, np.isin(rendering.geom, self.effector_geoms)

    def actor(self, rendering: Rendering) -> np.ndarray:
        """bool [H,W]: the pixels of the effector and of the arm that it belongs to, down to the robot's base."""
        return np.isin(rendering.geom, self.actor_geoms)

    def gripper_parts(self) -> np.ndarray:
        """f64 [3,4,4] world_from_part of the palm and both fingers."""
        poses = np.tile(np.eye(4), (len(GRIPPER_PARTS), 1, 1))
        for pose, name in zip(poses, GRIPPER_PARTS, strict=True):
            geom = self.data.geom(name)
            pose[:3, :3], pose[:3, 3] = geom.xmat.reshape(3, 3), geom.xpos
        return poses

    def effector_pose(self) -> np.ndarray:
        """f64 [4,4] world_from_effector, as a robot's own kinematics would record it.

        Fixed to the palm, at the tool centre point of centred jaws; x where the fingers point, y along the jaws.
        """
        pose = self.gripper_parts()[0]
        pose[:3, 3] += PALM_TO_TCP_M * pose[:3, 0]
        return pose

    def close(self) -> None:
        """Free the graphics context; needed before the next scene is made in this process."""
        self.renderer.close()

    def __enter__(self) -> TaskScene:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hide_markers(self, task: str, show_goal: bool) -> None:
        # A fully transparent site is not drawn at all, in neither pass.
        self.model.site_rgba[:, 3] = 0
        self._goal: int | None = None
        if show_goal:
            self._goal = self._goal_site(task)
            self.model.site_rgba[self._goal] = (0.1, 0.8, 0.1, 1.0)

    def _goal_site(self, task: str) -> int:
        sites = [self.model.site(number).name for number in range(self.model.nsite)]
        name = GOAL_SITES.get(task, "goal")
        if name not in sites:
            raise UserError(
                f"simulate.show_goal_tasks: {task} has no marker '{name}' (markers: {', '.join(filter(None, sites))}); "
                "leave it out of show_goal_tasks"
            )
        return sites.index(name)

    def _robot_geoms(self) -> np.ndarray:
        """Ids of all geoms of the robot's base body and of those below it."""
        root, parents = self.model.body(ROBOT_ROOT).id, self.model.body_parentid
        geoms = []
        for geom in range(self.model.ngeom):
            body = self.model.geom_bodyid[geom]
            while body not in (0, root):
                body = parents[body]
            if body == root:
                geoms.append(geom)
        return np.array(geoms)
