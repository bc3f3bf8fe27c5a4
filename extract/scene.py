"""The scene without its actor: every pixel as it was last seen free, from what has been seen up to now."""

from __future__ import annotations

import cv2
import numpy as np


class SceneMemory:
    """What lies behind the actor, for a camera that stands still. One for each clip or run."""

    def __init__(self) -> None:
        self._image: np.ndarray | None = None
        self._seen: np.ndarray | None = None
        self._depth: np.ndarray | None = None

    @property
    def depth(self) -> np.ndarray | None:
        """f32 [H,W] metres, what was last measured free of the actor; None before any depth.

        0 = never seen free, infinite = seen, and too far or otherwise not measured.
        """
        if self._depth is None or self._seen is None:
            return None
        return np.where(self._seen & (self._depth == 0), np.float32(np.inf), self._depth)

    def see(
        self, image_HW3: np.ndarray, depth_HW: np.ndarray | None, actor_HW: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The scene now: image uint8 [H,W,3], depth f32 [H,W] metres or None as it was given.

        depth_HW: metres, 0 = not measured. actor_HW: bool, the actor's pixels. Depth is what was last measured; pixels
        that were never seen free are as the nearest one that was, in depth too. All pictures of one memory are of one
        size.
        """
        free = ~actor_HW
        if self._image is None or self._seen is None:
            self._image, self._seen = image_HW3.copy(), np.zeros(free.shape, bool)
        np.copyto(self._image, image_HW3, where=free[..., None])
        self._seen |= free
        if depth_HW is not None:
            if self._depth is None:
                self._depth = np.zeros(free.shape, np.float32)
            np.copyto(self._depth, depth_HW.astype(np.float32, copy=False), where=free & (depth_HW > 0))
        image, depth = self._image.copy(), None if depth_HW is None or self._depth is None else self._depth.copy()
        hidden, nearest = _nearest_seen(self._seen)
        for values in (image, depth):
            if values is not None:
                flat = values.reshape(-1, *values.shape[2:])
                flat[hidden] = flat[nearest]
        return image, depth


def _nearest_seen(seen_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int [K] twice: places (row by row) that were never seen, and for each the nearest one that was."""
    hidden_HW = (~seen_HW).astype(np.uint8)
    hidden = np.flatnonzero(hidden_HW)
    if len(hidden) in (0, hidden_HW.size):
        return hidden[:0], hidden[:0]
    _, labels_HW = cv2.distanceTransformWithLabels(hidden_HW, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    labels, seen = labels_HW.astype(np.int64).ravel(), np.flatnonzero(seen_HW)
    seen_of_label = np.zeros(int(labels.max()) + 1, np.int64)
    seen_of_label[labels[seen]] = seen
    return hidden, seen_of_label[labels[hidden]]
