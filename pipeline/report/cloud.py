"""Moving point clouds in the few bytes a web page can carry: thinned, then quantised to 16 bits.

One step of the grid is the cloud's extent / 65 000, that is 15 micrometres for a scene of one metre.
"""

from __future__ import annotations

from typing import Any

import numpy as np

MAX_FRAMES = 240
MAX_POINT_FRAMES = 60_000
_LEVELS = 65_000
_MISSING = -32_768


def pack_cloud(
    points_TN3: np.ndarray, visible_TN: np.ndarray | None, fps: float, predicted_TM3: np.ndarray | None
) -> tuple[dict[str, Any], bytes]:
    """Thin and quantise a moving cloud for the report's viewer.

    points_TN3: metres; a point with a value that is not finite is not drawn in that frame. visible_TN: bool or None
    (all measured). predicted_TM3: metres, an optional second cloud over the same frames, or None.

    Returns what goes into section.json and the bytes of the cloud file: int16 little-endian points [T,N,3], then
    predicted [T,M,3], then uint8 visible [T,N]. Metres = low + (value + 32500) * step_m; -32768 means missing. Raises
    ValueError on shapes that do not fit together.
    """
    points, visible, predicted = _checked(points_TN3, visible_TN, fps, predicted_TM3)
    frames, count = points.shape[:2]
    frame_stride = -(-frames // MAX_FRAMES)
    points, visible, predicted = points[::frame_stride], visible[::frame_stride], predicted[::frame_stride]
    point_stride = -(-len(points) * (count + predicted.shape[1]) // MAX_POINT_FRAMES)
    points, visible, predicted = points[:, ::point_stride], visible[:, ::point_stride], predicted[:, ::point_stride]

    everything = np.concatenate([points.reshape(-1, 3), predicted.reshape(-1, 3)])
    everything = everything[np.isfinite(everything).all(-1)]
    if not len(everything):
        everything = np.zeros((1, 3))
    low, high = everything.min(0), everything.max(0)
    step = max(float((high - low).max()) / _LEVELS, 1e-9)
    # A single stray point must not shrink the view: it is set by the bulk of the points.
    box_low, box_high = np.percentile(everything, [0.5, 99.5], axis=0)
    spec: dict[str, Any] = {
        "frames": len(points),
        "points": points.shape[1],
        "predicted": predicted.shape[1],
        "fps": float(fps) / frame_stride,
        "low": [_short(v) for v in low],
        "step_m": step,
        "box": [[_short(v) for v in box_low], [_short(v) for v in box_high]],
    }
    thinned = []
    if frame_stride > 1:
        thinned.append(f"{len(points)} of {frames} frames")
    if point_stride > 1:
        thinned.append(f"{points.shape[1]} of {count} points")
    if thinned:
        spec["thinned"] = "shown: " + ", ".join(thinned)
    low = np.asarray(spec["low"])
    data = _quantise(points, low, step) + _quantise(predicted, low, step) + visible.astype(np.uint8).tobytes()
    return spec, data


def cloud_bytes(spec: dict[str, Any]) -> int:
    """The length a cloud file with this description must have."""
    frames, points, predicted = int(spec["frames"]), int(spec["points"]), int(spec["predicted"])
    return frames * (points * 7 + predicted * 6)


def _checked(
    points_TN3: Any, visible_TN: Any, fps: float, predicted_TM3: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    points = np.asarray(points_TN3, np.float64)
    if points.ndim != 3 or points.shape[2] != 3 or 0 in points.shape:
        raise ValueError(f"points_TN3 has shape {list(points.shape)}; expected [frames, points, 3], none of them 0")
    visible = np.ones(points.shape[:2], bool) if visible_TN is None else np.asarray(visible_TN, bool)
    if visible.shape != points.shape[:2]:
        raise ValueError(f"visible_TN has shape {list(visible.shape)}; the points need {list(points.shape[:2])}")
    predicted = np.zeros((len(points), 0, 3)) if predicted_TM3 is None else np.asarray(predicted_TM3, np.float64)
    if predicted.ndim != 3 or predicted.shape[2] != 3 or len(predicted) != len(points):
        raise ValueError(f"predicted_TM3 has shape {list(predicted.shape)}; expected [{len(points)}, points, 3]")
    if not (np.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps}; expected frames per second, more than 0")
    return points, visible, predicted


def _quantise(points: np.ndarray, low: np.ndarray, step: float) -> bytes:
    missing = np.logical_not(np.isfinite(points).all(axis=-1))
    level = np.rint((np.where(np.expand_dims(missing, -1), low, points) - low) / step) - _LEVELS / 2
    level[missing] = _MISSING
    return np.clip(level, _MISSING, 32_767).astype("<i2").tobytes()


def _short(value: float) -> float:
    return float(f"{value:.7g}")
