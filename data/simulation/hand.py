"""A posable, skin-coloured hand on the skeleton of MyoHand (package ``myo-sim``, Apache-2.0), with exact landmarks.

Bones, joints, joint axes and limits are MyoHand's; muscles and meshes are dropped, and the skin is a set of capsules
and one ellipsoid, so that its surface is known in closed form. MyoHand is small and narrow (palm 52 mm, knuckles 45 mm
apart); its parts are stretched to an adult's (61 mm, 62 mm). Kinematic only: nothing here is simulated dynamics.
Hand frame at rest (right hand): fingers along -y, thumb side +x, palm facing -z; the origin is the wrist.
"""

# pyright: reportAttributeAccessIssue=false
# (mujoco fills its namespace from a C extension without type stubs)
from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from data.simulation.hand_anatomy import FOREARM, INDEX_TIP, LANDMARKS, PALM, SKIN, THUMB_TIP, Point, stretch

PREFIX = "hand-"
ROOT = PREFIX + "root"

SKIN_TONES = ((0.92, 0.75, 0.64), (0.86, 0.66, 0.53), (0.78, 0.57, 0.43), (0.66, 0.46, 0.34), (0.50, 0.34, 0.25))


@dataclass(frozen=True)
class HandShape:
    """One hand's looks. scale: 1 = an adult's palm of 61 mm. thickness: multiplies radii. side: left, right."""

    scale: float = 1.0
    thickness: float = 1.0
    skin_rgb: tuple[float, float, float] = (0.86, 0.66, 0.53)
    side: str = "right"


def random_hand_shape(rng: np.random.Generator, side: str) -> HandShape:
    """An adult hand: size +-10 %, slim to sturdy, any of five skin tones."""
    tone = np.array(SKIN_TONES[rng.integers(len(SKIN_TONES))]) * rng.uniform(0.94, 1.06)
    r, g, b = (float(c) for c in np.clip(tone, 0, 1))
    return HandShape(float(rng.uniform(0.9, 1.1)), float(rng.uniform(0.95, 1.15)), (r, g, b), side)


def _skeleton() -> ET.Element:
    spec = importlib.util.find_spec("myo_sim")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("package myo-sim is missing; install it with: pip install --no-deps myo-sim==0.2.3")
    path = Path(spec.submodule_search_locations[0]) / "models/arm/assets/myoarm_r_chain.xml"
    for body in ET.parse(path).getroot().iter("body"):
        if body.get("name") == "lunate_r":
            return body
    raise ValueError(f"{path}: no body 'lunate_r'; install myo-sim==0.2.3")


def _plain(name: str | None) -> str:
    return (name or "").removesuffix("_r")


def _numbers(text: str | None, default: str = "0 0 0") -> np.ndarray:
    return np.array([float(x) for x in (text or default).split()])


class _Builder:
    """Copies the skeleton into a small MJCF tree in adult proportions, mirrored for a left hand, with skin."""

    def __init__(self, side: str, degrees: bool):
        # Attached models are read in the angle unit of the model they are attached to.
        self.angle_unit = np.deg2rad(1) if degrees else 1.0
        # Mirroring at the palm's middle plane negates x of points and y, z of rotation axes (they are pseudovectors).
        self.mirror_point = np.array([-1.0 if side == "left" else 1.0, 1, 1])
        self.mirror_axis = np.array([1.0, -1, -1]) if side == "left" else np.ones(3)
        self.origins = {
            _plain(child.get("name")): _numbers(child.get("pos")) * stretch(_plain(parent.get("name")))
            for parent in _skeleton().iter("body")
            for child in parent.findall("body")
        }
        self.style = {"group": "1", "contype": "0", "conaffinity": "0"}

    def text(self, vector: np.ndarray) -> str:
        return " ".join(f"{x:.7f}" for x in vector)

    def point(self, vector: Point, body: str) -> np.ndarray:
        if isinstance(vector, str):
            return np.sum([self.origins[name] for name in vector.split("/")], axis=0) * self.mirror_point
        return np.array(vector) * stretch(body) * self.mirror_point

    def capsule(self, parent: ET.Element, name: str, body: str, ends: tuple[Point, Point], radius: float) -> None:
        place = self.text(np.concatenate([self.point(end, body) for end in ends]))
        size = f"{radius:.6f}"
        ET.SubElement(parent, "geom", dict(self.style, name=PREFIX + name, type="capsule", fromto=place, size=size))

    def body(self, source: ET.Element, parent: ET.Element, is_root: bool) -> None:
        name = _plain(source.get("name"))
        pos = np.zeros(3) if is_root else self.point(name, name)
        element = ET.SubElement(parent, "body", name=PREFIX + name, pos=self.text(pos))
        # MuJoCo wants mass on a jointed body; the hand is only ever posed, so any value does.
        ET.SubElement(element, "inertial", pos="0 0 0", mass="0.01", diaginertia="1e-5 1e-5 1e-5")
        for joint in source.findall("joint"):
            axis = self.text(_numbers(joint.get("axis")) * self.mirror_axis)
            limits = self.text(_numbers(joint.get("range"), "0 0") / self.angle_unit)
            joint_name = PREFIX + _plain(joint.get("name"))
            ET.SubElement(element, "joint", name=joint_name, type="hinge", axis=axis, range=limits, limited="true")
        for part, body, start, end, radius in SKIN:
            if body == name:
                self.capsule(element, part, body, (start, end), radius)
        if name == PALM[1]:
            place = dict(pos=self.text(self.point(PALM[2], name)), size=self.text(np.array(PALM[3])), type="ellipsoid")
            ET.SubElement(element, "geom", dict(self.style, name=PREFIX + PALM[0], **place))
        for child in source.findall("body"):
            self.body(child, element, is_root=False)

    def build(self) -> str:
        root = ET.Element("mujoco", model="hand")
        base = ET.SubElement(ET.SubElement(root, "worldbody"), "body", name=ROOT, mocap="true")
        for i, (start, end, radius) in enumerate(FOREARM):
            self.capsule(base, f"forearm{i}", "forearm", (start, end), radius)
        self.body(_skeleton(), base, is_root=True)
        return ET.tostring(root, encoding="unicode")


def attach_hand(spec: mujoco.MjSpec, side: str) -> None:
    """Append a left or right hand to a scene that is not compiled yet; geoms that are already there keep their ids."""
    hand = mujoco.MjSpec.from_string(_Builder(side, bool(spec.compiler.degree)).build())
    spec.worldbody.add_frame().attach_body(hand.body(ROOT), "", "")


class HandRig:
    """Poses the hand of a compiled model and tells the exact truth about it, in the world frame, metres."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, shape: HandShape):
        self.model, self.data = model, data
        self._mocap = int(model.body_mocapid[model.body(ROOT).id])
        joints = [j for j in range(model.njnt) if model.joint(j).name.startswith(PREFIX)]
        self.joint_names = [model.joint(j).name.removeprefix(PREFIX) for j in joints]
        self.joint_limits = model.jnt_range[joints].copy()
        self._qpos = model.jnt_qposadr[joints]
        self._index = {name: i for i, name in enumerate(self.joint_names)}
        self.actor_geoms = np.array([g for g in range(model.ngeom) if model.geom(g).name.startswith(PREFIX)])
        self.geoms = np.array([g for g in self.actor_geoms if "forearm" not in model.geom(g).name])
        bodies = [b for b in range(model.nbody) if model.body(b).name.startswith(PREFIX)]
        self._bodies = np.array([b for b in bodies if model.body(b).name != ROOT])
        self._adult = {
            "body_pos": model.body_pos[self._bodies].copy(),
            "geom_pos": model.geom_pos[self.actor_geoms].copy(),
            "geom_size": model.geom_size[self.actor_geoms].copy(),
        }
        self._landmark_bodies = np.array([model.body(PREFIX + body).id for body, _ in LANDMARKS])
        self.reshape(shape)

    def reshape(self, shape: HandShape) -> None:
        """Give the hand another size, thickness and skin without compiling the scene again. The side is fixed."""
        self.shape = shape
        model, adult, geoms = self.model, self._adult, self.actor_geoms
        model.body_pos[self._bodies] = adult["body_pos"] * shape.scale
        model.geom_pos[geoms] = adult["geom_pos"] * shape.scale
        size = adult["geom_size"] * shape.scale
        is_capsule = model.geom_type[geoms] == mujoco.mjtGeom.mjGEOM_CAPSULE
        size[is_capsule, 0] *= shape.thickness  # radius; the second number is half the length
        size[~is_capsule, 2] *= shape.thickness  # the palm's thickness
        model.geom_size[geoms] = size
        model.geom_rgba[geoms] = [*shape.skin_rgb, 1.0]
        mirror = np.array([-1.0 if shape.side == "left" else 1.0, 1, 1]) * shape.scale
        self._landmark_offsets = np.array([offset * stretch(body) for body, offset in LANDMARKS]) * mirror

    def joints(self, angles: dict[str, float]) -> np.ndarray:
        """Named joint angles in radians (others zero) -> f64 [J], clipped to MyoHand's limits."""
        full = np.zeros(len(self.joint_names))
        for name, value in angles.items():
            full[self._index[name]] = value
        return np.clip(full, *self.joint_limits.T)

    def pose(self, angles_J: np.ndarray, position_3: np.ndarray, rotation_33: np.ndarray) -> None:
        """Set all joints and put the wrist at ``position_3``; ``rotation_33`` is world_from_hand."""
        quaternion = np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(rotation_33, np.float64).ravel())
        self.data.qpos[self._qpos] = angles_J
        self.data.mocap_pos[self._mocap] = position_3
        self.data.mocap_quat[self._mocap] = quaternion
        mujoco.mj_kinematics(self.model, self.data)

    def landmarks(self) -> np.ndarray:
        """The 21 landmarks in MediaPipe order, f64 [21,3]."""
        rotations = self.data.xmat[self._landmark_bodies].reshape(-1, 3, 3)
        offsets = np.einsum("kij,kj->ki", rotations, self._landmark_offsets)
        return self.data.xpos[self._landmark_bodies] + offsets

    def forearm_direction(self) -> np.ndarray:
        """Unit vector f64 [3] from the wrist towards the elbow, world frame."""
        start, end = np.array(FOREARM[0][0]), np.array(FOREARM[0][1])
        direction = (end - start) / np.linalg.norm(end - start)
        if self.shape.side == "left":
            direction[0] *= -1
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, self.data.mocap_quat[self._mocap])
        return rotation.reshape(3, 3) @ direction

    def tip_radii(self) -> float:
        """Thickness that thumb and index tip together put between their landmarks when they touch, metres."""
        return float(sum(self.model.geom(PREFIX + name).size[0] for name in ("thumb3", "index3")))

    def pinch_gap(self) -> float:
        """Free space between the pads of thumb and index finger, metres, never negative."""
        tips = self.landmarks()[[THUMB_TIP, INDEX_TIP]]
        return max(float(np.linalg.norm(tips[1] - tips[0])) - self.tip_radii(), 0.0)

    def surface(self, frame_from_world_44: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Exact surface without the forearm, in any rigid frame: capsules f64 [C,7] and ellipsoids f64 [E,15]."""
        turn, shift = frame_from_world_44[:3, :3], frame_from_world_44[:3, 3]
        capsules, ellipsoids = [], []
        for g in self.geoms:
            centre = turn @ self.data.geom_xpos[g] + shift
            rotation = turn @ self.data.geom_xmat[g].reshape(3, 3)
            size = self.model.geom_size[g]
            if self.model.geom_type[g] == mujoco.mjtGeom.mjGEOM_CAPSULE:
                half = rotation[:, 2] * size[1]
                capsules.append(np.concatenate([centre - half, centre + half, size[:1]]))
            else:
                ellipsoids.append(np.concatenate([centre, size, rotation.ravel()]))
        return np.array(capsules).reshape(-1, 7), np.array(ellipsoids).reshape(-1, 15)
