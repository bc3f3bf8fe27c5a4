"""Which pixels the actor covers: the effector and the arm or forearm that it belongs to, known from the effector alone.

With depth, the effector's own surface is followed to neighbours at nearly the same depth: the arm is one surface with
its effector. What the fingertips touch is one surface with them too: nothing before the plane through the grasp point,
across the direction of approach, is taken, and beside the effector only what is as near to its axis as itself. Parts of
the arm that come into the picture elsewhere stand behind the effector and before what was seen there earlier. Without
depth the arm is a band that leaves the picture behind the effector.
"""

from __future__ import annotations

import cv2
import numpy as np

from extract.effector import Camera

JUMP_M = 0.02  # of depth between neighbouring pixels: more is an edge
STEEP = 4.0  # depth per width of a steep surface, which is no edge
AHEAD_M = 0.01  # how far before the grasp point the actor may reach
BESIDE_M = 0.015  # how much further from its axis than its points the effector may reach
NEARER_M = 0.03  # than what was seen earlier: something has come between
AGREES_M = 0.03  # between a point of the effector and the depth at its pixel: more, and something else is seen there
WIDENED = 1 / 128  # how far the outline is pushed out, as a share of the picture's longer side
WIDENED_BLIND = 0.04  # the same without depth, where the outline is a guess
BACK = 0.02  # step along the approach that shows its direction in the picture, as a share of the distance
STRAIGHT = 0.1  # of a direction's length is left in the picture: less, and it points along the view
LONG = 1.4  # times as long as wide: an effector whose shape tells its direction
MIN_DEPTH_M = 1e-3


def actor_pixels(
    depth_HW: np.ndarray | None,
    camera: Camera,
    points_N3: np.ndarray,
    grasp_3: np.ndarray | None,
    seen_HW: np.ndarray | None = None,
) -> np.ndarray:
    """bool [H,W]: the actor's pixels in one frame.

    depth_HW: f32 metres along z, 0 = unknown, at the camera's image size; None = no depth. points_N3: the effector's
    points, grasp_3: its grasp point, both metres, camera frame; a grasp point of None or NaN is unknown, and then the
    effector alone is found. seen_HW: f32 metres, the depth that was seen earlier without the actor (SceneMemory.depth),
    0 = not yet, infinite = too far; None where the camera moves.
    """
    points_N3 = points_N3[np.isfinite(points_N3).all(1) & (points_N3[:, 2] > MIN_DEPTH_M)].astype(np.float64)
    width, height = camera.image_size
    if not len(points_N3):
        return np.zeros((height, width), bool)
    approach_3 = _approach(points_N3, grasp_3)
    if depth_HW is None:
        found = _outline(camera, points_N3, approach_3)
        share = WIDENED_BLIND
    else:
        found = _surface(depth_HW, camera, points_N3, grasp_3, approach_3, seen_HW)
        share = WIDENED
    return widened(found, share)


def widened(pixels_HW: np.ndarray, share: float = WIDENED) -> np.ndarray:
    """bool [H,W]: pixels and what is near them; the edges of things are blurred by lenses and by compression.

    share: how near, as a share of the picture's longer side, at least a pixel.
    """
    near = max(1, round(share * max(pixels_HW.shape)))
    ball = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * near + 1, 2 * near + 1))
    return cv2.dilate(pixels_HW.astype(np.uint8), ball) > 0


def _approach(points_N3: np.ndarray, grasp_3: np.ndarray | None) -> np.ndarray | None:
    """Unit vector from the effector's middle to its grasp point; None where that is not known."""
    if grasp_3 is None or not np.isfinite(grasp_3).all():
        return None
    towards = grasp_3 - points_N3.mean(0)
    length = np.linalg.norm(towards)
    return towards / length if length > 1e-6 else None


def _surface(
    depth_HW: np.ndarray,
    camera: Camera,
    points_N3: np.ndarray,
    grasp_3: np.ndarray | None,
    approach_3: np.ndarray | None,
    seen_HW: np.ndarray | None,
) -> np.ndarray:
    """uint8 [H,W]: the pixels under the effector's points and what is one surface with them behind the grasp point."""
    height, width = depth_HW.shape
    found = np.zeros((height, width), np.uint8)
    columns, rows = np.floor(camera.project(points_N3)).astype(int).T
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    columns, rows = columns[inside], rows[inside]
    agrees = np.abs(depth_HW[rows, columns] - points_N3[inside, 2]) < AGREES_M
    rows, columns = rows[agrees], columns[agrees]
    found[rows, columns] = 1
    if not len(rows):
        return found
    if approach_3 is None or grasp_3 is None:
        cv2.fillConvexPoly(found, cv2.convexHull(np.stack([columns, rows], 1).astype(np.int32)), 1)
        off = np.abs(depth_HW - np.median(depth_HW[rows, columns]))
        found[off > np.ptp(points_N3[:, 2]) + AGREES_M] = 0
        return found
    allowed, rear = _behind(depth_HW, camera, points_N3, grasp_3, approach_3)
    # In logarithms of depth, the step of a steep surface from pixel to pixel is the same at all distances.
    step = max(JUMP_M / float(np.median(depth_HW[rows, columns])), STEEP / camera.focal_px)
    logarithm = np.log(np.maximum(depth_HW, MIN_DEPTH_M), dtype=np.float32)
    closed = np.ones((height + 2, width + 2), np.uint8)  # OpenCV wants a border of one pixel
    closed[1:-1, 1:-1] = ~allowed
    flags = 8 | cv2.FLOODFILL_MASK_ONLY | (2 << 8)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if not closed[row + 1, column + 1]:
            cv2.floodFill(logarithm, closed, (column, row), 0, step, step, flags)
    found[closed[1:-1, 1:-1] == 2] = 1
    if seen_HW is not None:
        come = (rear & (seen_HW > 0) & (depth_HW < seen_HW - NEARER_M)).astype(np.uint8)
        found[cv2.morphologyEx(come, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0] = 1
    return found


def _behind(
    depth_HW: np.ndarray, camera: Camera, points_N3: np.ndarray, grasp_3: np.ndarray, approach_3: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """bool [H,W] twice: where the actor may be seen, and where something behind all of the effector is seen."""
    height, width = depth_HW.shape
    k, grasp, approach = (array.astype(np.float32) for array in (camera.intrinsics_33, grasp_3, approach_3))
    x_HW = depth_HW * ((np.arange(width, dtype=np.float32) + 0.5 - k[0, 2]) / k[0, 0]) - grasp[0]
    y_HW = depth_HW * ((np.arange(height, dtype=np.float32) + 0.5 - k[1, 2]) / k[1, 1])[:, None] - grasp[1]
    z_HW = depth_HW - grasp[2]
    ahead_HW = x_HW * approach[0] + y_HW * approach[1] + z_HW * approach[2]
    aside_HW = x_HW * x_HW + y_HW * y_HW + z_HW * z_HW - ahead_HW * ahead_HW
    offset_N3 = points_N3 - grasp_3
    ahead_N = offset_N3 @ approach_3
    aside_N = np.linalg.norm(offset_N3 - ahead_N[:, None] * approach_3, axis=1)
    known = depth_HW > 0
    rear = known & (ahead_HW <= ahead_N.min())
    beside = known & (ahead_HW <= AHEAD_M) & (aside_HW <= (aside_N.max() + BESIDE_M) ** 2)
    return rear | beside, rear


def _outline(camera: Camera, points_N3: np.ndarray, approach_3: np.ndarray | None) -> np.ndarray:
    """uint8 [H,W]: the hull of the effector's points, and the band behind it in which it leaves the picture."""
    width, height = camera.image_size
    found = np.zeros((height, width), np.uint8)
    pixels = camera.project(points_N3)
    hull = cv2.convexHull(np.clip(pixels, -4 * width, 5 * width).astype(np.int32))
    cv2.fillConvexPoly(found, hull, 1)
    if approach_3 is None:
        return found
    along = _backwards(camera, points_N3, pixels, approach_3)
    if along is None:
        return found
    start = pixels.mean(0)
    beside = np.abs((pixels - start) @ np.array([-along[1], along[0]]))
    thickness = max(1, round(2 * float(np.quantile(beside, 0.9))))
    end = start + along * (width + height)
    cv2.line(found, tuple(start.astype(int).tolist()), tuple(end.astype(int).tolist()), 1, thickness)
    return found


def _backwards(
    camera: Camera, points_N3: np.ndarray, pixels_N2: np.ndarray, approach_3: np.ndarray
) -> np.ndarray | None:
    """Unit vector in the picture against the approach, f64 [2]; None where it points straight along the view.

    A long effector, as a hand with its wrist, tells by its own length where it comes from; the approach is
    foreshortened, and tells only which of its ends that is.
    """
    middle_3 = points_N3.mean(0)
    start, back = camera.project(np.stack([middle_3, middle_3 - BACK * middle_3[2] * approach_3]))
    along = back - start
    if np.linalg.norm(along) < STRAIGHT * BACK * camera.focal_px:
        return None
    _, (long, short), axes = np.linalg.svd(pixels_N2 - pixels_N2.mean(0), full_matrices=False)
    if long > LONG * short:
        along = axes[0] * np.sign(axes[0] @ along)
    return along / np.linalg.norm(along)
