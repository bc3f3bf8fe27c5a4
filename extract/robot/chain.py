"""The shape of what moves: a chain that enters the picture somewhere, and its far end.

Distances run inside the moving region (geodesic), from where it comes in, and count double or treble where it is thin:
the fingers of a gripper are far out, the elbow of a thick arm is not. What is farthest is where the effector may be; a
frame has several such places, and the path through all frames that jumps least decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

TIP = 0.03  # of the picture's longer side: what is that near to the far end gives the tip
REACH = (1.6, 0.10, 0.22)  # effector length: times the thickness, at least, at most (of the longer side)
APART = 0.15  # of the longer side: ends of one region are at least so far apart
RIVAL = 0.6  # an end is at least so far out, relative to the farthest
THIN = 0.2  # distances count 1 / (THIN + depth below the outline / half the region's thickness)
FREQUENT = 0.4  # a place at the edge where the chain is seen this often, relative to the most frequent, is an entrance
REGIONS, ENDS = 2, 3  # per frame, per region
LEAST = 24  # pixels: smaller regions are noise
STEP, MOST_JUMP = 0.08, 9.0  # a usual step of the end per frame, of the longer side; the worst that a jump costs


@dataclass(frozen=True)
class FarEnd:
    """tip_2: pixels. region_HW: bool, the end of the chain. length, width: of the chain, pixels.

    entered: the chain touches an entrance. share: of all that moves, that this chain has. rank: how far out it is,
    relative to the farthest end of its chain.
    """

    tip_2: np.ndarray
    region_HW: np.ndarray
    length: float
    width: float
    entered: bool
    share: float
    rank: float


def entrances(moving_THW: np.ndarray) -> np.ndarray:
    """bool [H,W]: pixels of the picture's edge through which the chain most often enters."""
    share = moving_THW.mean(0)
    rim = edge(share.shape)
    smooth = cv2.GaussianBlur(np.where(rim, share, 0).astype(np.float32), (0, 0), 2)
    return rim & (smooth > FREQUENT * smooth.max()) & (smooth > 0)


def edge(shape: tuple[int, ...]) -> np.ndarray:
    """bool [H,W]: the outermost two pixels."""
    rim = np.ones(shape[:2], bool)
    rim[2:-2, 2:-2] = False
    return rim


def far_ends(moving_HW: np.ndarray, entrance_HW: np.ndarray, weight_HW: np.ndarray) -> list[FarEnd]:
    """The ends of the regions of one frame that weigh most.

    weight_HW: f32, how much a pixel speaks for its region.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(moving_HW.astype(np.uint8), connectivity=8)
    large = [label for label in range(1, count) if stats[label, cv2.CC_STAT_AREA] >= LEAST]
    mass = {label: float(weight_HW[labels == label].sum()) for label in large}
    total = sum(mass.values())
    ends: list[FarEnd] = []
    for label in sorted(large, key=lambda label: (-mass[label], label))[:REGIONS]:
        if mass[label] > 0:
            ends += _region_ends(labels == label, entrance_HW, mass[label] / total)
    return ends


def _region_ends(region: np.ndarray, entrance_HW: np.ndarray, share: float) -> list[FarEnd]:
    start = region & entrance_HW
    entered = bool(start.any())
    if not entered:
        start = region & edge(region.shape)
    if not start.any():
        start = _nearest_to_edge(region)
    side = max(region.shape)
    padded = np.pad(region.astype(np.uint8), 1, mode="edge")  # the picture's edge is no outline
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    half = max(float(np.quantile(depth[region], 0.9)), 1.0)
    cost = 1 / (THIN + np.minimum(depth / half, 1))
    plain = _distances(region, start, np.ones_like(cost))
    weighed = _distances(region, start, cost)
    reach = float(np.clip(REACH[0] * 2 * half, REACH[1] * side, REACH[2] * side))
    farthest = float(weighed.max())
    rows, columns = np.meshgrid(*(np.arange(side) for side in region.shape), indexing="ij")
    open_, ends = region.copy(), []
    while len(ends) < ENDS and open_.any():
        value = np.where(open_, weighed, -1.0)
        peak = float(value.max())
        if peak <= 3 or peak < RIVAL * farthest:
            break
        row, column = divmod(int(value.argmax()), value.shape[1])
        apart = np.hypot(rows - row, columns - column)
        near = region & (apart <= TIP * side)
        tip = np.array([columns[near].mean(), rows[near].mean()]) + 0.5
        end = region & (apart <= reach) & (plain >= plain[row, column] - reach)
        ends.append(FarEnd(tip, end, float(plain[row, column]), 2 * half, entered, share, peak / farthest))
        open_ &= apart > APART * side
    return ends


def _nearest_to_edge(region: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(region)
    height, width = region.shape
    gap = np.minimum(np.minimum(rows, height - 1 - rows), np.minimum(columns, width - 1 - columns))
    start = np.zeros_like(region)
    start[rows[gap == gap.min()], columns[gap == gap.min()]] = True
    return start


def _distances(region: np.ndarray, start: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """f64 [H,W]: length of the cheapest way inside ``region`` from ``start``; -1 where none leads."""
    number = np.full(region.shape, -1)
    number[region] = np.arange(int(region.sum()))
    first, second, length = [], [], []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        left, far = max(0, -right), max(0, right)
        here = number[: region.shape[0] - down, left : region.shape[1] - far]
        there = number[down:, left + right : region.shape[1] - far + right]
        both = (here >= 0) & (there >= 0)
        first.append(here[both])
        second.append(there[both])
        price = cost[region]
        length.append(np.hypot(down, right) * (price[here[both]] + price[there[both]]) / 2)
    size = int(region.sum())
    graph = coo_matrix((np.concatenate(length), (np.concatenate(first), np.concatenate(second))), (size, size)).tocsr()
    ways = dijkstra(graph, directed=False, indices=number[start], min_only=True)
    distances = np.full(region.shape, -1.0)
    distances[region] = np.where(np.isfinite(ways), ways, -1)
    return distances


def steadiest(ends: Sequence[Sequence[FarEnd]], side: float) -> list[tuple[FarEnd, float] | None]:
    """One end per frame, so that they are far out, their chains weigh much and enter the picture, and they jump little
    (Viterbi, 1967); and by how much the best path through another end of that frame would cost more."""
    chosen: list[tuple[FarEnd, float] | None] = [None] * len(ends)
    shown = [slot for slot, found in enumerate(ends) if found]
    if not shown:
        return chosen
    jumps = [
        _jump_cost(ends[before], ends[slot], side * STEP, slot - before) for before, slot in itertools.pairwise(shown)
    ]
    ahead = [_own_cost(ends[shown[0]])]
    for slot, jump in zip(shown[1:], jumps, strict=True):
        ahead.append(_own_cost(ends[slot]) + (ahead[-1][:, None] + jump).min(0))
    back = [np.zeros(len(ends[shown[-1]]))]
    for slot, jump in zip(shown[:0:-1], jumps[::-1], strict=True):
        back.append((jump + (_own_cost(ends[slot]) + back[-1])[None]).min(1))
    for slot, before, after in zip(shown, ahead, back[::-1], strict=True):
        cost = before + after
        order = np.argsort(cost, kind="stable")
        margin = float(cost[order[1]] - cost[order[0]]) if len(order) > 1 else MOST_JUMP
        chosen[slot] = ends[slot][int(order[0])], margin
    return chosen


def _jump_cost(before: Sequence[FarEnd], after: Sequence[FarEnd], step: float, frames: int) -> np.ndarray:
    old, new = np.stack([end.tip_2 for end in before]), np.stack([end.tip_2 for end in after])
    jump = np.linalg.norm(new[None] - old[:, None], axis=-1) / (step * np.sqrt(frames))
    return np.minimum(jump**2, MOST_JUMP)


def _own_cost(ends: Sequence[FarEnd]) -> np.ndarray:
    return np.array([-2 * np.log(end.share) - 6 * np.log(end.rank) + (0 if end.entered else 1.0) for end in ends])
