"""What of many depth pictures stays fixed in a moving frame: its surface, with normals and colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from extract.effector import Camera

VOXEL_M = 0.003
SAME_M = 0.004  # along the ray: the surface is where it was expected
THROUGH_M = 0.008  # further away: there is nothing where it was expected
OFTEN = 0.12  # share of the frames that must have shown a voxel
FIXED = 0.85  # share of the frames which could have shown it
NORMAL_M = 0.008  # neighbourhood that a normal is fitted to
FLAT = 0.12  # thickness to width of it; more is an edge, or no surface


@dataclass(frozen=True)
class View:
    """One frame, for building. cloud_P3: f64 metres, effector frame, within reach; colour_P3: u8; depth: f32 [H,W]."""

    cloud_P3: np.ndarray
    colour_P3: np.ndarray
    depth: np.ndarray
    camera: Camera
    camera_from_effector_44: np.ndarray
    opening: float


@dataclass(frozen=True)
class Surface:
    """points_M3, normals_M3 (unit, towards the camera), colours_M3: f64."""

    points_M3: np.ndarray
    normals_M3: np.ndarray
    colours_M3: np.ndarray


def fixed_surface(views: Sequence[View], shift_T3: np.ndarray, fixed: float = FIXED) -> Surface:
    """The surface that stands still in the effector frame moved by ``shift_T3`` (metres, one shift for each view).

    A voxel belongs to it when often seen, and when hardly any view shows what is behind it: things that are merely
    passed by, and parts that move otherwise, are looked through sooner or later. fixed: share of the views that must
    see a place, of those that could.
    """
    keys, sums, counts, views_of = [], [], [], []
    for number, (view, shift) in enumerate(zip(views, shift_T3, strict=True)):
        cloud = view.cloud_P3 - shift
        cells = np.floor(cloud / VOXEL_M).astype(np.int64) + 4096
        key = (cells[:, 0] << 26) | (cells[:, 1] << 13) | cells[:, 2]
        unique, inverse = np.unique(key, return_inverse=True)
        values = np.concatenate([cloud, view.colour_P3.astype(float)], 1)
        total = np.stack([np.bincount(inverse, column, len(unique)) for column in values.T], -1)
        keys.append(unique)
        sums.append(total)
        counts.append(np.bincount(inverse, minlength=len(unique)))
        views_of.append(np.full(len(unique), number))
    unique, inverse, shown = np.unique(np.concatenate(keys), return_inverse=True, return_counts=True)
    total = np.concatenate(sums)
    number_M = np.bincount(inverse, np.concatenate(counts), len(unique))
    mean_M6 = np.stack([np.bincount(inverse, column, len(unique)) for column in total.T], -1) / number_M[:, None]
    often = shown >= max(3, OFTEN * len(views))
    points, colours = mean_M6[often, :3], mean_M6[often, 3:]
    if len(points) < 4:
        return Surface(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3)))
    kept = _share_seen(points, views, shift_T3) >= fixed
    points, colours = points[kept], colours[kept]
    normals, flat = normals_of(points, _towards_camera(views))
    return Surface(points[flat], normals[flat], colours[flat])


def normals_of(points_M3: np.ndarray, towards_3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit normals f64 [M,3] on the side of ``towards_3``, and bool [M] where the neighbourhood is flat enough."""
    normals, flat = np.zeros_like(points_M3), np.zeros(len(points_M3), bool)
    if len(points_M3) < 4:
        return normals, flat
    tree = KDTree(points_M3)
    for row, neighbours in enumerate(tree.query_ball_point(points_M3, NORMAL_M)):
        if len(neighbours) < 6:
            continue
        near = points_M3[neighbours] - points_M3[neighbours].mean(0)
        values, axes = np.linalg.eigh(near.T @ near)
        normals[row] = axes[:, 0] * (1.0 if axes[:, 0] @ towards_3 >= 0 else -1.0)
        flat[row] = values[0] < FLAT**2 * values[1]
    return normals, flat


def _share_seen(points_M3: np.ndarray, views: Sequence[View], shift_T3: np.ndarray) -> np.ndarray:
    """f64 [M]: of the views that see the place or through it, the share that sees it. Covered views do not count."""
    seen, through = np.zeros(len(points_M3)), np.zeros(len(points_M3))
    for view, shift in zip(views, shift_T3, strict=True):
        pose = view.camera_from_effector_44
        placed = (points_M3 + shift) @ pose[:3, :3].T + pose[:3, 3]
        behind = measured(view.depth, view.camera, placed) - placed[:, 2]
        seen += np.abs(behind) < SAME_M
        through += behind > THROUGH_M
    return seen / np.maximum(seen + through, 1)


def measured(depth_HW: np.ndarray, camera: Camera, points_N3: np.ndarray) -> np.ndarray:
    """f64 [N] metres: the depth where points (camera frame) project to; NaN outside the picture or not measured."""
    return measured_at(depth_HW, camera, points_N3)[0]


def measured_at(
    depth_HW: np.ndarray, camera: Camera, points_N3: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``measured``, and the rows and columns int [N] of the pixels; 0, 0 outside the picture."""
    pixels_N2 = np.floor(camera.project(points_N3))
    height, width = depth_HW.shape
    inside_N = (pixels_N2 >= 0).all(1) & (pixels_N2 < (width, height)).all(1) & (points_N3[:, 2] > 0)
    columns, rows = np.where(inside_N[:, None], pixels_N2, 0).astype(np.int64).T
    depth_N = depth_HW[rows, columns].astype(np.float64)
    return np.where(inside_N & (depth_N > 0), depth_N, np.nan), rows, columns


def _towards_camera(views: Sequence[View]) -> np.ndarray:
    """f64 [3] effector frame: where the cameras are, on average."""
    poses = np.stack([view.camera_from_effector_44 for view in views])
    eyes = -np.einsum("tji,tj->ti", poses[:, :3, :3], poses[:, :3, 3])
    return eyes.mean(0)
