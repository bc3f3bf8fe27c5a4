"""The background followed through a video, frame by frame, in bounded memory.

Pyramidal Lucas-Kanade (Bouguet, 2001) on a small grey picture. While the camera rests, every frame is compared with one
anchor frame, which is cheap and does not drift; when it moves, each frame is compared with the one before, forward and
backward. Kept are the places of some hundred points per frame and the depth there, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from extract.camera.config import CameraMotionConfig
from extract.camera.motion import CameraMotion, PathScale, estimate_camera_motion
from extract.camera.observations import Row
from extract.camera.relink import Relinker
from extract.camera.sample import depth_at
from extract.effector import Camera

WINDOW = (15, 15)
LEVELS = 3
FULL = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.01)
QUICK = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 8, 0.02)
STRAY_PX = 1.0  # at rest, a point further than this from where it was is hidden or moves by itself
AGREE = 0.75  # share of points that must rest, more or less, for the camera to rest,
FIXED_PX, FIXED = 0.3, 0.45  # or this share within so much, while things and people move in front of it
REFRESH = 4  # frames of a moving camera between two searches for new points
WEAKEST = 1e-4  # eigenvalue of OpenCV's gradients of an 8 bit picture; below, it is noise of the video
BORDER = 6
LOST = 0.3  # below this share of surviving points the background is looked for by its appearance


class BackgroundTracks:
    """Feed it every frame of a video in order; ask for the camera's motion over any stretch that is not forgotten."""

    def __init__(self, config: CameraMotionConfig | None = None):
        self.config = config or CameraMotionConfig()
        self.rows: dict[int, Row] = {}
        self.next_slot = 0
        self.scale_2 = np.ones(2)  # full picture / small picture, along x and y
        self._grey: np.ndarray | None = None  # of the last frame, like the next three
        self._hidden_before = np.zeros((0, 0), bool)
        self._depth: np.ndarray | None = None
        self._size = (1, 1)
        self._anchor: np.ndarray | None = None
        self._ids = np.zeros(0, np.int32)  # of the anchor's points
        self._home = np.zeros((0, 2), np.float32)  # where they were in the anchor
        self._now = np.zeros((0, 2), np.float32)  # where they were last
        self._base = np.zeros(2)  # drift of the anchor
        self._last = Row(self._ids, self._home, np.zeros(0, np.float32), np.zeros(2))
        self._seen = np.zeros(0, bool)  # in the last frame
        self._velocity = np.zeros(2, np.float32)  # median motion from the frame before
        self._fresh_id = 0
        self._since_search = 0
        self._relinker = Relinker()

    def add(self, image_HW3: np.ndarray, depth_HW: np.ndarray | None, boxes: Sequence[np.ndarray] | np.ndarray) -> int:
        """Takes the next frame; returns its slot: 0 for the first one.

        image: uint8 RGB. depth: f32 metres, 0 = unknown, or None. boxes: f64 [K,4] x0, y0, x1, y1 of effectors, pixels
        of the image: nothing in them is background.
        """
        grey = self._small(image_HW3)
        hidden = self._hidden(np.asarray(boxes, np.float64).reshape(-1, 4), grey.shape)
        if self._anchor is None:
            self._reanchor(grey, hidden)
        elif not self._rests(grey, hidden):
            self._follow(grey, hidden)
        self._grey, self._hidden_before = grey, hidden
        self._depth, self._size = depth_HW, image_HW3.shape[1::-1]
        inside = ~hidden[self._cells(self._now, grey.shape)] & self._seen
        pixels = ((self._now + 0.5) * self.scale_2)[inside].astype(np.float32)
        moved = np.median((self._now - self._home)[inside], axis=0) if inside.any() else np.zeros(2)
        slot = self.next_slot
        self._last = Row(self._ids[inside].copy(), pixels, self._depth_of(pixels), self._base + moved)
        self.rows[slot] = self._last
        self.next_slot += 1
        return slot

    def solve(
        self,
        camera: Camera,
        slots: Sequence[int] | np.ndarray,
        depth_scale: PathScale = "metric",
        depth_sigma: float | None = None,
    ) -> CameraMotion:
        """How the camera moved over consecutive slots; see ``estimate_camera_motion``.

        depth_scale, depth_sigma: what the depth rests on that was given with the frames, and its relative error.
        Raises KeyError for a slot that was forgotten or never fed.
        """
        wanted = [int(slot) for slot in slots]
        if missing := [slot for slot in wanted if slot not in self.rows]:
            kept = f"{min(self.rows)}..{max(self.rows)}" if self.rows else "none"
            raise KeyError(f"slot {missing[0]} is not among the frames kept ({kept})")
        rows = [self.rows[slot] for slot in wanted]
        return estimate_camera_motion(rows, camera, self.config, self.zoom, depth_scale, depth_sigma)

    @property
    def zoom(self) -> float:
        """Pixels of the full picture per pixel of the small one."""
        return float(self.scale_2.mean())

    def take(self, slot: int) -> Row:
        """Hands over what is kept of one frame, for ``estimate_camera_motion``; it is no longer kept here."""
        return self.rows.pop(slot)

    def forget(self, before_slot: int) -> None:
        """Drops what is kept of earlier frames; stretches that begin there can no longer be solved."""
        for slot in [slot for slot in self.rows if slot < before_slot]:
            del self.rows[slot]

    def _small(self, image: np.ndarray) -> np.ndarray:
        """Grey and small: halved exactly (each pixel the mean of four) as often as that leaves enough, then scaled."""
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        while max(grey.shape) >= 2 * self.config.long_side:
            height, width = grey.shape[0] // 2, grey.shape[1] // 2
            grey = cv2.resize(grey[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
        ratio = self.config.long_side / max(grey.shape)
        if ratio < 1:
            grey = cv2.resize(grey, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_LINEAR)
        self.scale_2 = np.array(image.shape[1::-1]) / np.array(grey.shape[::-1])
        return grey

    def _hidden(self, boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """bool [h,w] of the small picture: inside a grown box."""
        hidden = np.zeros(shape, bool)
        for x0, y0, x1, y1 in boxes / np.tile(self.scale_2, 2):
            dx, dy = self.config.box_margin * (x1 - x0), self.config.box_margin * (y1 - y0)
            left, top = max(int(x0 - dx), 0), max(int(y0 - dy), 0)
            hidden[top : max(int(np.ceil(y1 + dy)), 0), left : max(int(np.ceil(x1 + dx)), 0)] = True
        return hidden

    @staticmethod
    def _cells(points: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        cells = np.rint(points).astype(int)
        return np.clip(cells[:, 1], 0, shape[0] - 1), np.clip(cells[:, 0], 0, shape[1] - 1)

    def _rests(self, grey: np.ndarray, hidden: np.ndarray) -> bool:
        """Whether the background lies where it lay in the anchor; then the points' places are renewed from there."""
        if _length(self._velocity) > 2 * self.config.still_px or len(self._home) < self.config.min_points:
            return False
        assert self._anchor is not None
        flow = cv2.calcOpticalFlowPyrLK(
            self._anchor, grey, self._home, self._now.copy(), None, None, WINDOW, 1, QUICK, cv2.OPTFLOW_USE_INITIAL_FLOW
        )
        moved, found = flow[0] - self._home, flow[1].ravel() == 1
        seen = found & ~hidden[self._cells(self._home, grey.shape)]
        if seen.sum() < max(self.config.min_points, 0.4 * len(self._home)):
            return False
        shift = np.median(moved[seen], axis=0)
        near = seen & (np.linalg.norm(moved - shift, axis=1) < STRAY_PX)
        if _length(shift) > self.config.still_px or near.sum() < AGREE * seen.sum():
            fixed = seen & (np.linalg.norm(moved, axis=1) < FIXED_PX)
            if fixed.sum() < FIXED * seen.sum():
                return False
            shift, near = np.median(moved[fixed], axis=0), seen & (np.linalg.norm(moved, axis=1) < STRAY_PX)
        self._seen = near
        self._now = np.where(near[:, None], flow[0], self._home + shift).astype(np.float32)
        self._velocity = np.zeros(2, np.float32)
        return True

    def _follow(self, grey: np.ndarray, hidden: np.ndarray) -> None:
        """From the frame before to this one, which becomes the anchor."""
        assert self._grey is not None
        before = self._now[self._seen]
        self._ids = self._ids[self._seen]
        after, kept = self._klt(self._grey, grey, before)
        kept &= ~hidden[self._cells(after, grey.shape)]
        if kept.any():
            self._velocity = np.median((after - before)[kept], axis=0).astype(np.float32)
            self._base = self._base + np.median((after - self._home[self._seen])[kept], axis=0)
        self._ids, self._now = self._ids[kept], after[kept]
        if kept.sum() < LOST * max(len(before), 1):
            self._relink(grey, hidden)
        self._reanchor(grey, hidden)

    def _relink(self, grey: np.ndarray, hidden: np.ndarray) -> None:
        """After a jump: new points that are seen in the frame before and in this one."""
        assert self._grey is not None
        start, end = self._relinker.matches(self._grey, grey, self._hidden_before, hidden)
        if len(start) == 0:
            return
        start, end = start[: self.config.points], end[: self.config.points]
        if len(self._now) == 0:
            self._base = self._base + np.median(end - start, axis=0)
        self._velocity = np.zeros(2, np.float32)
        ids = self._new_ids(len(start))
        pixels = ((start + 0.5) * self.scale_2).astype(np.float32)
        self._last.bridge = Row(ids, pixels, self._depth_of(pixels), self._last.drift)
        self._ids, self._now = np.concatenate([self._ids, ids]), np.concatenate([self._now, end])

    def _new_ids(self, count: int) -> np.ndarray:
        self._fresh_id += count
        return np.arange(self._fresh_id - count, self._fresh_id, dtype=np.int32)

    def _depth_of(self, pixels_N2: np.ndarray) -> np.ndarray:
        """Depth in the last frame that was taken in, f32 [N] metres, 0 = unknown."""
        if self._depth is None:
            return np.zeros(len(pixels_N2), np.float32)
        zoom = np.array(self._depth.shape[1::-1]) / np.array(self._size)
        return depth_at(self._depth, pixels_N2 * zoom)

    def _klt(self, first: np.ndarray, second: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places in the second picture f32 [n,2], and bool [n]: came back to where it started."""
        if len(points) == 0:
            return points, np.zeros(0, bool)
        guess = points + self._velocity
        flags = cv2.OPTFLOW_USE_INITIAL_FLOW
        after, found, _ = cv2.calcOpticalFlowPyrLK(
            first, second, points, guess.astype(np.float32), None, None, WINDOW, LEVELS, FULL, flags
        )
        back, returned, _ = cv2.calcOpticalFlowPyrLK(
            second, first, after, points.copy(), None, None, WINDOW, LEVELS, FULL, flags
        )
        height, width = second.shape
        inside = (after >= 0).all(1) & (after[:, 0] <= width - 1) & (after[:, 1] <= height - 1)
        close = np.linalg.norm(back - points, axis=1) < self.config.backward_px
        return after, (found.ravel() == 1) & (returned.ravel() == 1) & inside & close

    def _reanchor(self, grey: np.ndarray, hidden: np.ndarray) -> None:
        """Makes this frame the one that the next ones are compared with, and looks for new points where they lack."""
        self._anchor = grey
        self._since_search += 1
        if len(self._now) < 0.75 * self.config.points or self._since_search >= REFRESH:
            self._since_search = 0
            fresh = corners(grey, hidden, self._now, self.config.points)
            self._ids = np.concatenate([self._ids, self._new_ids(len(fresh))])
            self._now = np.concatenate([self._now, fresh])
        self._home = self._now.copy()
        self._seen = np.ones(len(self._now), bool)


def corners(grey: np.ndarray, hidden: np.ndarray, taken_N2: np.ndarray, wanted: int) -> np.ndarray:
    """The best corner of every cell that holds no point yet: f32 [n,2], spread over the whole picture.

    Corners by the smaller eigenvalue of the gradients' covariance (Shi and Tomasi, 1994). One per cell, however weak
    beside others: the strongest ones are often on a few things, which may move.
    """
    strength = cv2.cornerMinEigenVal(grey, 5)
    strength[hidden] = 0
    strength[:BORDER], strength[-BORDER:], strength[:, :BORDER], strength[:, -BORDER:] = 0, 0, 0, 0
    side = int(np.sqrt(grey.size / wanted))
    for x, y in taken_N2:
        left, top = max(int(x) - side // 2, 0), max(int(y) - side // 2, 0)
        strength[top : int(y) + side // 2 + 1, left : int(x) + side // 2 + 1] = 0
    down, across = grey.shape[0] // side, grey.shape[1] // side
    cells = strength[: down * side, : across * side].reshape(down, side, across, side).transpose(0, 2, 1, 3)
    cells = cells.reshape(down * across, side * side)
    best = cells.argmax(1)
    number = np.flatnonzero(cells[np.arange(len(cells)), best] > WEAKEST)
    number = number[np.argsort(-cells[number, best[number]], kind="stable")][: max(wanted - len(taken_N2), 0)]
    found: list[tuple[int, int]] = []
    for cell in number:
        x = (cell % across) * side + best[cell] % side
        y = (cell // across) * side + best[cell] // side
        if strength[y, x] > 0:  # not next to one that was just taken
            found.append((x, y))
            strength[max(y - side // 3, 0) : y + side // 3 + 1, max(x - side // 3, 0) : x + side // 3 + 1] = 0
    return np.array(found, np.float32).reshape(-1, 2)


def _length(vector_2: np.ndarray) -> float:
    return float(np.linalg.norm(vector_2))
