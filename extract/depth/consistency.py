"""Learned depth made consistent over a clip: no jumps between frames, and one scale fitted to what is known.

A network looks at each frame alone, so its output has a scale (and, for disparity, a shift) of its own in every frame.
Seen as motion, a jump of 5 % at half a metre is 25 mm. With v what the network says about a pixel,

    metric networks     v = log z,    v_t = g_t + R          one offset per frame
    disparity networks  v ~ 1/z,      v_t = a_t R + b_t      scale and shift per frame

where R is what the frames agree on: their median at pixels that show the same thing. A camera that stands still is
tied to the median of the whole clip, so nothing drifts. One that moves is tied to its neighbours, and the slow part of
what that took out is put back, since its own motion changes depth too: only jumps are gone. Then one scale (metric), or
one scale and shift (disparity), is fitted to all anchors of the clip at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from data.episode import Frame
from extract.steps import DepthAnchor

Kind = Literal["metric", "disparity"]

GRID = (32, 24)  # columns and rows at which frames are compared
SAME_GREY = 10.0  # a pixel shows the same thing while its colour stays within so many grey levels
STILL_SHARE = 0.5  # the camera stands still when so many pixels show the same thing in most frames
NEIGHBOURS = 4  # frames to either side that a moving camera's frame is compared with
SLOW_FRAMES = 6.0  # one sigma of the frames over which a moving camera's change of depth is a straight line
ROUNDS = 5
PATCHES = 30  # a network's errors are alike in neighbouring pixels: a frame has about so many independent ones
MIN_PIXELS = 24  # fewer comparable pixels say nothing about a frame
MIN_ANCHORS = 4
SHIFT_PRIOR = 0.2  # one sigma of a disparity network's shift, relative to its disparity there: far away is near zero
FARTHEST_M = 100.0  # beyond it, depth from a disparity is noise
GAUSS = 1.4826  # from median absolute deviation to standard deviation


@dataclass(frozen=True)
class Corrections:
    """What is to be done to each frame's values: (v - shift_T) / scale_T is consistent.

    noise: relative scatter of single values over time that is left; NaN with fewer than three frames.
    still: the camera stood still.
    """

    scale_T: np.ndarray
    shift_T: np.ndarray
    noise: float
    still: bool


@dataclass(frozen=True)
class Fit:
    """From consistent values to metres: exp(v + shift), or 1 / (scale v + shift). sigma: relative, of single values."""

    kind: Kind
    scale: float
    shift: float
    sigma: float
    anchored: Literal["metric", "assumed"] | None

    def depth(self, values: np.ndarray) -> np.ndarray:
        """f32 metres along z, 0 = not known."""
        if self.kind == "metric":
            metres = np.exp(values + self.shift)
        else:
            inverse = self.scale * values + self.shift
            metres = np.where(inverse > 1 / FARTHEST_M, 1 / np.maximum(inverse, 1 / FARTHEST_M), 0)
        return np.where(np.isfinite(metres) & (metres < FARTHEST_M), metres, 0).astype(np.float32)


def to_values(output_HW: np.ndarray, kind: Kind) -> np.ndarray:
    """f32: a network's depth or disparity as v; NaN where it says nothing."""
    if kind == "disparity":
        return np.where(np.isfinite(output_HW), output_HW, np.nan).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(output_HW > 0, np.log(output_HW), np.nan).astype(np.float32)


def consistent_frames(
    values: Sequence[np.ndarray], frames: Sequence[Frame], kind: Kind, effectors: Sequence[np.ndarray | None]
) -> Corrections:
    """The scale and shift of every frame against the others, by what does not change.

    values: T arrays [h,w] of v. effectors: box x0 y0 x1 y1 of what moves by itself, in pixels of the frame, where it is
    known. The mean scale is 1 and the middle shift 0, so that the clip as a whole stays as the network saw it.
    """
    count = len(values)
    scale_T, shift_T = np.ones(count), np.zeros(count)
    if count < 3:
        return Corrections(scale_T, shift_T, float("nan"), True)
    v_TP = np.stack([_sampled(value) for value in values])
    images = [cv2.resize(frame.image, GRID, interpolation=cv2.INTER_AREA).reshape(-1, 3) for frame in frames]
    colour_TPC = np.stack(images).astype(np.float32)
    same_TP = np.abs(colour_TPC - np.median(colour_TPC, 0)).max(-1) < SAME_GREY
    still = bool((same_TP.mean(0) > 0.8).mean() > STILL_SHARE)
    usable_TP = np.isfinite(v_TP) & (v_TP > 0 if kind == "disparity" else True) & (same_TP if still else True)
    usable_TP &= ~np.stack([_covered(frame, box) for frame, box in zip(frames, effectors, strict=True)])
    if kind == "disparity":
        scale_T = np.nan_to_num(_middles(v_TP, usable_TP), nan=1.0)
        scale_T /= np.median(scale_T)
    else:
        shift_T = np.nan_to_num(_middles(v_TP, usable_TP))
    agreed_TP, steady_P = np.zeros_like(v_TP), np.ones(v_TP.shape[1])
    for _ in range(ROUNDS):
        consistent_TP = np.where(usable_TP, (v_TP - shift_T[:, None]) / scale_T[:, None], np.nan)
        agreed_TP = _agreed(consistent_TP, still)
        off_TP = consistent_TP - agreed_TP
        if still:  # what looks the same and changes its depth is no background: a hand that comes closer
            scatter_P = GAUSS * _known_median(np.abs(off_TP)[None])[0]
            usual = np.nanmedian(scatter_P) if np.isfinite(scatter_P).any() else 1.0
            steady_P = 1 / (1 + (np.nan_to_num(scatter_P, nan=usual) / max(usual, 1e-9)) ** 4)
        comparable_TP = usable_TP & np.isfinite(agreed_TP)
        told_T = comparable_TP.sum(1) >= MIN_PIXELS
        with np.errstate(invalid="ignore"):
            a_T, b_T = _onto(v_TP, agreed_TP, comparable_TP, steady_P, kind)
        scale_T, shift_T = np.where(told_T, a_T, scale_T), np.where(told_T, b_T, shift_T)
        if kind == "metric":
            shift_T -= np.median(shift_T)
        else:
            scale_T /= np.exp(np.log(scale_T).mean())
            shift_T -= scale_T * np.median(shift_T / scale_T)
    off_TP = (v_TP - shift_T[:, None]) / scale_T[:, None] - agreed_TP
    if not still:
        slow_scale_T, slow_shift_T = np.exp(_slow(np.log(scale_T))), _slow(shift_T)
        shift_T = shift_T - scale_T * slow_shift_T / slow_scale_T
        scale_T = scale_T / slow_scale_T
    relative_TP = off_TP if kind == "metric" else off_TP / np.where(agreed_TP > 0, agreed_TP, np.nan)
    return Corrections(scale_T, shift_T, _mad(relative_TP[usable_TP & np.isfinite(relative_TP)]), still)


def fit_anchors(
    values: Sequence[np.ndarray],
    corrections: Corrections,
    anchors: Sequence[DepthAnchor],
    image_size: tuple[int, int],
    kind: Kind,
    untied_sigma: float,
) -> Fit:
    """One scale (and shift) for the clip, by a robust fit to all anchors; metric ones, if any, and no others.

    image_size: (width, height) in which the anchors' pixels are. untied_sigma: relative error without usable anchors.
    sigma is the scatter of single values about the anchors, and on top of it what all anchors may have in common: an
    assumed size is off by the same factor in every frame, a sensor's noise is not.
    """
    metric = [anchor for anchor in anchors if anchor.scale == "metric"]
    used = metric or list(anchors)
    value_K, depth_K, sigma_K, frame_K = _at_anchors(values, corrections, used, image_size)
    if kind == "disparity":
        ok = value_K > 0
        value_K, depth_K, sigma_K, frame_K = value_K[ok], depth_K[ok], sigma_K[ok], frame_K[ok]
    if len(value_K) < MIN_ANCHORS:
        return Fit(kind, *_untied(values, corrections, kind), untied_sigma, None)
    # Points of one frame share its error: a frame counts once, however many points it has.
    weight_K = 1 / np.bincount(frame_K, minlength=len(values))[frame_K] / sigma_K**2
    if kind == "metric":
        scale, shift = 1.0, _middle(np.log(depth_K) - value_K, weight_K)
        off_K = np.log(depth_K) - value_K - shift
    else:
        scale, shift = _disparity_fit(value_K, depth_K, frame_K, float(np.median(sigma_K)) if metric else None)
        off_K = (scale * value_K + shift) * depth_K - 1
    scatter, known = GAUSS * float(np.median(np.abs(off_K))), float(np.median(sigma_K))
    frames_used = len(np.unique(frame_K))
    if metric:
        own = np.sqrt(max(scatter**2 - known**2, (scatter / 3) ** 2))
        common = scatter / np.sqrt(frames_used)
    else:
        own, common = scatter, known
    own = max(own, np.nan_to_num(corrections.noise))  # a few anchors may agree by chance
    return Fit(kind, scale, float(shift), float(np.hypot(own, common)), "metric" if metric else "assumed")


def _sampled(value_HW: np.ndarray) -> np.ndarray:
    """[P]: the value at the middle of each cell of the grid."""
    height, width = value_HW.shape
    rows = ((np.arange(GRID[1]) + 0.5) * height / GRID[1]).astype(int)
    columns = ((np.arange(GRID[0]) + 0.5) * width / GRID[0]).astype(int)
    return value_HW[rows[:, None], columns[None]].ravel().astype(np.float64)


def _agreed(consistent_TP: np.ndarray, still: bool) -> np.ndarray:
    """[T,P]: the median over the clip, or over the neighbours of each frame (without itself)."""
    if still:
        return np.broadcast_to(_known_median(consistent_TP[None])[0], consistent_TP.shape)
    around = np.pad(consistent_TP, ((NEIGHBOURS, NEIGHBOURS), (0, 0)), constant_values=np.nan)
    windows_TWP = np.stack([around[t : t + 2 * NEIGHBOURS + 1] for t in range(len(consistent_TP))])
    return _known_median(np.delete(windows_TWP, NEIGHBOURS, 1))


def _slow(path_T: np.ndarray) -> np.ndarray:
    """[T]: the path without its jumps, by a robust straight line through the frames around each."""
    offset_T = np.arange(len(path_T), dtype=float)
    slow_T = np.empty(len(path_T))
    for t in range(len(path_T)):
        x = offset_T - t
        near = np.exp(-0.5 * (x / SLOW_FRAMES) ** 2)
        weight, line = near, np.zeros(2)
        for _ in range(ROUNDS):
            line = np.polyfit(x, path_T, 1, w=np.sqrt(weight))
            off = np.abs(path_T - np.polyval(line, x))
            limit = max(1.345 * GAUSS * float(np.median(off[near > 0.1])), 1e-9)
            weight = near * np.minimum(1.0, limit / np.maximum(off, 1e-12))
        slow_T[t] = line[1]
    return slow_T


def _known_median(values_BNP: np.ndarray) -> np.ndarray:
    """[B,P]: the median over N of what is not NaN; NaN where nothing is."""
    ordered = np.sort(values_BNP, 1)  # NaN goes last
    count_BP = np.isfinite(values_BNP).sum(1)
    low, high = np.maximum(count_BP - 1, 0) // 2, count_BP // 2
    high = np.minimum(high, values_BNP.shape[1] - 1)
    pick = [np.take_along_axis(ordered, index[:, None], 1)[:, 0] for index in (low, high)]
    return np.where(count_BP > 0, (pick[0] + np.where(count_BP > 0, pick[1], 0)) / 2, np.nan)


def _covered(frame: Frame, box_4: np.ndarray | None) -> np.ndarray:
    """bool [P]: cells of the grid that the effector covers, by its mask or its box grown by a quarter."""
    height, width = frame.image.shape[:2]
    covered = np.zeros(GRID[::-1], bool)
    if frame.mask is not None:
        covered |= cv2.resize(frame.mask.astype(np.float32), GRID, interpolation=cv2.INTER_AREA) > 0
    if box_4 is not None:
        pad = (box_4[2:] - box_4[:2]) / 4
        per_pixel = np.array([GRID[0] / width, GRID[1] / height])
        x0, y0 = np.clip(np.floor((box_4[:2] - pad) * per_pixel), 0, GRID).astype(int)
        x1, y1 = np.clip(np.ceil((box_4[2:] + pad) * per_pixel), 0, GRID).astype(int)
        covered[y0:y1, x0:x1] = True
    return covered.ravel()


def _middles(v_TP: np.ndarray, usable_TP: np.ndarray) -> np.ndarray:
    """[T]: the median of each frame's usable values, NaN without any."""
    return _known_median(np.where(usable_TP, v_TP, np.nan).T[None])[0]


def _onto(
    v_TP: np.ndarray, agreed_TP: np.ndarray, usable_TP: np.ndarray, steady_P: np.ndarray, kind: Kind
) -> tuple[np.ndarray, np.ndarray]:
    """(a, b) of v = a R + b in every frame, robust. Metric: a = 1. Disparity: b near zero unless the picture tells."""
    v_TP, agreed_TP = np.where(usable_TP, v_TP, 0.0), np.where(usable_TP, agreed_TP, 0.0)
    prior_T = SHIFT_PRIOR * np.maximum(_middles(agreed_TP, usable_TP), 1e-12) if kind == "disparity" else None
    a_T, b_T = np.ones(len(v_TP)), _middles(v_TP - agreed_TP, usable_TP)
    if kind == "disparity":
        a_T, b_T = _middles(v_TP / np.where(agreed_TP > 0, agreed_TP, np.nan), usable_TP & (agreed_TP > 0)), 0 * b_T
    for _ in range(ROUNDS):
        off_TP = np.abs(v_TP - a_T[:, None] * agreed_TP - b_T[:, None])
        noise_T = np.maximum(GAUSS * _middles(off_TP, usable_TP), 1e-9)
        weight_TP = usable_TP * steady_P * np.minimum(1.0, 1.345 * noise_T[:, None] / np.maximum(off_TP, 1e-12))
        total_T = np.maximum(weight_TP.sum(1), 1e-12)
        if prior_T is None:
            b_T = (weight_TP * (v_TP - agreed_TP)).sum(1) / total_T
            continue
        weight_TP = weight_TP * (PATCHES / total_T / noise_T**2)[:, None]
        rr, r, n = (weight_TP * agreed_TP**2).sum(1), (weight_TP * agreed_TP).sum(1), weight_TP.sum(1) + prior_T**-2
        rv, v = (weight_TP * agreed_TP * v_TP).sum(1), (weight_TP * v_TP).sum(1)
        determinant = np.maximum(rr * n - r**2, 1e-300)
        a_T, b_T = (rv * n - r * v) / determinant, (rr * v - r * rv) / determinant
    return np.clip(a_T, 0.1, 10.0), b_T


def _at_anchors(
    values: Sequence[np.ndarray], corrections: Corrections, anchors: Sequence[DepthAnchor], image_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Consistent value, depth (m), relative sigma and frame of every anchor point in the picture; [K] each."""
    columns: list[tuple[np.ndarray, ...]] = []
    for anchor in anchors:
        value_HW = values[anchor.slot]
        height, width = value_HW.shape
        at_K2 = np.floor(anchor.pixels_K2 * [width / image_size[0], height / image_size[1]]).astype(int)
        inside = ((at_K2 >= 0) & (at_K2 < [width, height])).all(1) & (anchor.depth_K > 0)
        x, y = at_K2[inside].T
        value = (value_HW[y, x].astype(float) - corrections.shift_T[anchor.slot]) / corrections.scale_T[anchor.slot]
        ok = np.isfinite(value)
        sigma = np.maximum(anchor.sigma_K[inside][ok], 1e-3)
        columns.append((value[ok], anchor.depth_K[inside][ok], sigma, np.full(int(ok.sum()), anchor.slot)))
    if not columns:
        return np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0, int)
    value, depth, sigma, frame = (np.concatenate(column) for column in zip(*columns, strict=True))
    return value, depth, sigma, frame.astype(int)


def _disparity_fit(
    value_K: np.ndarray, depth_K: np.ndarray, frame_K: np.ndarray, depth_sigma: float | None
) -> tuple[float, float]:
    """(A, B) of 1/z = A v + B with errors in both: Deming's line through the middle, its shift held near zero.

    depth_sigma: relative error of single anchors, or None when all that is known is an error they share; they are then
    taken to scatter as much as the network. Anchors all at one depth leave the shift to the prior: with errors in v, a
    plain regression would flatten the line and turn half of the motion in depth into a shift.
    """
    inverse_K = 1 / depth_K
    middle_v, middle_inverse = float(np.median(value_K)), float(np.median(inverse_K))
    x_K, y_K = value_K / middle_v, inverse_K / middle_inverse
    share_K = 1 / np.bincount(frame_K)[frame_K]  # points of one frame share its error: it counts once
    slope, x0, y0 = 1.0, 1.0, 1.0
    for _ in range(ROUNDS):
        off_K = np.abs(y_K - y0 - slope * (x_K - x0)) / y_K
        weight_K = share_K * _huber(off_K)
        variance = max(GAUSS * float(np.median(off_K)), 1e-4) ** 2
        of_depth = variance / 2 if depth_sigma is None else min(depth_sigma**2, 0.9 * variance)
        ratio = of_depth / (variance - of_depth)
        x0, y0 = (float(np.average(values, weights=weight_K)) for values in (x_K, y_K))
        sxx, syy, sxy = (
            float(np.average(a * b, weights=weight_K))
            for a, b in ((x_K - x0, x_K - x0), (y_K - y0, y_K - y0), (x_K - x0, y_K - y0))
        )
        if sxy <= 0:
            slope = y0 / x0
            continue
        difference = syy - ratio * sxx
        line = (difference + np.sqrt(difference**2 + 4 * ratio * sxy**2)) / (2 * sxy)
        certainty = weight_K.sum() * (sxy / line) / variance  # one over the variance of the line's slope
        slope = float((line * certainty + y0 / x0 / SHIFT_PRIOR**2) / (certainty + 1 / SHIFT_PRIOR**2))
    scale = slope * middle_inverse / middle_v
    return scale, (y0 - slope * x0) * middle_inverse


def _untied(values: Sequence[np.ndarray], corrections: Corrections, kind: Kind) -> tuple[float, float]:
    """Scale and shift without anchors: a metric network's own metres; a disparity network's median depth becomes 1."""
    if kind == "metric":
        return 1.0, 0.0
    consistent = [(v - b) / a for v, a, b in zip(values, corrections.scale_T, corrections.shift_T, strict=True)]
    middles = [np.median(value[value > 0]) for value in consistent if (value > 0).any()]
    return (1.0 / float(np.median(middles)) if middles else 1.0), 0.0


def _middle(values_K: np.ndarray, weight_K: np.ndarray) -> float:
    """Weighted Huber mean, started at the median."""
    middle = float(np.median(values_K))
    for _ in range(ROUNDS):
        middle = float(np.average(values_K, weights=weight_K * _huber(np.abs(values_K - middle))))
    return middle


def _huber(off: np.ndarray) -> np.ndarray:
    limit = max(1.345 * GAUSS * float(np.median(off)), 1e-9)
    return np.minimum(1.0, limit / np.maximum(off, 1e-12))


def _mad(values: np.ndarray) -> float:
    return GAUSS * float(np.median(np.abs(values - np.median(values)))) if len(values) else float("nan")
