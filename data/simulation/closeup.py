"""Close-up clips of a moving simulated hand, made to be seen by a real hand detector, with exact truth.

The camera stands still at the world's origin and looks along +y (z up). The motion is invented: smooth sums of sines.
Truth arrays (camera frame, metres; for tests and scores, never read by extraction):
truth_joints f32 [F,21,3] MediaPipe order; truth_surface f32 [F,M,3] visible surface, NaN-padded; truth_capsules f32
[F,C,7] and truth_ellipsoids f32 [F,E,15], the whole surface in closed form (see ``surface``).
"""

# pyright: reportAttributeAccessIssue=false
# (mujoco fills its namespace from a C extension without type stubs)
from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from data.simulation.hand import HandRig, attach_hand, random_hand_shape
from data.simulation.render import RgbdRenderer, View, add_camera, backproject
from data.simulation.scenery import add_lights, add_wall_and_clutter
from data.simulation.sensors import Sensors, sensed
from data.simulation.skin import soften_skin
from data.simulation.write import FAR_M, encode_depth, write_episode

PALM_CENTRE = np.array([0.0, -0.085, 0.0])
SURFACE_POINTS = 500
MARGIN = 0.04  # landmarks stay this share of the image away from its border


@dataclass(frozen=True)
class CloseupSettings:
    """What a clip looks like apart from its seed. step_mm: median landmark motion from frame to frame.

    hand_scale: size of the hand, 1 = an adult's; None = random, +-10 %. viewpoint: (tilt, azimuth) in degrees, from
    where the hand is seen, see ``direction_to_camera``; None = random, about 25 degrees around front or back.
    """

    width: int = 640
    height: int = 480
    rate_hz: int = 25
    seconds: float = 2.0
    step_mm: float = 10.0
    side: str = "right"
    hand_scale: float | None = None
    viewpoint: tuple[float, float] | None = None


def direction_to_camera(tilt_deg: float, azimuth_deg: float) -> np.ndarray:
    """Unit vector f64 [3] towards the camera in the frame of a right hand at rest (fingers -y, thumb +x, palm -z).

    tilt_deg: 0 = the palm looks at the camera, 90 = seen from an edge, 180 = the back looks at it. azimuth_deg: which
    edge is nearer to the camera then: 0 = thumb, 90 = finger tips, 180 = little finger, 270 = wrist.
    """
    tilt, azimuth = np.deg2rad([tilt_deg, azimuth_deg])
    return np.array([np.sin(tilt) * np.cos(azimuth), -np.sin(tilt) * np.sin(azimuth), -np.cos(tilt)])


@dataclass(frozen=True)
class Motion:
    """F poses of the hand, camera frame: wrist f64 [F,3], rotation (camera_from_hand) f64 [F,3,3], angles f64 [F,J]."""

    wrist: np.ndarray
    rotation: np.ndarray
    angles: np.ndarray


class _Waves:
    """Smooth random signals: each channel a sum of two sines with a random phase, within +-1."""

    def __init__(self, rng: np.random.Generator, channels: int):
        self.frequency = rng.uniform([0.25, 0.6], [0.6, 1.1], (channels, 2))
        self.phase = rng.uniform(0, 2 * np.pi, (channels, 2))

    def __call__(self, time_F: np.ndarray) -> np.ndarray:
        waves = np.sin(2 * np.pi * self.frequency * time_F[:, None, None] + self.phase)
        return waves @ np.array([0.7, 0.3])


def _angles(rig: HandRig, curl_F5: np.ndarray, spread_F: np.ndarray, thumb_F: np.ndarray) -> np.ndarray:
    """Finger curl 0..1 (thumb first), spread -1..1 and thumb opposition 0..1 -> joint angles f64 [F,J], radians."""
    frames = []
    for curl, spread, thumb in zip(curl_F5, spread_F, thumb_F, strict=True):
        named = {
            "cmc_flexion": 0.2 - 0.6 * thumb,
            "cmc_abduction": 0.3 - 0.5 * thumb,
            "mp_flexion": -0.5 * curl[0],
            "ip_flexion": -0.8 * curl[0],
        }
        for finger in range(2, 6):
            named[f"mcp{finger}_flexion"] = 1.1 * curl[finger - 1]
            named[f"pm{finger}_flexion"] = 1.3 * curl[finger - 1]
            named[f"md{finger}_flexion"] = 0.7 * curl[finger - 1]
            named[f"mcp{finger}_abduction"] = 0.08 * spread * (3.4 - finger)
        frames.append(rig.joints(named))
    return np.array(frames)


def _seen_from(viewpoint: tuple[float, float], side: str, centre_3: np.ndarray, roll: float) -> Rotation:
    """camera_from_hand of a hand at ``centre_3`` that is seen from there, fingers up where they can be, then rolled."""
    to_camera = direction_to_camera(*viewpoint) * [-1.0 if side == "left" else 1.0, 1, 1]
    wristward = np.array([0.0, 1.0, 0.0])
    down = wristward - to_camera * (to_camera @ wristward)
    if np.linalg.norm(down) < 1e-6:  # seen along the fingers: the palm takes the place of the wrist
        down = np.array([0.0, 0.0, -1.0])
    down /= np.linalg.norm(down)
    ray_from_hand = Rotation.from_matrix(np.stack([np.cross(down, -to_camera), down, -to_camera]))
    # The line of sight goes through the hand, not along the optical axis.
    camera_from_ray = Rotation.align_vectors([centre_3 / np.linalg.norm(centre_3)], [[0.0, 0.0, 1.0]])[0]
    return camera_from_ray * Rotation.from_euler("z", roll) * ray_from_hand


class _MotionSampler:
    """One random motion, playable at any speed."""

    def __init__(self, rng: np.random.Generator, rig: HandRig, view: View, settings: CloseupSettings):
        self.rig, self.settings = rig, settings
        self.waves = _Waves(rng, 14)
        facing = 0.0 if rng.random() < 0.6 else np.pi  # palm or back towards the camera
        yaw, pitch, roll = rng.uniform([-0.4, -0.4, -0.6], [0.4, 0.4, 0.6])
        self.base = Rotation.from_euler("zxy", [roll, pitch, yaw + facing])
        self.swing = rng.uniform(0.05, 0.25, 3)
        self.reach = rng.uniform([0.03, 0.02, 0.02], [0.07, 0.05, 0.06])
        distance = rng.uniform(0.36, 0.62)
        half_height = distance * np.tan(np.deg2rad(view.fovy_deg) / 2)
        self.centre = np.array([*rng.uniform(-0.35, 0.35, 2) * half_height, distance])
        if settings.viewpoint is not None:
            self.base = _seen_from(settings.viewpoint, settings.side, self.centre, roll)
        self.curl = rng.uniform(0.05, 0.5, 5)
        self.curl_swing = rng.uniform(0.05, 0.4, 5)

    def play(self, speed: float) -> Motion:
        frames = round(self.settings.seconds * self.settings.rate_hz)
        wave = self.waves(np.arange(frames) / self.settings.rate_hz * speed)
        rotation = (self.base * Rotation.from_rotvec(wave[:, :3] * self.swing)).as_matrix()
        palm = self.centre + wave[:, 3:6] * self.reach
        wrist = palm - rotation @ (PALM_CENTRE * self.rig.shape.scale)
        curl = np.clip(self.curl + self.curl_swing * wave[:, 6:11], 0, 1)
        angles = _angles(self.rig, curl, wave[:, 11], 0.5 + 0.5 * wave[:, 12])
        return Motion(wrist, rotation, angles)

    def landmarks(self, motion: Motion) -> np.ndarray:
        """f64 [F,21,3], camera frame."""
        frames = []
        for wrist, rotation, angles in zip(motion.wrist, motion.rotation, motion.angles, strict=True):
            self.rig.pose(angles, wrist, rotation)
            frames.append(self.rig.landmarks())
        return np.array(frames)

    def at_step(self, step_m: float) -> tuple[Motion, np.ndarray] | None:
        """The motion played so fast that landmarks move ``step_m`` metres per frame (median), and its landmarks.

        None when it cannot move that fast.
        """
        speed = 1.0
        for _ in range(8):  # the step grows almost in proportion to the speed
            motion = self.play(speed)
            landmarks = self.landmarks(motion)
            median = np.median(np.linalg.norm(np.diff(landmarks, axis=0), axis=-1))
            if abs(median / step_m - 1) < 0.02:
                return motion, landmarks
            speed *= step_m / median
        return None


def _inside(landmarks_FK3: np.ndarray, view: View, settings: CloseupSettings) -> bool:
    uvw = landmarks_FK3 @ view.intrinsics(settings.width, settings.height).T
    uv = uvw[..., :2] / uvw[..., 2:] / np.array([settings.width, settings.height])
    near_enough = landmarks_FK3[..., 2].min() > 0.2
    return bool(near_enough and (uv > MARGIN).all() and (uv < 1 - MARGIN).all())


def _scene(rng: np.random.Generator, side: str) -> mujoco.MjModel:
    spec = mujoco.MjSpec()
    spec.visual.map.znear, spec.visual.map.zfar = 0.05, 20.0
    spec.stat.extent, spec.stat.center = 1.0, [0, 0.5, 0]
    add_camera(spec)
    add_lights(spec, rng)
    add_wall_and_clutter(spec, rng, distance=float(rng.uniform(1.1, 1.8)))
    attach_hand(spec, side)
    return spec.compile()


def _visible_surface(
    depth: np.ndarray, intrinsics_33: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    points = backproject(depth, intrinsics_33, mask)
    surface = np.full((SURFACE_POINTS, 3), np.nan, np.float32)
    chosen = rng.permutation(len(points))[:SURFACE_POINTS]
    surface[: len(chosen)] = points[chosen]
    return surface


def make_closeup(
    seed: int, settings: CloseupSettings
) -> tuple[list[np.ndarray], dict[str, np.ndarray], dict[str, Any]]:
    """One clip: (images uint8 [H,W,3] each, arrays for NAME.npz, sidecar for NAME.json). The seed fixes every byte.

    Raises RuntimeError when no motion fits the picture, for example because step_mm is too large for the clip.
    """
    rng = np.random.default_rng([seed, 0xC105E])
    shape = random_hand_shape(rng, settings.side)
    if settings.hand_scale is not None:
        shape = replace(shape, scale=settings.hand_scale)
    view = View((0, 0, 0), (0, 1, 0), float(rng.uniform(38, 52)))
    model = _scene(rng, settings.side)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    rig = HandRig(model, data, shape)
    for _ in range(200):
        found = _MotionSampler(rng, rig, view, settings).at_step(settings.step_mm / 1000)
        if found and _inside(found[1], view, settings):
            break
    else:
        raise RuntimeError(
            f"close-up {seed}: no motion with step_mm={settings.step_mm} stays in the picture; lower step_mm"
        )
    motion, landmarks = found
    images, arrays = _render(model, data, rig, view, motion, settings, rng)
    arrays["truth_joints"] = landmarks.astype(np.float32)
    sidecar = {
        "instruction": "move the hand",
        "embodiment": "human-hand",
        "effector": "hand",
        "side": settings.side,
        "intrinsics": view.intrinsics(settings.width, settings.height).tolist(),
        "frame_range": None,
        "simulated": True,
        "labelled": False,
        "task": None,
        "seed": seed,
        "success": None,
        "action_spec": None,
    }
    return images, arrays, sidecar


def _render(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    rig: HandRig,
    view: View,
    motion: Motion,
    settings: CloseupSettings,
    rng: np.random.Generator,
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    world_from_camera = view.world_from_camera()
    camera_from_world = np.linalg.inv(world_from_camera)
    intrinsics = view.intrinsics(settings.width, settings.height)
    images, rows = [], []
    with RgbdRenderer(model, settings.width, settings.height) as renderer:
        renderer.look(view)
        for wrist, rotation, angles in zip(motion.wrist, motion.rotation, motion.angles, strict=True):
            rig.pose(
                angles,
                world_from_camera[:3, :3] @ wrist + world_from_camera[:3, 3],
                world_from_camera[:3, :3] @ rotation,
            )
            rendering = renderer.render(data)
            mask = np.isin(rendering.geom, rig.geoms)
            depth = np.where(rendering.depth < FAR_M, rendering.depth, 0)
            capsules, ellipsoids = rig.surface(camera_from_world)
            images.append(soften_skin(rendering.image, rendering.depth, mask))
            rows.append(
                {
                    "depth": encode_depth(depth),
                    "mask": mask,
                    "world_from_camera": world_from_camera.astype(np.float32),
                    "opening": np.float32(rig.pinch_gap()),
                    "truth_surface": _visible_surface(depth, intrinsics, mask, rng),
                    "truth_capsules": capsules.astype(np.float32),
                    "truth_ellipsoids": ellipsoids.astype(np.float32),
                }
            )
    return images, {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def write_closeup(folder: Path, name: str, seed: int, settings: CloseupSettings, sensors: Sensors = "truth") -> None:
    """Makes one clip and writes it as NAME.mp4, NAME.npz, NAME.json, with what ``sensors`` tell."""
    images, arrays, sidecar = make_closeup(seed, settings)
    arrays, sidecar = sensed(arrays, sidecar, sensors)
    write_episode(folder, name, images, settings.rate_hz, arrays, {**sidecar, "group": name})
