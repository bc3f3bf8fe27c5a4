"""Errors of lifted hands against exact joints and surfaces, pooled over clips."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

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

    def add(
        self,
        joints: np.ndarray,
        truth: Truth,
        surface: HandSurface,
        side: str,
        cloud: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        """Scores estimated joints f64 [T,21,3] and a cloud: points f64 [T,N,3] and which are visible, bool [T,N]. By
        default the cloud is ``surface`` on the estimated joints."""
        true = truth.joints_T213
        self.append("depth_pct", 100 * (joints[..., 2].mean(1) / true[..., 2].mean(1) - 1))
        self.append("joints_mm", _mean_mm(joints - true))
        self.append("root_joints_mm", _mean_mm((joints - joints[:, :1]) - (true - true[:, :1])))
        self.append("step_mm", _step_error(joints, truth))
        self.append("cloud_mm", _cloud_error(cloud or _cloud(joints, surface, side), truth))

    def append(self, name: str, errors: np.ndarray) -> None:
        """Adds one clip's errors of a quantity, any shape."""
        self.values.setdefault(name, []).append(errors)

    def summary(self, intervals: bool = False) -> dict[str, Any]:
        """Median and 90th percentile of magnitudes over all frames; for depth also the median with its sign.

        intervals: also 95 % intervals of the medians, as [low, high] under NAME_ci: bootstrap over clips.
        """
        result: dict[str, Any] = {}
        for name, parts in self.values.items():
            clips = [errors.ravel()[np.isfinite(errors.ravel())] for errors in parts]
            clips = [errors for errors in clips if len(errors)]
            errors = np.concatenate(clips)
            result[f"{name}_p50"], result[f"{name}_p90"] = map(float, np.percentile(np.abs(errors), [50, 90]))
            if name == "depth_pct":
                result["depth_pct_bias"] = float(np.median(errors))
            if intervals:
                result[f"{name}_ci"] = _median_interval([np.abs(errors) for errors in clips])
        return result


def _median_interval(clips: list[np.ndarray], resamples: int = 1000) -> list[float]:
    """95 % interval of the pooled median, clips drawn with replacement. Each clip counts through 50 quantiles."""
    rng = np.random.default_rng(0)
    quantiles = np.array([np.quantile(errors, (np.arange(50) + 0.5) / 50) for errors in clips])
    chosen = rng.integers(0, len(clips), (resamples, len(clips)))
    medians = [np.median(quantiles[rows]) for rows in chosen]
    return [float(x) for x in np.percentile(medians, [2.5, 97.5])]


def _mean_mm(error_T213: np.ndarray) -> np.ndarray:
    return 1000 * np.linalg.norm(error_T213, axis=-1).mean(1)


def _step_error(joints: np.ndarray, truth: Truth) -> np.ndarray:
    """Error of each joint's displacement over as many frames as bring the true motion nearest to 20 mm."""
    first, last = _steps(truth)
    true = truth.joints_T213
    return _mean_mm((joints[last] - joints[first]) - (true[last] - true[first]))


def point_errors(points_TN3: np.ndarray, true_TN3: np.ndarray) -> np.ndarray:
    """Distance of identified points to where they are, f64 [T,N] millimetres."""
    return 1000 * np.linalg.norm(points_TN3 - true_TN3, axis=-1)


def point_step_errors(points_TN3: np.ndarray, true_TN3: np.ndarray, truth: Truth) -> np.ndarray:
    """Error of each point's displacement over 20 mm of true motion of the joints, f64 [steps,N] millimetres."""
    first, last = _steps(truth)
    return point_errors(points_TN3[last] - points_TN3[first], true_TN3[last] - true_TN3[first])


def _steps(truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows, first and last, so far apart in time that joints moved about 20 mm."""
    time = truth.time_T
    rate = float(np.median(np.diff(time)))
    neighbours = np.diff(time) < 1.5 * rate
    per_frame = np.median(np.linalg.norm(np.diff(truth.joints_T213, axis=0), axis=-1)[neighbours])
    frames = max(1, round(STEP_M / float(per_frame)))
    first = np.flatnonzero(np.abs((time[frames:] - time[:-frames]) / rate - frames) < 0.5)
    return first, first + frames


def _cloud(joints: np.ndarray, surface: HandSurface, side: str) -> tuple[np.ndarray, np.ndarray]:
    points, normals = surface.points(joints, side)
    return points, facing_camera(points, normals) & ~hidden_by_hand(points, joints, surface.scale)


def _cloud_error(cloud: tuple[np.ndarray, np.ndarray], truth: Truth) -> np.ndarray:
    """Mean distance of visible cloud points to the visible surface, both moved to their centroids, millimetres."""
    points, visible = cloud
    errors = np.full(len(points), np.nan)
    for t, seen in enumerate(truth.surface_TM3):
        seen = seen[np.isfinite(seen).all(-1)]
        shown = points[t, visible[t]]
        if len(seen) > 50 and len(shown) > 10:
            errors[t] = 1000 * KDTree(seen - seen.mean(0)).query(shown - shown.mean(0))[0].mean()
    return errors


def along_and_across(points_TN3: np.ndarray, true_TN3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signed errors in metres, across the viewing ray in two directions f64 [2,T,N] and along it [1,T,N]."""
    ray = true_TN3 / np.linalg.norm(true_TN3, axis=-1, keepdims=True)
    first = np.cross(ray, [0.0, 1.0, 0.0])
    first /= np.linalg.norm(first, axis=-1, keepdims=True)
    error = points_TN3 - true_TN3
    across = np.stack([np.sum(error * axis, -1) for axis in (first, np.cross(ray, first))])
    return across, np.sum(error * ray, -1)[None]


@dataclass
class Coverage:
    """How often errors stay within one or two sigma. Errors are those of identified points: the same spots of skin,
    on the estimated and on the true joints."""

    in_sigmas: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add(
        self,
        points_TN3: np.ndarray,
        true_TN3: np.ndarray,
        sigma_T2: np.ndarray,
        measured_T: np.ndarray,
        visible_TN: np.ndarray,
    ) -> None:
        """sigma_T2: across and along. Across is scored in its two components. visible_TN: points that were measured."""
        across, along = along_and_across(points_TN3, true_TN3)
        in_sigmas = np.abs(np.concatenate([across, along]))
        in_sigmas /= sigma_T2.T[[0, 0, 1], :, None]
        every = np.ones_like(visible_TN)
        kinds = {"visible": visible_TN, "measured": every & measured_T[:, None], "filled": every & ~measured_T[:, None]}
        for kind, chosen in kinds.items():
            for direction, parts in (("across", in_sigmas[:2, chosen]), ("along", in_sigmas[2:, chosen])):
                self.in_sigmas.setdefault(f"{kind}_{direction}", []).append(parts.ravel().astype(np.float32))

    def summary(self) -> dict[str, float]:
        """Percent of errors within one sigma, and within two under NAME_2; only where there are frames."""
        pooled = {name: np.concatenate(parts) for name, parts in self.in_sigmas.items()}
        inside = {name: 100 * float((part <= 1).mean()) for name, part in pooled.items() if len(part)}
        twice = {f"{name}_2": 100 * float((part <= 2).mean()) for name, part in pooled.items() if len(part)}
        return {name: round(share, 1) for name, share in (inside | twice).items()}
