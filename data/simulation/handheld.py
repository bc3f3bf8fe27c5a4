"""Clips of a room and a hand seen by a camera that moves: hand-held, worn on a walking head, panning, or not at all.

Everything is invented: the camera's path is a smooth sum of sines (drift, sway, tremor, steps), the hand moves in front
of it, and something in the room may move by itself. Truth arrays (for tests and scores, never read by extraction):
truth_world_from_camera f32 [F,4,4] metres, world = the camera of the first frame; truth_joints f32 [F,21,3] metres,
camera frame.
"""

# pyright: reportAttributeAccessIssue=false
# (mujoco fills its namespace from a C extension without type stubs)
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from data.geometry import invert_rigid
from data.simulation.hand import HandRig, attach_hand, random_hand_shape
from data.simulation.render import OPENCV_FROM_OPENGL, RgbdRenderer, View, add_camera
from data.simulation.scenery import add_lights, random_colour
from data.simulation.skin import soften_skin
from data.simulation.write import FAR_M, encode_depth, write_episode

HEIGHT_M = 1.45  # of the camera
TABLE_M = 0.75
TEXTURES = 6
TEXTURE_PX = 512
PALM_CENTRE = np.array([0.0, -0.085, 0.0])

CameraPath = Literal["static", "hand-held", "walk", "turn"]


@dataclass(frozen=True)
class HandheldSettings:
    """What a clip looks like apart from its seed.

    camera: ``static``; ``hand-held``, standing (a path of some decimetres); ``walk``, on a head that walks (steps at
    2 Hz, sway, pans); ``turn``, turning on the spot without any translation. hand_distance_m: from the camera to the
    palm. mover: something in the room moves that is no effector.
    """

    width: int = 640
    height: int = 480
    rate_hz: int = 25
    seconds: float = 4.0
    camera: CameraPath = "hand-held"
    side: str = "right"
    hand_distance_m: tuple[float, float] = (0.38, 0.5)
    mover: bool = True


def make_handheld(
    seed: int, settings: HandheldSettings
) -> tuple[list[np.ndarray], dict[str, np.ndarray], dict[str, Any]]:
    """One clip: (images uint8 [H,W,3] each, arrays for NAME.npz, sidecar for NAME.json). The seed fixes every byte."""
    rng = np.random.default_rng([seed, 0x4A4D])
    time_F = np.arange(round(settings.seconds * settings.rate_hz)) / settings.rate_hz
    fovy = float(rng.uniform(42, 56))
    paths = camera_path(settings.camera, rng, time_F)
    spec, mover = _room(rng, settings)
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    rig = HandRig(model, data, random_hand_shape(rng, settings.side))
    hand = _hand_path(rng, rig, settings, time_F)
    mover_path = _waves(rng, time_F, 3, 0.2, 0.5) * [0.25, 0.1, 0.05]
    images, rows = [], []
    with RgbdRenderer(model, settings.width, settings.height) as renderer:
        for frame, world_from_camera in enumerate(paths):
            renderer.look(_view(world_from_camera, fovy))
            if mover is not None:
                place = model.body(mover)
                data.mocap_pos[int(model.body_mocapid[place.id])] = place.pos + mover_path[frame]
            wrist, rotation, angles = (part[frame] for part in hand)
            turn, eye = world_from_camera[:3, :3], world_from_camera[:3, 3]
            rig.pose(angles, turn @ wrist + eye, turn @ rotation)
            rendering = renderer.render(data)
            mask = np.isin(rendering.geom, rig.geoms)
            depth = np.where(rendering.depth < FAR_M, rendering.depth, 0)
            images.append(soften_skin(rendering.image, rendering.depth, mask))
            joints = (rig.landmarks() - eye) @ turn
            rows.append({"depth": encode_depth(depth), "mask": mask, "truth_joints": joints.astype(np.float32)})
    arrays = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    arrays["truth_world_from_camera"] = (invert_rigid(paths[0]) @ paths).astype(np.float32)
    sidecar = {
        "instruction": "move the hand",
        "embodiment": "human-hand",
        "effector": "hand",
        "side": settings.side,
        "intrinsics": _view(paths[0], fovy).intrinsics(settings.width, settings.height).tolist(),
        "simulated": True,
        "seed": seed,
    }
    return images, arrays, sidecar


def write_handheld(folder: Path, name: str, seed: int, settings: HandheldSettings) -> None:
    """Makes one clip and writes it as NAME.mp4, NAME.npz, NAME.json."""
    images, arrays, sidecar = make_handheld(seed, settings)
    write_episode(folder, name, images, settings.rate_hz, arrays, {**sidecar, "group": name})


def camera_path(kind: CameraPath, rng: np.random.Generator, time_F: np.ndarray) -> np.ndarray:
    """world_from_camera f64 [F,4,4], OpenCV axes, in a room whose z points up; it looks down at the table (+y)."""
    slow, quick = _waves(rng, time_F, 6, 0.15, 0.6), _waves(rng, time_F, 6, 2.0, 5.0)
    start = np.array([rng.uniform(-0.3, 0.3), rng.uniform(-0.15, 0.15), HEIGHT_M + rng.uniform(-0.1, 0.1)])
    centre = np.tile(start, (len(time_F), 1))
    angles = np.tile([rng.uniform(-0.2, 0.2), rng.uniform(-0.65, -0.4), 0.0], (len(time_F), 1))  # yaw, pitch, roll
    if kind == "hand-held":
        centre += slow[:, :3] * rng.uniform(0.05, 0.14, 3) + quick[:, :3] * 0.002
        angles += slow[:, 3:] * rng.uniform([0.1, 0.06, 0.03], [0.25, 0.15, 0.08]) + quick[:, 3:] * 0.004
    elif kind == "walk":
        steps = 2 * np.pi * rng.uniform(1.7, 2.1) * time_F + rng.uniform(0, 2 * np.pi)
        speed, heading = rng.uniform(0.4, 0.8), rng.choice([-1.0, 1.0])
        centre[:, 0] += heading * speed * (time_F - time_F.mean())
        centre[:, 1] += 0.1 * slow[:, 1] + 0.02 * np.sin(steps / 2)
        centre[:, 2] += 0.025 * np.sin(steps) + 0.02 * slow[:, 2]
        angles += slow[:, 3:] * [0.35, 0.15, 0.05] + quick[:, 3:] * 0.004
        angles[:, 1] += 0.012 * np.sin(steps + 1.0)
        angles[:, 2] += 0.012 * np.sin(steps / 2)
    elif kind == "turn":
        angles += slow[:, 3:] * [0.5, 0.2, 0.1] + quick[:, 3:] * 0.003
    level = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # room_from_camera of a camera that looks along +y
    path = np.tile(np.eye(4), (len(time_F), 1, 1))
    path[:, :3, :3] = level @ Rotation.from_euler("YXZ", angles).as_matrix()
    path[:, :3, 3] = centre
    return path


def noisy_depth(depth_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a depth camera would measure: f32 [H,W] metres, 0 = nothing.

    Axial noise of a structured-light sensor, sigma = 1.2 mm + 1.9 mm/m^2 (z - 0.4 m)^2 (Nguyen, Izadi and Lovell,
    2012), correlated over about two pixels; nothing beyond 5 m, for 2 % of single pixels, and next to edges.
    """
    depth = depth_HW.astype(np.float32)
    spread = 0.0012 + 0.0019 * (depth - 0.4) ** 2
    noise = cv2.GaussianBlur(rng.standard_normal(depth.shape, np.float32), (5, 5), 1.0)
    measured = depth + spread * noise / noise.std()
    around = np.ones((3, 3), np.uint8)
    edge = cv2.dilate(depth, around) - cv2.erode(depth, around) > 0.05 * depth
    lost = edge | (depth > 5) | (depth <= 0) | (rng.random(depth.shape) < 0.02)
    return np.where(lost, np.float32(0), measured).astype(np.float32)


def _view(world_from_camera: np.ndarray, fovy_deg: float) -> View:
    eye, turn = world_from_camera[:3, 3], world_from_camera[:3, :3] @ OPENCV_FROM_OPENGL
    x, y, z = (float(c) for c in eye)
    target, up = eye - turn[:, 2], turn[:, 1]
    return View((x, y, z), (target[0], target[1], target[2]), fovy_deg, (up[0], up[1], up[2]))


def _waves(rng: np.random.Generator, time_F: np.ndarray, channels: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Smooth random signals f64 [F,channels], each two sines with random phases, within +-1."""
    frequency = rng.uniform(low_hz, high_hz, (channels, 2))
    phase = rng.uniform(0, 2 * np.pi, (channels, 2))
    return np.sin(2 * np.pi * frequency * time_F[:, None, None] + phase) @ np.array([0.65, 0.35])


def _hand_path(
    rng: np.random.Generator, rig: HandRig, settings: HandheldSettings, time_F: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wrist f64 [F,3], camera_from_hand f64 [F,3,3], joint angles f64 [F,J]: the back of a hand at work."""
    wave = _waves(rng, time_F, 8, 0.3, 1.0)
    distance = rng.uniform(*settings.hand_distance_m)
    yaw, pitch, roll = rng.uniform([-0.3, -0.5, -0.5], [0.3, 0.1, 0.5])
    base = Rotation.from_euler("zxy", [roll, pitch, np.pi + yaw])
    rotation = (base * Rotation.from_rotvec(wave[:, :3] * 0.2)).as_matrix()
    centre = np.array([*rng.uniform(-0.12, 0.12, 2) * distance, distance])
    palm = centre + wave[:, 3:6] * np.array([0.12, 0.08, 0.08]) * distance
    curl = np.clip(0.3 + 0.3 * wave[:, 6:7], 0, 1)
    angles = []
    for (amount,) in curl:
        named = {"mp_flexion": -0.5 * amount, "ip_flexion": -0.8 * amount, "cmc_abduction": 0.1}
        for finger in range(2, 6):
            named[f"mcp{finger}_flexion"] = 1.1 * amount
            named[f"pm{finger}_flexion"] = 1.3 * amount
            named[f"md{finger}_flexion"] = 0.7 * amount
        angles.append(rig.joints(named))
    return palm - rotation @ (PALM_CENTRE * rig.shape.scale), rotation, np.array(angles)


def _cloudy_texture(rng: np.random.Generator) -> np.ndarray:
    """A picture with the spectrum of natural ones, amplitude ~ 1/f: uint8 [S,S,3], from almost plain to rough."""
    frequency = np.hypot(np.fft.fftfreq(TEXTURE_PX)[:, None], np.fft.fftfreq(TEXTURE_PX)[None]) * TEXTURE_PX
    amplitude = np.where(frequency > 0, np.maximum(frequency, 1) ** -1.0, 0)
    wave = np.fft.ifft2(amplitude * np.exp(2j * np.pi * rng.random((TEXTURE_PX, TEXTURE_PX)))).real
    colour, contrast = random_colour(rng, 0.2, 0.8), rng.uniform(0.06, 0.4)
    share = np.tanh(rng.uniform(0.4, 1.5) * wave / wave.std())[..., None]
    return (255 * (colour * (1 + contrast * share))).clip(0, 255).astype(np.uint8)


def _room(rng: np.random.Generator, settings: HandheldSettings) -> tuple[mujoco.MjSpec, str | None]:
    """Floor, walls, a long table with things on it, and perhaps a mover; returns its body's name."""
    spec = mujoco.MjSpec()
    spec.visual.map.znear, spec.visual.map.zfar = 0.05, 20.0
    spec.stat.extent, spec.stat.center = 1.0, [0, 1, 1]
    add_camera(spec)
    add_lights(spec, rng)
    for number in range(TEXTURES):
        texture = spec.add_texture(
            name=f"cloudy{number}",
            type=mujoco.mjtTexture.mjTEXTURE_CUBE,  # each side of a box shows it whole
            width=TEXTURE_PX,
            height=6 * TEXTURE_PX,
            nchannel=3,
        )
        texture.data = np.tile(_cloudy_texture(rng), (6, 1, 1)).tobytes()
        material = spec.add_material(name=f"cloudy{number}")
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = f"cloudy{number}"
        material.specular, material.shininess = 0.05, 0.1

    def box(body: mujoco.MjsBody, size: list[float], pos: list[float], texture: int) -> None:
        kind = mujoco.mjtGeom.mjGEOM_BOX
        geom = body.add_geom(type=kind, size=size, pos=pos, contype=0, conaffinity=0, group=1)
        geom.material = f"cloudy{texture}"

    world = spec.worldbody
    box(world, [4, 4, 0.02], [0, 0, 0], 0)  # floor
    box(world, [4, 0.02, 1.5], [0, rng.uniform(1.9, 2.6), 1.5], 1)
    for side in (-3.0, 3.0):
        box(world, [0.02, 4, 1.5], [side, 0, 1.5], 2)
    box(world, [2.6, 0.4, 0.02], [0, 0.95, TABLE_M - 0.02], 3)
    for _ in range(14):
        half = rng.uniform(0.02, 0.09, 3)
        place = [rng.uniform(-2.2, 2.2), rng.uniform(0.65, 1.3), TABLE_M + half[2]]
        box(world, half.tolist(), place, int(rng.integers(TEXTURES)))
    attach_hand(spec, settings.side)
    if not settings.mover:
        return spec, None
    mover = world.add_body(name="mover", mocap=True, pos=[rng.uniform(-0.4, 0.4), 1.2, TABLE_M + 0.3])
    box(mover, [0.12, 0.08, 0.1], [0, 0, 0], 5)
    return spec, "mover"
