"""Errors of lifted hands against exact joints and surfaces, pooled over clips."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import KDTree

from extract.hand.surface import HandSurface, facing_camera, hidden_by_hand

STEP_M = 0.020  # displacement errors are for this much true motion


@dataclass
class Truth:
    """One clip's measured frames. joints_T213 and surface_TM3 (visible, NaN-padded): metres, camera frame."""

    time_T: np.ndarray
    joints_T213: np.ndarray
    surface_TM3: np.ndarray


@dataclass
class Scores:
    """Errors of one estimator, one entry per clip and quantity, each an array over frames."""

    values: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add(self, joints: np.ndarray, truth: Truth, surface: HandSurface, side: str) -> None:
        """Scores estimated joints f64 [T,21,3] and the visible cloud on them."""
        true = truth.joints_T213
        self._append("depth_pct", 100 * (joints[..., 2].mean(1) / true[..., 2].mean(1) - 1))
        self._append("joints_mm", _mean_mm(joints - true))
        self._append("root_joints_mm", _mean_mm((joints - joints[:, :1]) - (true - true[:, :1])))
        self._append("step_mm", _step_error(joints, truth))
        self._append("cloud_mm", _cloud_error(joints, truth, surface, side))

    def _append(self, name: str, errors: np.ndarray) -> None:
        self.values.setdefault(name, []).append(errors)

    def summary(self) -> dict[str, float]:
        """Median and 90th percentile of magnitudes over all frames; for depth also the median with its sign."""
        result: dict[str, float] = {}
        for name, parts in self.values.items():
            errors = np.concatenate(parts)
            errors = errors[np.isfinite(errors)]
            result[f"{name}_p50"], result[f"{name}_p90"] = map(float, np.percentile(np.abs(errors), [50, 90]))
            if name == "depth_pct":
                result["depth_pct_bias"] = float(np.median(errors))
        return result


def _mean_mm(error_T213: np.ndarray) -> np.ndarray:
    return 1000 * np.linalg.norm(error_T213, axis=-1).mean(1)


def _step_error(joints: np.ndarray, truth: Truth) -> np.ndarray:
    """Error of each joint's displacement over as many frames as bring the true motion nearest to 20 mm."""
    time, true = truth.time_T, truth.joints_T213
    rate = float(np.median(np.diff(time)))
    neighbours = np.diff(time) < 1.5 * rate
    per_frame = np.median(np.linalg.norm(np.diff(true, axis=0), axis=-1)[neighbours])
    frames = max(1, round(STEP_M / float(per_frame)))
    whole = np.abs((time[frames:] - time[:-frames]) / rate - frames) < 0.5
    return _mean_mm(((joints[frames:] - joints[:-frames]) - (true[frames:] - true[:-frames]))[whole])


def _cloud_error(joints: np.ndarray, truth: Truth, surface: HandSurface, side: str) -> np.ndarray:
    """Mean distance of visible cloud points to the visible surface, both moved to their centroids, millimetres."""
    points, normals = surface.points(joints, side)
    visible = facing_camera(points, normals) & ~hidden_by_hand(points, joints, surface.scale)
    errors = np.full(len(joints), np.nan)
    for t, seen in enumerate(truth.surface_TM3):
        seen = seen[np.isfinite(seen).all(-1)]
        cloud = points[t, visible[t]]
        if len(seen) > 50 and len(cloud) > 10:
            errors[t] = 1000 * KDTree(seen - seen.mean(0)).query(cloud - cloud.mean(0))[0].mean()
    return errors


@dataclass
class Coverage:
    """How often errors stay within one sigma. Errors are those of identified points: the same spots of skin, on the
    estimated and on the true joints."""

    inside: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add(self, points_TN3: np.ndarray, true_TN3: np.ndarray, sigma_T2: np.ndarray, measured_T: np.ndarray) -> None:
        """sigma_T2: across and along. Across is scored in its two components."""
        ray = true_TN3 / np.linalg.norm(true_TN3, axis=-1, keepdims=True)
        first = np.cross(ray, [0.0, 1.0, 0.0])
        first /= np.linalg.norm(first, axis=-1, keepdims=True)
        error = points_TN3 - true_TN3
        across = [np.abs(np.sum(error * axis, -1)) <= sigma_T2[:, :1] for axis in (first, np.cross(ray, first))]
        along = np.abs(np.sum(error * ray, -1)) <= sigma_T2[:, 1:]
        for name, rows in (("measured", measured_T), ("filled", ~measured_T)):
            self.inside.setdefault(f"{name}_across", []).append(np.stack(across)[:, rows].ravel())
            self.inside.setdefault(f"{name}_along", []).append(along[rows].ravel())

    def summary(self) -> dict[str, float]:
        """Percent of errors within one sigma, and how many frames' worth of filled gaps that rests on."""
        pooled = {name: np.concatenate(parts) for name, parts in self.inside.items()}
        return {name: round(100 * float(part.mean()), 1) for name, part in pooled.items() if len(part)}
