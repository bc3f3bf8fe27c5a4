"""What trackers that go from frame to frame share: where to start, the chain itself, where lost points went.

Symbols: T frames, N points, H x W pixels. Pixel (row r, column c) has its centre at (c + 0.5, r + 0.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from scipy.ndimage import binary_dilation

from extract.mask.surface import spread
from extract.steps import Shot
from pipeline.errors import UserError

CANDIDATES = 3000  # pixels of the query frame among which points are spread
FEWEST_PX = 8  # a mask with fewer pixels is taken for none: two pixels tell no motion
NEIGHBOURS = 8  # that many survivors say where a lost point went
FEWEST_FOR_AFFINE = 4
BESIDE_PX = 1  # a mask's edge is this sharp
COVERED = 0.2  # a mask that loses or gains this much of its size tells nothing by its middle
DEPTH_JUMP = 0.03  # of the distance: two parts of one effector approach each other by less within one frame


class PairFlow(Protocol):
    """Where points of one frame are in another, and how far forward and backward disagree.

    pixels_N2: f64 in frame ``here``. guess_N2: f64 in frame ``there``, to start from. Returns f64 [N,2] pixels in
    frame ``there`` and f64 [N] pixels between a point and the way there and back; inf where it could not be followed.
    """

    def __call__(
        self, here: int, there: int, pixels_N2: np.ndarray, guess_N2: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class Chain:
    """pixels_TN2: f64. visible_TN: bool, followed without a break from the query frame. error_TN: f64 pixels, of the
    last link. seen: the frames with a mask, ascending; the other frames lie on straight lines between these."""

    pixels_TN2: np.ndarray
    visible_TN: np.ndarray
    error_TN: np.ndarray
    seen: list[int]
    query: int


def seen_frames(masks: Sequence[np.ndarray | None]) -> list[int]:
    """The frames whose mask shows something. Raises UserError when there is none."""
    seen = [slot for slot, mask in enumerate(masks) if mask is not None and int(mask.sum()) >= FEWEST_PX]
    if not seen:
        raise UserError(
            f"track: masks: none of {len(masks)} frames shows {FEWEST_PX} pixels of the effector, so that there is "
            "nothing to follow. Look at the detector's and the segmenter's settings."
        )
    return seen


def query_frame(masks: Sequence[np.ndarray | None]) -> int:
    """The frame that shows most of the effector; of equals the one nearest to the middle, of these the first."""
    seen, middle = seen_frames(masks), (len(masks) - 1) / 2
    return max(seen, key=lambda slot: (int(shown(masks, slot).sum()), -abs(slot - middle), -slot))


def query_points(mask_HW: np.ndarray, count: int) -> np.ndarray:
    """f64 [N,2]: pixel centres spread evenly in the mask; repeats when the mask has fewer pixels than points."""
    rows, columns = np.nonzero(mask_HW)
    pixels = np.stack([columns + 0.5, rows + 0.5], -1)
    if len(pixels) > CANDIDATES:
        pixels = pixels[np.linspace(0, len(pixels) - 1, CANDIDATES).astype(int)]
    return pixels[spread(pixels, count)]


def chain(
    flow: PairFlow, shot: Shot, masks: Sequence[np.ndarray | None], pixels_N2: np.ndarray, query: int, max_px: float
) -> Chain:
    """Follows points from the query frame outwards, link by link over the frames that have a mask.

    A point is lost when forward and backward disagree by more than ``max_px``, when it leaves the mask, or when its
    sensor depth jumps against that of the others. From then on it is carried by its neighbours.
    """
    seen, count = seen_frames(masks), len(pixels_N2)
    pixels_TN2 = np.full((len(masks), count, 2), np.nan)
    visible_TN = np.zeros((len(masks), count), bool)
    error_TN = np.zeros((len(masks), count))
    pixels_TN2[query], visible_TN[query] = pixels_N2, True
    start = seen.index(query)
    for way in (seen[start:], seen[: start + 1][::-1]):
        last = np.zeros(2)
        for here, there in pairwise(way):
            before = pixels_TN2[here]
            shift = _middle(shown(masks, there)) - _middle(shown(masks, here))
            best: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
            for guess in _guesses(before, last, shift, shown(masks, here).sum() / shown(masks, there).sum()):
                after, error_N = flow(here, there, before, guess)
                followed = (error_N <= max_px) & inside(masks[there], after, BESIDE_PX)
                followed &= ~_jumped(shot, masks, here, there, before, after, followed)
                if best is None or followed.sum() > best[2].sum():
                    best = after, error_N, followed
            assert best is not None
            after, error_N, followed = best
            measured = followed & visible_TN[here]
            # With hardly a true survivor left, whatever could be followed says where the effector went.
            guides = measured if measured.sum() >= FEWEST_FOR_AFFINE else followed
            pixels_TN2[there] = after
            pixels_TN2[there, ~measured] = carry(before, after, guides, before[~measured], shift)
            visible_TN[there], error_TN[there] = measured, np.where(measured, error_N, max_px)
            last = np.median((pixels_TN2[there] - before)[guides if guides.any() else slice(None)], axis=0)
    return Chain(_bridged(pixels_TN2, shot.times_T, seen), visible_TN, error_TN, seen, query)


def carry(
    before_N2: np.ndarray, after_N2: np.ndarray, measured_N: np.ndarray, lost_K2: np.ndarray, shift_2: np.ndarray
) -> np.ndarray:
    """f64 [K,2]: where points that nothing measured went, by the affine motion of the survivors around each.

    before_N2, after_N2: all points; measured_N: bool, which of them were measured in both frames. With few survivors
    the motion is their mean shift; with none it is ``shift_2``.
    """
    source, target = before_N2[measured_N], after_N2[measured_N]
    if len(source) < FEWEST_FOR_AFFINE:
        return lost_K2 + ((target - source).mean(0) if len(source) else shift_2)
    distance_KS = np.linalg.norm(lost_K2[:, None] - source[None], axis=-1)
    reach_K1 = np.sort(distance_KS, axis=1)[:, [min(NEIGHBOURS, len(source)) - 1]] + 1e-6
    weight_KS = np.exp(-0.5 * (distance_KS / reach_K1) ** 2)
    weight_KS /= weight_KS.sum(1, keepdims=True)
    middle_K2, goal_K2 = weight_KS @ source, weight_KS @ target
    from_KS2, to_KS2 = source[None] - middle_K2[:, None], target[None] - goal_K2[:, None]
    spread_K22 = np.einsum("ks,ksi,ksj->kij", weight_KS, from_KS2, from_KS2)
    cross_K22 = np.einsum("ks,ksi,ksj->kij", weight_KS, from_KS2, to_KS2)
    # The prior is a pure shift: it decides where the survivors lie on a line.
    ridge_K22 = (0.1 * np.trace(spread_K22, axis1=1, axis2=2) + 1e-9)[:, None, None] * np.eye(2)
    linear_K22 = np.linalg.solve(spread_K22 + ridge_K22, cross_K22 + ridge_K22)
    return goal_K2 + np.einsum("ki,kij->kj", lost_K2 - middle_K2, linear_K22)


def inside(mask_HW: np.ndarray | None, pixels_N2: np.ndarray, beside_px: int = 0) -> np.ndarray:
    """bool [N]: the point is on the mask, or at most ``beside_px`` beside it."""
    if mask_HW is None:
        return np.zeros(len(pixels_N2), bool)
    if beside_px:
        mask_HW = binary_dilation(mask_HW, iterations=beside_px)
    (height, width), whole = mask_HW.shape, np.floor(np.nan_to_num(pixels_N2, nan=-1)).astype(int)
    column, row = whole.T
    within = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return within & mask_HW[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]


def sensor_depth(shot: Shot, slot: int, mask_HW: np.ndarray | None, pixels_N2: np.ndarray) -> np.ndarray:
    """f64 [N]: the shot's own depth under each point, metres; NaN without sensor depth or off the mask."""
    depth, on = shot.frames[slot].depth, inside(mask_HW, pixels_N2)
    found_N = np.full(len(pixels_N2), np.nan)
    if depth is None or not on.any():
        return found_N
    column, row = np.floor(pixels_N2[on]).astype(int).T
    here = depth[row, column].astype(np.float64)
    found_N[on] = np.where(here > 0, here, np.nan)
    return found_N


def _guesses(before_N2: np.ndarray, last_2: np.ndarray, shift_2: np.ndarray, shrunk: float) -> list[np.ndarray]:
    """Going on as before, which misleads when the effector stops, and moving as the middle of the mask does, which
    misleads when a part of it was covered."""
    alike = 1 / (1 + COVERED) < shrunk < 1 + COVERED
    return [before_N2 + last_2, *([before_N2 + shift_2] if alike else [])]


def _jumped(
    shot: Shot,
    masks: Sequence[np.ndarray | None],
    here: int,
    there: int,
    before_N2: np.ndarray,
    after_N2: np.ndarray,
    followed_N: np.ndarray,
) -> np.ndarray:
    """bool [N]: something else, nearer or farther, is where the point should be. Never without sensor depth."""
    first, second = sensor_depth(shot, here, masks[here], before_N2), sensor_depth(shot, there, masks[there], after_N2)
    change = second - first
    known = np.isfinite(change)
    if not (known & followed_N).any():
        return np.zeros(len(before_N2), bool)
    typical = np.median(change[known & followed_N])
    return known & (np.abs(np.nan_to_num(change) - typical) > DEPTH_JUMP * np.nan_to_num(second))


def shown(masks: Sequence[np.ndarray | None], slot: int) -> np.ndarray:
    """The mask of a frame that has one."""
    mask = masks[slot]
    assert mask is not None
    return mask


def _middle(mask_HW: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask_HW)
    return np.array([columns.mean(), rows.mean()])


def _bridged(pixels_TN2: np.ndarray, times_T: np.ndarray, seen: Sequence[int]) -> np.ndarray:
    """Frames without a mask, on straight lines between their neighbours; before the first and after the last still."""
    missing = np.setdiff1d(np.arange(len(times_T)), seen)
    flat_TD = pixels_TN2.reshape(len(times_T), -1)
    for column in flat_TD.T:
        column[missing] = np.interp(times_T[missing], times_T[seen], column[seen])
    return pixels_TN2
