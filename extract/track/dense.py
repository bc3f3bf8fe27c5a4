"""Point tracks from dense optical flow, chained over time: any network or algorithm that says where every pixel went.

Flow is computed in a square around the effector, in both directions; points are sampled from it bilinearly and checked
forward and backward as in every other chain (``chaining``). Nothing takes out drift: errors of links add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import cv2
import numpy as np

from extract.steps import Shot, Tracks
from extract.track.chaining import BESIDE_PX, chain, inside, query_frame, query_points, seen_frames, shown

MARGIN = 0.3  # of the effector's extent on each side: what is around it tells flow where it ends
FLOOR_PX = 0.3  # one sigma of one link, scaled pixels
CARRIED = 2.5  # a carried point is that much less sure


class DenseFlow(Protocol):
    """Optical flow f32 [B,h,w,2] pixels (along columns, along rows), from each first picture u8 [B,h,w,3] to its
    second."""

    def __call__(self, first_BHW3: np.ndarray, second_BHW3: np.ndarray) -> np.ndarray: ...


class DenseChain:
    """A ``Tracker`` on a ``DenseFlow``.

    side_px: the square around the effector is scaled to this. max_error_px: a point is lost where forward and backward
    disagree by more, scaled pixels. batch: pairs of pictures at a time.
    """

    def __init__(self, flow: DenseFlow, side_px: int, max_error_px: float, batch: int):
        self.flow, self.side_px, self.max_error_px, self.batch = flow, side_px, max_error_px, batch

    def __call__(self, shot: Shot, masks: Sequence[np.ndarray | None], count: int) -> Tracks:
        query = query_frame(masks)
        links = _Links(self.flow, shot, masks, self.side_px, self.batch)
        points_N2 = query_points(shown(masks, query), count)
        chained = chain(links, shot, masks, points_N2, query, self.max_error_px / links.scale)
        on_TN = np.stack([inside(mask, at, BESIDE_PX) for mask, at in zip(masks, chained.pixels_TN2, strict=True)])
        visible_TN = chained.visible_TN & on_TN
        number_T = np.abs(np.searchsorted(chained.seen, np.arange(len(masks))) - chained.seen.index(query))
        walk_T1 = (FLOOR_PX / links.scale * np.sqrt(number_T + 0.1))[:, None]
        error_TN = np.hypot(walk_T1, chained.error_TN / 2) * np.where(visible_TN, 1.0, CARRIED)
        return Tracks(chained.pixels_TN2.astype(np.float32), visible_TN, error_TN.astype(np.float32), query)


class _Links:
    """The flow of all neighbouring frames with a mask, both ways; a ``PairFlow``."""

    def __init__(self, flow: DenseFlow, shot: Shot, masks: Sequence[np.ndarray | None], side_px: int, batch: int):
        seen = seen_frames(masks)
        boxes_P4 = {pair: _box(shown(masks, pair[0]) | shown(masks, pair[1])) for pair in pairwise(seen)}
        extent = max([max(box[2] - box[0], box[3] - box[1]) for box in boxes_P4.values()], default=1.0)
        self.scale = side_px / (extent * (1 + 2 * MARGIN))
        self._corners = {pair: (box[:2] + box[2:]) / 2 - side_px / self.scale / 2 for pair, box in boxes_P4.items()}
        self._flows: dict[tuple[int, int], np.ndarray] = {}
        # Both ways in one batch, always of the same pairs: the same bytes whatever else is computed.
        listed = list(boxes_P4)
        for pairs in (listed[start : start + batch] for start in range(0, len(listed), batch)):
            first = np.stack([self._cut(shot.frames[pair[0]].image, pair, side_px) for pair in pairs])
            second = np.stack([self._cut(shot.frames[pair[1]].image, pair, side_px) for pair in pairs])
            for pair, ahead, back in zip(pairs, flow(first, second), flow(second, first), strict=True):
                self._flows[pair], self._flows[pair[1], pair[0]] = ahead, back

    def __call__(
        self, here: int, there: int, pixels_N2: np.ndarray, guess_N2: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        corner_2 = self._corners[min(here, there), max(here, there)]
        start = (pixels_N2 - corner_2) * self.scale
        after = start + _sampled(self._flows[here, there], start)
        again = after + _sampled(self._flows[there, here], after)
        error_N = np.linalg.norm(again - start, axis=1) / self.scale
        return after / self.scale + corner_2, np.where(np.isfinite(error_N), error_N, np.inf)

    def _cut(self, image_HW3: np.ndarray, pair: tuple[int, int], side_px: int) -> np.ndarray:
        # OpenCV puts the centre of the first pixel at 0; we put it at 0.5.
        shift_2 = 0.5 * self.scale - 0.5 - self.scale * self._corners[pair]
        matrix = np.array([[self.scale, 0, shift_2[0]], [0, self.scale, shift_2[1]]])
        smaller = cv2.GaussianBlur(image_HW3, (0, 0), 0.4 / self.scale) if self.scale < 0.7 else image_HW3
        size = (side_px, side_px)
        return cv2.warpAffine(smaller, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _box(mask_HW: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask_HW)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)


def _sampled(flow_HW2: np.ndarray, at_N2: np.ndarray) -> np.ndarray:
    """f64 [N,2]: bilinear; NaN outside."""
    height, width = flow_HW2.shape[:2]
    column, row = (at_N2 - 0.5).astype(np.float32).T
    sampled = cv2.remap(flow_HW2, column[None], row[None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]
    within = np.logical_and(at_N2 >= 0, at_N2 <= [width, height]).all(axis=1)
    return np.where(np.expand_dims(within, 1), sampled.astype(np.float64), np.nan)
