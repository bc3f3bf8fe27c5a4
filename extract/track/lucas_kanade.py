"""Point tracks by pyramidal Lucas-Kanade (Bouguet, 2000; OpenCV): no weights, a few milliseconds a frame.

Everything but the effector is painted over with one colour, so that a patch at its edge follows the effector, not the
table behind it. Pictures are scaled so that the effector has a size at which patches work; thresholds are in pixels of
that scale. First a chain in both directions from the query frame (``chaining``), each link checked forward and
backward; then every frame against the query frame, warped by the affine change of view, which takes out drift and
finds lost points again (``anchoring``). A point counts as visible where one of the two measured it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from pydantic import Field
from scipy.ndimage import binary_dilation

from extract.steps import Shot, Tracks
from extract.track.anchoring import joined, view_change
from extract.track.chaining import BESIDE_PX, Chain, chain, inside, query_frame, query_points, sensor_depth, shown
from pipeline.config import Settings

SMALLEST_PX, LARGEST_PX = 48.0, 128.0  # the effector's size in the scaled pictures; at most twice as large as given
PATCH_PX = (15, 31)  # smallest and largest side of a patch, scaled
RIM_PX = 1  # so much around the mask is left as it is: it holds the edge
STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01)
FEWEST_VISIBLE = 8  # frames that show fewer points of the query frame are left to the chain
FARTHEST = 0.2  # of the effector's size: an anchor further from the chain is another place that looks alike
HIDDEN_M = 0.03  # an anchor on a surface that much nearer or farther than its neighbours' is none
# One sigma of a tracked point: a share of the effector's size, more with the link's own disagreement, and carried
# points drift away from what was measured.
FLOOR, CARRIED_FLOOR = 0.025, 0.06


class LucasKanadeConfig(Settings):
    """Lucas-Kanade tracking of masked effectors."""

    name: Literal["lucas-kanade"] = "lucas-kanade"
    patch: float = Field(default=0.5, gt=0, le=2, description="Side of a matched patch, of the effector's size.")
    levels: int = Field(default=1, ge=0, le=6, description="Pyramid levels; more follow faster motion.")
    max_error_px: float = Field(
        default=1.0, gt=0, description="A point is lost where forward and backward differ by more, scaled pixels."
    )
    anchor: bool = Field(default=True, description="Compare every frame with the query frame, against drift.")


class LucasKanade:
    """A ``Tracker``. Deterministic. Raises UserError when no mask shows anything."""

    name = "lucas-kanade/1"

    def __init__(self, config: LucasKanadeConfig | None = None):
        self.config = config or LucasKanadeConfig()
        self.weights_sha256: dict[str, str] = {}

    def __call__(self, shot: Shot, masks: Sequence[np.ndarray | None], count: int) -> Tracks:
        query = query_frame(masks)
        return self.follow(shot, masks, query_points(shown(masks, query), count), query)

    def follow(self, shot: Shot, masks: Sequence[np.ndarray | None], pixels_N2: np.ndarray, query: int) -> Tracks:
        """Tracks of the given pixels [N,2] of the ``query`` frame."""
        size = float(np.sqrt(shown(masks, query).sum()))
        flow = _Flow(shot, masks, query, size, self.config)
        chained = chain(flow, shot, masks, pixels_N2, query, self.config.max_error_px / flow.scale)
        pixels_TN2, visible_TN = chained.pixels_TN2, chained.visible_TN
        if self.config.anchor:
            anchors_TN2 = self._anchors(flow, shot, masks, chained)
            pixels_TN2 = joined(pixels_TN2, visible_TN, anchors_TN2, chained.seen, query, size)
            visible_TN = visible_TN | np.isfinite(anchors_TN2).all(-1)
        on_TN = np.stack([inside(masks[slot], pixels_TN2[slot], BESIDE_PX) for slot in range(len(masks))])
        visible_TN = visible_TN & on_TN
        error_TN = np.hypot(np.where(visible_TN, FLOOR, CARRIED_FLOOR) * size, chained.error_TN / 2)
        error_TN[query] = 0.5 / np.sqrt(12)  # a pixel of the query frame is known to within its own square
        return Tracks(pixels_TN2.astype(np.float32), visible_TN, error_TN.astype(np.float32), query)

    def _anchors(self, flow: _Flow, shot: Shot, masks: Sequence[np.ndarray | None], chained: Chain) -> np.ndarray:
        """f64 [T,N,2]: every point of the query frame found in each frame directly; NaN where it was not."""
        query, largest_px = chained.query, self.config.max_error_px / flow.scale
        anchors_TN2 = np.full_like(chained.pixels_TN2, np.nan)
        origin = chained.pixels_TN2[query]
        for slot in chained.seen:
            visible = chained.visible_TN[slot]
            if slot == query or visible.sum() < FEWEST_VISIBLE:
                continue
            guess = chained.pixels_TN2[slot]
            found, error_N = flow.from_warped(slot, view_change(origin, guess, visible), origin, guess)
            good = (error_N <= largest_px) & inside(masks[slot], found, BESIDE_PX)
            good &= np.linalg.norm(found - guess, axis=1) <= FARTHEST * flow.size
            good &= ~_other_surface(sensor_depth(shot, slot, masks[slot], found), found, good)
            anchors_TN2[slot, good] = found[good]
        return anchors_TN2


class _Flow:
    """Lucas-Kanade between two frames of a shot; pixels in and out are those of the video."""

    def __init__(
        self, shot: Shot, masks: Sequence[np.ndarray | None], query: int, size: float, config: LucasKanadeConfig
    ):
        self.scale = float(np.clip(SMALLEST_PX / size, 1, 2) if size < LARGEST_PX else LARGEST_PX / size)
        side = int(np.clip(config.patch * size * self.scale, *PATCH_PX)) | 1
        self.window, self.levels, self.query, self.size = (side, side), config.levels, query, size
        colour = np.round(shot.frames[query].image[shown(masks, query)].mean(0)).astype(np.uint8)
        self._pictures = [
            None if mask is None else self._picture(frame.image, mask, colour)
            for frame, mask in zip(shot.frames, masks, strict=True)
        ]

    def __call__(
        self, here: int, there: int, pixels_N2: np.ndarray, guess_N2: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        first, second = self._pictures[here], self._pictures[there]
        assert first is not None and second is not None
        return self._both_ways(first, second, pixels_N2, guess_N2, self.levels)

    def from_warped(
        self, there: int, view_23: np.ndarray, pixels_N2: np.ndarray, guess_N2: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """From the query frame, warped by the affine ``view_23`` (pixels to pixels), to another frame."""
        first, second = self._pictures[self.query], self._pictures[there]
        assert first is not None and second is not None
        linear, shift = view_23[:, :2], view_23[:, 2]
        half = np.full(2, 0.5)
        scaled = np.column_stack([linear, self.scale * (linear @ half / self.scale + shift) - half])
        height, width = second.shape[:2]
        warped = cv2.warpAffine(first, scaled, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        return self._both_ways(warped, second, pixels_N2 @ linear.T + shift, guess_N2, 0)

    def _both_ways(
        self, first: np.ndarray, second: np.ndarray, pixels_N2: np.ndarray, guess_N2: np.ndarray, levels: int
    ) -> tuple[np.ndarray, np.ndarray]:
        after, forward = self._one_way(first, second, pixels_N2, guess_N2, levels)
        again, backward = self._one_way(second, first, after, pixels_N2, levels)
        error_N = np.linalg.norm(again - pixels_N2, axis=1)
        return after, np.where(forward & backward, error_N, np.inf)

    def _one_way(
        self, first: np.ndarray, second: np.ndarray, pixels_N2: np.ndarray, guess_N2: np.ndarray, levels: int
    ) -> tuple[np.ndarray, np.ndarray]:
        # OpenCV puts the centre of the first pixel at 0.
        start, goal = ((at * self.scale - 0.5).astype(np.float32) for at in (pixels_N2, guess_N2))
        found, status, _ = cv2.calcOpticalFlowPyrLK(
            first,
            second,
            start,
            goal,
            winSize=self.window,
            maxLevel=levels,
            criteria=STOP,
            flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
            minEigThreshold=1e-5,
        )
        return (found.astype(np.float64) + 0.5) / self.scale, status[:, 0] > 0

    def _picture(self, image_HW3: np.ndarray, mask_HW: np.ndarray, colour: np.ndarray) -> np.ndarray:
        painted = image_HW3.copy()
        painted[np.logical_not(binary_dilation(mask_HW, iterations=RIM_PX))] = colour
        if self.scale == 1:
            return painted
        height, width = mask_HW.shape
        size = (round(width * self.scale), round(height * self.scale))
        return cv2.resize(painted, size, interpolation=cv2.INTER_CUBIC if self.scale > 1 else cv2.INTER_AREA)


def _other_surface(depth_N: np.ndarray, pixels_N2: np.ndarray, good_N: np.ndarray) -> np.ndarray:
    """bool [N]: far from the median depth of the nearest good points; never where depth is not known."""
    known = np.flatnonzero(good_N & np.isfinite(depth_N))
    result = np.zeros(len(depth_N), bool)
    if len(known) < FEWEST_VISIBLE:
        return result
    distance = np.linalg.norm(pixels_N2[known][:, None] - pixels_N2[known][None], axis=-1)
    near = np.argsort(distance, axis=1, kind="stable")[:, :FEWEST_VISIBLE]
    result[known] = np.abs(depth_N[known] - np.median(depth_N[known][near], axis=1)) > HIDDEN_M
    return result
