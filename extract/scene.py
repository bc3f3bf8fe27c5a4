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
        """f32 [H,W] metres, what was last measured free of the actor, 0 = nothing yet; None before any depth."""
        return self._depth

    def see(
        self, image_HW3: np.ndarray, depth_HW: np.ndarray | None, actor_HW: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The scene now: image uint8 [H,W,3], depth f32 [H,W] metres or None as it was given.

        depth_HW: metres, 0 = not measured. actor_HW: bool, the actor's pixels. Pixels that were never seen free are as
        their nearest neighbour that was; depth is 0 only where none was measured so far. All pictures of one memory are
        of one size.
        """
        free = ~actor_HW
        if self._image is None or self._seen is None:
            self._image, self._seen = image_HW3.copy(), np.zeros(free.shape, bool)
        np.copyto(self._image, image_HW3, where=free[..., None])
        self._seen |= free
        image = _from_neighbours(self._image, self._seen)
        if depth_HW is None:
            return image, None
        if self._depth is None:
            self._depth = np.zeros(free.shape, np.float32)
        np.copyto(self._depth, depth_HW.astype(np.float32, copy=False), where=free & (depth_HW > 0))
        return image, _from_neighbours(self._depth, self._depth > 0)


def _from_neighbours(values_HW: np.ndarray, known_HW: np.ndarray) -> np.ndarray:
    """A copy in which each pixel [H,W,...] that is not known is as the nearest one that is; as it is where none is."""
    filled = values_HW.copy()
    if known_HW.all() or not known_HW.any():
        return filled
    unknown_HW = (~known_HW).astype(np.uint8)
    _, labels_HW = cv2.distanceTransformWithLabels(unknown_HW, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    labels = labels_HW.astype(np.int64).ravel()
    known, hidden = np.flatnonzero(known_HW), np.flatnonzero(unknown_HW)
    known_of_label = np.zeros(int(labels.max()) + 1, np.int64)
    known_of_label[labels[known]] = known
    flat = filled.reshape(-1, *filled.shape[2:])
    flat[hidden] = flat[known_of_label[labels[hidden]]]
    return filled
