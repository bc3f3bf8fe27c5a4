"""The human-hand twin of a recorded robot motion.

A visual overlay: an invisible gripper performed the motion, the hand is posed over it afterwards. It is never real
human data, and it carries no actions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from data.simulation.film import Episode, Film
from data.simulation.hand import INDEX_TIP, THUMB_TIP, HandRig, random_hand_shape
from data.simulation.metaworld import CONTROL_HZ, FRAME_HZ, Recording, Snapshot
from data.simulation.pinch import pinch_angles
from data.simulation.scene import TaskScene, random_look

LEAN = np.deg2rad(40)  # of the forearm, from where the gripper's arm would be; with 60 some palms face away


@dataclass(frozen=True)
class Manner:
    """How one person would do it: tilt of the hand from the gripper's, where it pinches, and how fast."""

    tilt_33: np.ndarray
    offset_3: np.ndarray
    pace: float
    sway: float


def random_manner(rng: np.random.Generator) -> Manner:
    """Tilt within some 20 degrees, pinch point within 6 mm, pace 0.8 to 1.25 with a slow variation."""
    tilt = Rotation.from_rotvec(rng.uniform(-0.35, 0.35, 3)).as_matrix()
    return Manner(tilt, rng.uniform(-0.006, 0.006, 3), float(rng.uniform(0.8, 1.25)), float(rng.uniform(-0.15, 0.15)))


def source_times(duration_s: float, manner: Manner) -> np.ndarray:
    """Time in the recording, seconds, that each 20 Hz frame of the twin shows: strictly increasing, from 0."""
    frames = max(int(duration_s / manner.pace * FRAME_HZ), 2)
    progress = np.arange(frames) / FRAME_HZ * manner.pace / duration_s
    # d/dp of the warp is 1 + sway cos(2 pi p) > 0, so time never runs backwards.
    return duration_s * (progress + manner.sway / (2 * np.pi) * np.sin(2 * np.pi * progress))


def between(snapshots: list[Snapshot], time_s: float) -> Snapshot:
    """The state at any time of a recording, linear between control steps (12.5 ms, so rotations hardly bend)."""
    position = min(max(time_s * CONTROL_HZ, 0.0), len(snapshots) - 1.000001)
    first = int(position)
    weight = position - first
    a, b = snapshots[first], snapshots[first + 1]

    def mix(x: Any, y: Any) -> Any:
        return (1 - weight) * x + weight * y

    def direction(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        mixed = mix(x, y)
        return mixed / np.linalg.norm(mixed)

    return Snapshot(
        geom_position=mix(a.geom_position, b.geom_position),
        geom_rotation=mix(a.geom_rotation, b.geom_rotation),
        tcp=mix(a.tcp, b.tcp),
        jaw_axis=direction(a.jaw_axis, b.jaw_axis),
        approach=direction(a.approach, b.approach),
        opening=mix(a.opening, b.opening),
        goal=a.goal,
    )


def pose_hand(rig: HandRig, state: Snapshot, manner: Manner, jaw_sign: float) -> None:
    """Pinch where the gripper grips: thumb and index pads along the jaw axis, their middle at the tool centre point.

    jaw_sign: +1 puts the thumb on the right finger's side, -1 on the left's.
    """
    angles = pinch_angles(rig, state.opening)
    rig.pose(angles, np.zeros(3), np.eye(3))
    tips = rig.landmarks()[[THUMB_TIP, INDEX_TIP]]
    middle = tips.mean(axis=0)
    hand_axes = _frame(tips[1] - tips[0], middle)
    world_axes = _frame(jaw_sign * state.jaw_axis, state.approach)
    rotation = manner.tilt_33 @ world_axes @ hand_axes.T
    rig.pose(angles, state.tcp + manner.offset_3 - rotation @ middle, rotation)


def stance(rig: HandRig, state: Snapshot, manner: Manner, eye: np.ndarray) -> tuple[Manner, float]:
    """The manner with the forearm leaning, and the jaw sign, such that the forearm points away from the camera most: a
    person does not stand between hand and camera."""

    def towards_camera(one: tuple[Manner, float]) -> float:
        pose_hand(rig, state, *one)
        return float(rig.forearm_direction() @ (eye - state.tcp))

    def leaning(angle: float) -> Manner:
        turn = Rotation.from_rotvec(angle * state.jaw_axis).as_matrix()
        return replace(manner, tilt_33=turn @ manner.tilt_33)

    return min(((leaning(lean), side) for lean in (-LEAN, LEAN) for side in (1.0, -1.0)), key=towards_camera)


def _frame(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Right-handed orthonormal axes as columns: along ``first``, then ``second`` made perpendicular to it."""
    x = first / np.linalg.norm(first)
    y = second - x * (x @ second)
    y /= np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)], axis=1)


def twin_episode(scene: TaskScene, recording: Recording, rng: np.random.Generator, camera_jitter_m: float) -> Episode:
    """The same motion shown by a simulated human hand, with its own size, skin, tilt, timing, camera and light.

    ``opening`` is the hand's own thumb-index gap. Truth: source times, pinch point, landmarks, and the exact surface.
    """
    rig = scene.hand
    if rig is None:
        raise ValueError("twin_episode: the scene was made without a hand; give TaskScene a hand_side")
    film = Film(scene, random_look(rng, camera_jitter_m))
    rig.reshape(random_hand_shape(rng, rig.shape.side))
    manner, jaw_sign = stance(rig, recording.snapshots[0], random_manner(rng), film.world_from_camera[:3, 3])
    for time_s in source_times(recording.frames / FRAME_HZ, manner):
        state = between(recording.snapshots, float(time_s))
        pose_hand(rig, state, manner, jaw_sign)
        scene.load(state)
        landmarks = rig.landmarks()
        capsules, ellipsoids = rig.surface(film.camera_from_world)
        film.shoot(
            landmarks[[THUMB_TIP, INDEX_TIP]].mean(axis=0),
            opening=np.asarray(rig.pinch_gap(), np.float32),
            truth_source_time=np.asarray(time_s, np.float32),
            truth_joints=film.in_camera(landmarks),
            truth_capsules=capsules.astype(np.float32),
            truth_ellipsoids=ellipsoids.astype(np.float32),
        )
    return film.episode(recording, "human-hand", side=rig.shape.side)
