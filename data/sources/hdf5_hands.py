"""Hands in HDF5 files: poses of joints, brought into the frame of the camera."""

from __future__ import annotations

import h5py
import numpy as np

from data.geometry import invert_rigid
from data.sources.hdf5_file import File
from data.sources.mapping import HandsLayout
from data.sources.recording import Hands, Side, sound_poses
from data.video import Unreadable


def read_hands(file: File, group: h5py.Group, layout: HandsLayout, length: int) -> Hands:
    """Both hands of an episode of ``length`` frames. Raises Unreadable (missing, bad_shape, bad_pose)."""
    to_camera = np.eye(4)
    if (place := layout.world_from_camera) is not None:
        to_camera = invert_rigid(sound_poses(_poses(file, group, place, length), length, f"{file.path}: {place}"))
    joints: dict[Side, np.ndarray] = {}
    confidence: dict[Side, np.ndarray] = {}
    sides: tuple[tuple[Side, str], ...] = (("left", layout.left), ("right", layout.right))
    for side, word in sides:
        placed = np.empty((length, len(layout.names), 3), np.float32)
        trusted = np.empty((length, len(layout.names)), np.float32)
        told = layout.confidence is not None
        for number, joint in enumerate(layout.names):
            poses = _poses(file, group, _filled(layout.joints, word, joint), length)
            placed[:, number] = (to_camera @ poses)[:, :3, 3] * layout.unit_m
            place = _filled(layout.confidence or "", word, joint)
            if told and (told := file.find(group, place) is not None):
                trusted[:, number] = file.array(group, place).reshape(length)
        joints[side] = placed
        if told:
            confidence[side] = trusted
    return Hands(joints, layout.names, confidence, layout.order, layout.least_confidence)


def _poses(file: File, group: h5py.Group, place: str, length: int) -> np.ndarray:
    found = file.array(group, place).astype(np.float64)
    if found.shape != (length, 4, 4):
        raise Unreadable("bad_shape", f"{file.path}: {place}: {list(found.shape)}, expected [{length}, 4, 4]")
    return found


def _filled(template: str, side: str, joint: str) -> str:
    return template.replace("{side}", side).replace("{joint}", joint)
