"""The shape of what moves: a chain that enters the picture somewhere, and its far end.

Distances run inside the moving region (geodesic), from where it comes in, and count double or treble where it is thin:
the fingers of a gripper are far out, the elbow of a thick arm is not. What is farthest is where the effector may be; a
frame has several such places. An effector is far out, is faster than the rest of the arm, looks the same in all frames
and does not jump: the path through all frames that is best at that decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from extract.robot.looks import colours, likeness

TIP = 0.03  # of the picture's longer side: what is that near to the far end gives the tip
REACH = (1.6, 0.10, 0.22)  # effector length: times the thickness, at least, at most (of the longer side)
APART = 0.15  # of the longer side: ends of one region are at least so far apart
RIVAL = 0.45  # an end is at least so far out, relative to the farthest
THIN = 0.2  # distances count 1 / (THIN + depth below the outline / half the region's thickness)
FREQUENT = 0.4  # a place at the edge where the chain is seen this often, relative to the most frequent, is an entrance
REGIONS, ENDS = 3, 4  # per frame, per region
LEAST = 24  # pixels: smaller regions are noise
STEP, MOST_JUMP = 0.08, 9.0  # a usual step of the end per frame, of the longer side; the worst that a jump costs
# What counts for an end, in squared usual steps: logarithms of its rank, its distance and its liveliness,
# and how much it looks like the ends chosen in other frames.
RANK, LENGTH, LIVELY, ALIKE = 3.5, 1.2, 2.5, 10.0
CLEAR = 3.0  # lead of the best path over one through another end that makes a frame clear
ROUNDS = 3  # of choosing by looks
LULL = 0.05  # share of changed pixels that is as good as none


@dataclass(frozen=True)
class FarEnd:
    """tip_2: pixels. region_HW: bool, the end of the chain. length: of the way to it inside the chain, pixels.

    rank: how far out it is, relative to the farthest end of its chain. lively: log of how much of it has changed,
    relative to all that moves in that frame; the sum over the frame alone and its neighbourhood in time.
    """

    tip_2: np.ndarray
    region_HW: np.ndarray
    length: float
    rank: float
    lively: float


@dataclass(frozen=True)
class Choice:
    """The end of one frame. lead: how much more the best path through another end of that frame would cost.

    alike: 0..1, how much it looks like the ends of the other frames.
    """

    end: FarEnd
    lead: float
    alike: float


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


def far_ends(
    moving_HW: np.ndarray, entrance_HW: np.ndarray, changed_HW: np.ndarray, lately_HW: np.ndarray
) -> list[FarEnd]:
    """The ends of the regions of one frame in which most has changed. lately_HW: has changed there or thereabouts."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(moving_HW.astype(np.uint8), connectivity=8)
    large = [label for label in range(1, count) if stats[label, cv2.CC_STAT_AREA] >= LEAST]
    near = cv2.dilate(changed_HW.astype(np.uint8), np.ones((3, 3), np.uint8))
    mass = {label: int(near[labels == label].sum()) for label in large}
    ends: list[FarEnd] = []
    for label in sorted(large, key=lambda label: (-mass[label], label))[:REGIONS]:
        if mass[label] > 0:
            for tip, end, length, rank in _region_ends(labels == label, entrance_HW):
                lively = _log_ratio(changed_HW, end, moving_HW) + _log_ratio(lately_HW, end, moving_HW)
                ends.append(FarEnd(tip, end, length, rank, lively))
    return ends


def _log_ratio(changed_HW: np.ndarray, end_HW: np.ndarray, moving_HW: np.ndarray) -> float:
    return float(np.log((changed_HW[end_HW].mean() + LULL) / (changed_HW[moving_HW].mean() + LULL)))


def _region_ends(region: np.ndarray, entrance_HW: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, float, float]]:
    """Tip, region, length and rank of the ends of one connected region."""
    start = region & entrance_HW
    if not start.any():
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
        ends.append((tip, end, float(plain[row, column]), peak / farthest))
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


def choose(ends: Sequence[Sequence[FarEnd]], images: Sequence[np.ndarray], side: float) -> list[Choice | None]:
    """One end per frame: first by place and liveliness, then also by looks, which the clear frames of the round before
    teach. images: uint8 [H,W,3], at the size of the ends. side: their longer side, pixels."""
    slots = np.repeat(np.arange(len(ends)), [len(found) for found in ends])
    if not len(slots):
        return [None] * len(ends)
    own = np.array([-_merit(end) for found in ends for end in found])
    looks = np.stack(
        [colours(image, end.region_HW) for image, found in zip(images, ends, strict=True) for end in found]
    )
    first = np.searchsorted(slots, np.arange(len(ends)))
    alike = np.zeros(len(slots))
    picks = _best_path(ends, np.split(own, first[1:]), side)
    for _ in range(ROUNDS):
        taken = [(first[slot] + pick[0], pick[1]) for slot, pick in enumerate(picks) if pick is not None]
        weights = 1 - np.exp(-np.array([lead for _, lead in taken]) / CLEAR)
        alike = likeness(looks, slots, np.array([number for number, _ in taken]), weights)
        picks = _best_path(ends, np.split(own - ALIKE * alike, first[1:]), side)
    return [
        None if pick is None else Choice(found[pick[0]], pick[1], float(alike[start + pick[0]]))
        for found, pick, start in zip(ends, picks, first, strict=True)
    ]


def _merit(end: FarEnd) -> float:
    return RANK * float(np.log(end.rank)) + LENGTH * float(np.log(end.length + 1)) + LIVELY * end.lively


def _best_path(
    ends: Sequence[Sequence[FarEnd]], own: Sequence[np.ndarray], side: float
) -> list[tuple[int, float] | None]:
    """One end per frame, so that they cost little and jump little (Viterbi, 1967), with its lead over the next."""
    chosen: list[tuple[int, float] | None] = [None] * len(ends)
    shown = [slot for slot, found in enumerate(ends) if found]
    if not shown:
        return chosen
    jumps = [
        _jump_cost(ends[before], ends[slot], side * STEP, slot - before) for before, slot in itertools.pairwise(shown)
    ]
    ahead = [own[shown[0]]]
    for slot, jump in zip(shown[1:], jumps, strict=True):
        ahead.append(own[slot] + (ahead[-1][:, None] + jump).min(0))
    back = [np.zeros(len(ends[shown[-1]]))]
    for slot, jump in zip(shown[:0:-1], jumps[::-1], strict=True):
        back.append((jump + (own[slot] + back[-1])[None]).min(1))
    for slot, before, after in zip(shown, ahead, back[::-1], strict=True):
        cost = before + after
        order = np.argsort(cost, kind="stable")
        margin = float(cost[order[1]] - cost[order[0]]) if len(order) > 1 else MOST_JUMP
        chosen[slot] = int(order[0]), margin
    return chosen


def _jump_cost(before: Sequence[FarEnd], after: Sequence[FarEnd], step: float, frames: int) -> np.ndarray:
    old, new = np.stack([end.tip_2 for end in before]), np.stack([end.tip_2 for end in after])
    jump = np.linalg.norm(new[None] - old[:, None], axis=-1) / (step * np.sqrt(frames))
    return np.minimum(jump**2, MOST_JUMP)
