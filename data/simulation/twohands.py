"""Two simulated hands in one picture, of one person or of two, with exact truth: to test who is who.

Each hand is filmed alone in the same room, and of both films the nearer pixel is shown. The camera stands still at the
world's origin and looks along +y. The motions are invented (``ACTS``). Nothing here is real human data.
"""

# pyright: reportAttributeAccessIssue=false
# (mujoco fills its namespace from a C extension without type stubs)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from data.simulation.closeup import PALM_CENTRE, Motion, _angles, _scene, _Waves
from data.simulation.hand import HandRig, HandShape, random_hand_shape
from data.simulation.render import RgbdRenderer, View
from data.simulation.skin import soften_skin
from data.simulation.write import FAR_M, encode_depth

NEAR_M, BEHIND_M = 0.62, 0.14  # distance of the nearer hand, and how much further away the other one is


@dataclass(frozen=True)
class TwoHandsSettings:
    """What a clip looks like apart from its seed. act: a name in ACTS. sides: of the nearer and of the further hand."""

    act: str = "cross"
    sides: tuple[str, str] = ("right", "left")
    width: int = 640
    height: int = 480
    rate_hz: int = 25
    seconds: float = 3.0


def _there_and_back(time_F: np.ndarray, seconds: float) -> np.ndarray:
    """0 .. 1 .. 0, smooth."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * time_F / seconds)


def _across(time_F: np.ndarray, seconds: float) -> np.ndarray:
    """-1 .. 1, smooth."""
    return -np.cos(np.pi * time_F / seconds)


def _paths(near_x: np.ndarray, near_y: float, far_x: np.ndarray, far_y: float) -> np.ndarray:
    return np.stack([np.stack([near_x, near_x * 0 + near_y], -1), np.stack([far_x, far_x * 0 + far_y], -1)])


# Palm centres [2,F,2] of both hands, metres right and down, at the distance of the nearer hand.
ACTS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    # They pass each other, one above the other, and both stay in view.
    "cross": lambda t, s: _paths(0.16 * _across(t, s), 0.08, -0.16 * _across(t, s), -0.1),
    # The nearer hand passes right in front of the other one.
    "occlude": lambda t, s: _paths(0.16 * _across(t, s), 0.02, -0.16 * _across(t, s), 0.0),
    # They come together side by side, and part again.
    "touch": lambda t, s: _paths(0.15 - 0.1 * _there_and_back(t, s), 0.0, -0.15 + 0.1 * _there_and_back(t, s), 0.0),
    # One leaves the picture and comes back; the other one stays.
    "leave": lambda t, s: _paths(-0.09 + 0 * t, 0.02, 0.12 + 0.5 * _there_and_back(t, s) ** 2, 0.0),
    # Each moves by itself.
    "apart": lambda t, s: _paths(-0.12 + 0.03 * np.sin(3 * t), 0.02, 0.14 + 0.04 * np.sin(2 * t + 1), 0.0),
}


@dataclass(frozen=True)
class TwoHands:
    """images: F times uint8 [H,W,3]. sides: of both hands. depth: u16 [F,H,W] as written by ``write_episode``.

    joints_2T213: f64 metres, camera frame. mask_2FHW: bool, the pixels in which each hand is seen. uncovered_2F: which
    share of each hand's pixels the other one leaves free. intrinsics_33: pixels.
    """

    images: list[np.ndarray]
    sides: tuple[str, str]
    depth: np.ndarray
    joints_2T213: np.ndarray
    mask_2FHW: np.ndarray
    uncovered_2F: np.ndarray
    intrinsics_33: np.ndarray

    def episode(self, seed: int) -> tuple[list[np.ndarray], dict[str, np.ndarray], dict[str, Any]]:
        """Images, arrays and sidecar for ``write_episode``."""
        arrays = {
            "depth": self.depth,
            "truth_joints": self.joints_2T213.astype(np.float32),
            "truth_masks": self.mask_2FHW,
            "truth_uncovered": self.uncovered_2F.astype(np.float32),
        }
        sidecar = {
            "instruction": "move both hands",
            "embodiment": "human-hand",
            "effector": "hand",
            "side": None,
            "truth_sides": list(self.sides),
            "intrinsics": self.intrinsics_33.tolist(),
            "simulated": True,
            "labelled": False,
            "seed": seed,
        }
        return self.images, arrays, sidecar


def make_two_hands(seed: int, settings: TwoHandsSettings) -> TwoHands:
    """One clip; the seed fixes every byte."""
    rng = np.random.default_rng([seed, 0x2A2D5])
    view = View((0, 0, 0), (0, 1, 0), float(rng.uniform(44, 50)))
    room = int(rng.integers(2**31))
    shapes = [random_hand_shape(rng, side) for side in settings.sides]
    if settings.sides[0] != settings.sides[1]:  # one person: both hands are alike
        first = shapes[0]
        shapes[1] = HandShape(first.scale, first.thickness, first.skin_rgb, settings.sides[1])
    time_F = np.arange(round(settings.seconds * settings.rate_hz)) / settings.rate_hz
    centres_2F2 = ACTS[settings.act](time_F, settings.seconds)
    mirror = 1.0 if rng.random() < 0.5 else -1.0
    films = []
    for number, shape in enumerate(shapes):
        distance = NEAR_M + BEHIND_M * number
        centre_F3 = np.concatenate([centres_2F2[number] * [mirror, 1], np.ones((len(time_F), 1))], 1)
        centre_F3 *= [distance / NEAR_M, distance / NEAR_M, distance]
        films.append(_film(room, view, shape, centre_F3, time_F, settings, rng))
    return _together(films, settings, view)


@dataclass(frozen=True)
class _Film:
    """One hand alone, F frames. depth_FHW: metres."""

    images: list[np.ndarray]
    depth_FHW: np.ndarray
    mask_FHW: np.ndarray
    joints_F213: np.ndarray


def _motion(rig: HandRig, centre_F3: np.ndarray, time_F: np.ndarray, rng: np.random.Generator) -> Motion:
    """The palm on that path, fingers up and a little inwards, turning and bending a little."""
    waves = _Waves(rng, 12)(time_F)
    inwards = -0.35 if rig.shape.side == "left" else 0.35
    facing = 0.0 if rng.random() < 0.6 else np.pi
    base = Rotation.from_euler("zxy", [-inwards + rng.uniform(-0.2, 0.2), rng.uniform(-0.3, 0.3), facing])
    rotation = (base * Rotation.from_rotvec(0.15 * waves[:, :3])).as_matrix()
    curl = np.clip(rng.uniform(0.05, 0.4, 5) + 0.2 * waves[:, 3:8], 0, 1)
    palm = centre_F3 + 0.008 * waves[:, 8:11]
    wrist = palm - rotation @ (PALM_CENTRE * rig.shape.scale)
    return Motion(wrist, rotation, _angles(rig, curl, waves[:, 11], 0.5 + 0.3 * waves[:, 0]))


def _film(
    room: int,
    view: View,
    shape: HandShape,
    centre_F3: np.ndarray,
    time_F: np.ndarray,
    settings: TwoHandsSettings,
    rng: np.random.Generator,
) -> _Film:
    model = _scene(np.random.default_rng(room), shape.side)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    rig = HandRig(model, data, shape)
    motion = _motion(rig, centre_F3, time_F, rng)
    world_from_camera = view.world_from_camera()
    images, depths, masks, joints = [], [], [], []
    with RgbdRenderer(model, settings.width, settings.height) as renderer:
        renderer.look(view)
        for wrist, rotation, angles in zip(motion.wrist, motion.rotation, motion.angles, strict=True):
            rig.pose(angles, wrist, rotation)
            joints.append(rig.landmarks())
            rig.pose(angles, world_from_camera[:3, :3] @ wrist, world_from_camera[:3, :3] @ rotation)
            rendering = renderer.render(data)
            mask = np.isin(rendering.geom, rig.geoms)
            images.append(soften_skin(rendering.image, rendering.depth, mask))
            depths.append(rendering.depth)
            masks.append(mask)
    return _Film(images, np.array(depths), np.array(masks), np.array(joints))


def _together(films: list[_Film], settings: TwoHandsSettings, view: View) -> TwoHands:
    near, far = films
    hidden_FHW = near.depth_FHW < far.depth_FHW - 1e-4
    images = [
        np.where(hidden[..., None], a, b) for hidden, a, b in zip(hidden_FHW, near.images, far.images, strict=True)
    ]
    depth = np.minimum(near.depth_FHW, far.depth_FHW)
    seen = np.stack([near.mask_FHW & (near.depth_FHW <= far.depth_FHW), far.mask_FHW & ~hidden_FHW])
    whole = np.stack([near.mask_FHW, far.mask_FHW]).sum((2, 3))
    return TwoHands(
        images=images,
        sides=settings.sides,
        depth=encode_depth(np.where(depth < FAR_M, depth, 0)),
        joints_2T213=np.stack([near.joints_F213, far.joints_F213]),
        mask_2FHW=seen,
        uncovered_2F=np.where(whole > 0, seen.sum((2, 3)) / np.maximum(whole, 1), 0),
        intrinsics_33=view.intrinsics(settings.width, settings.height),
    )
