"""Which frames of a hand can be trusted, and what a whole track is worth: scores from what the detector saw.

Everything here is measured against the track itself (a frame against its neighbours) or against a second look at the
mirrored picture. Nothing here knows the truth; how well it tells good from bad is in docs/results/extraction.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from extract.effector import Camera
from extract.hand.observe import depth_of_least_foreshortened_chord
from extract.hand.skeleton import JOINTS, PALM, palm_size

SENSED = 6  # landmarks with sensor depth that make a frame's distance measured
INSIDE = 0.7  # a frame needs this share of the joints within the picture
BLURRED = 0.55  # ... and this share of the sharpness of the track's sharp frames
AROUND_S = 0.26  # a frame is compared with the median of the frames within this time on each side
STRAY = 0.45  # hand sizes that the palm may be away from that median
SWOLLEN = 0.22  # ... and by how much the logarithm of the size may differ, of the hand as of its palm
CLEAR_RELIEF = 0.2  # a correlation that leaves no doubt
SECOND_COUNTS, RELIEF_COUNTS = 1.5, 6.0  # labels count 1
DOUBTFUL = 0.35
SLOWEST_S = 0.15  # with longer steps from frame to frame, jumps tell nothing
PALM_AND_THUMB = (*PALM, 1)
STILL = 0.02  # hand sizes; a hand that moved less may be seen in the same picture again


@dataclass(frozen=True)
class Seen:
    """One hand in K frames in which it was detected.

    time_K: seconds. landmarks_K212: pixels. world_K213: metres. right_K: the label. score_K: its score.
    sharpness_K, repeated_K: see signals.py. place_K: distance to the hand found in the mirrored picture, hand sizes;
    NaN where there was no second look, infinite where it found nothing. mirrored_right_K: the side that the second look
    speaks for, -1 (left) to 1, NaN where there was none. surface_z_K21: sensor depth at the landmarks, metres, or NaN.
    """

    time_K: np.ndarray
    landmarks_K212: np.ndarray
    world_K213: np.ndarray
    right_K: np.ndarray
    score_K: np.ndarray
    sharpness_K: np.ndarray
    repeated_K: np.ndarray
    place_K: np.ndarray
    mirrored_right_K: np.ndarray
    surface_z_K21: np.ndarray

    def part(self, rows: np.ndarray) -> Seen:
        """Some of the frames."""
        return Seen(**{name: value[rows] for name, value in vars(self).items()})

    @property
    def centre_K2(self) -> np.ndarray:
        """Centre of the palm, pixels."""
        return self.landmarks_K212[:, PALM].mean(1)

    @property
    def size_K(self) -> np.ndarray:
        """Spread of the landmarks, pixels: changes with distance and pose, and smoothly."""
        return _spread(self.landmarks_K212)

    @property
    def palm_size_K(self) -> np.ndarray:
        """The same of the palm alone, which no finger changes."""
        return _spread(self.landmarks_K212[:, PALM_AND_THUMB])

    @property
    def depth_K(self) -> np.ndarray:
        """Sensor depth of the hand, metres; NaN where fewer than SENSED landmarks have one."""
        enough = np.isfinite(self.surface_z_K21).sum(1) >= SENSED
        depth = np.full(len(enough), np.nan)
        depth[enough] = np.nanmedian(self.surface_z_K21[enough], axis=1)
        return depth


def _spread(landmarks_KJ2: np.ndarray) -> np.ndarray:
    away = landmarks_KJ2 - landmarks_KJ2.mean(1, keepdims=True)
    return np.maximum(4 * np.sqrt((away**2).sum(-1).mean(1)), 1.0)


def trusted(seen: Seen, image_size: tuple[int, int]) -> np.ndarray:
    """bool [K]: frames worth using."""
    if len(seen.time_K) == 0:
        return np.zeros(0, bool)
    good = inside(seen, image_size) >= INSIDE
    good &= seen.sharpness_K >= BLURRED * np.quantile(seen.sharpness_K, 0.75)
    good &= ~_stale(seen)
    return good & ~_outliers(seen, good)


def inside(seen: Seen, image_size: tuple[int, int]) -> np.ndarray:
    """f64 [K]: share of the joints that lie within the picture."""
    within = (seen.landmarks_K212 >= 0) & (seen.landmarks_K212 <= np.array(image_size))
    return within.all(-1).mean(1)


def _stale(seen: Seen) -> np.ndarray:
    """The picture was shown once more although the hand is in motion: where the hand is now, it does not show."""
    stale = seen.repeated_K.copy()
    fresh = np.flatnonzero(~stale)
    for row in np.flatnonzero(stale):
        after = np.searchsorted(fresh, row)
        if 0 < after < len(fresh):
            before, next_ = seen.landmarks_K212[fresh[after - 1]], seen.landmarks_K212[fresh[after]]
            stale[row] = np.linalg.norm(next_ - before, axis=-1).mean() > STILL * seen.size_K[row]
    return stale


def _outliers(seen: Seen, usable_K: np.ndarray) -> np.ndarray:
    """Frames that differ from the median of those around them; steady motion of any speed does not."""
    outlier = np.zeros(len(usable_K), bool)
    centre, size, palm = seen.centre_K2, np.log(seen.size_K), np.log(seen.palm_size_K)
    for row, time in enumerate(seen.time_K):
        near = np.flatnonzero(usable_K & (np.abs(seen.time_K - time) <= AROUND_S))
        # As many before as after, so that a steady motion has its median here.
        before, after = near[near < row], near[near > row]
        count = min(len(before), len(after))
        if count < 2:
            continue
        around = np.concatenate([before[-count:], [row], after[:count]])
        away = np.linalg.norm(centre[row] - np.median(centre[around], 0)) / np.exp(np.median(size[around]))
        swollen = [values[row] - np.median(values[around]) for values in (size, palm)]
        outlier[row] = away > STRAY or min(np.abs(swollen)) > SWOLLEN
    return outlier


def scores(seen: Seen, camera: Camera, assumed_palm_m: float) -> dict[str, float]:
    """Named scores of the frames that are used.

    inside: share of the joints within the picture. sharpness: median, see signals.py. score: mean of the label's.
    bone_stability: standard deviation of the detector's palm size over its mean. jump: the largest step of the palm
    that the steps around it do not explain, hand sizes. swell: the same for the logarithm of its size. jitter: median
    distance of the landmarks from the middle of those one frame before and after, hand sizes. sensed: share of frames
    with sensor depth. depth_by_size: logarithm of the sensor's depth over the depth by the hand's size. depth_jump: the
    largest unexplained step of the logarithm of the sensor's depth.
    """
    result = {
        "inside": float(inside(seen, camera.image_size).mean()),
        "sharpness": float(np.median(seen.sharpness_K)),
        "score": float(seen.score_K.mean()),
    }
    world = palm_size(seen.world_K213)
    result |= _depth_scores(seen, camera, assumed_palm_m)
    result["bone_stability"] = float(world.std() / world.mean())
    steps = np.diff(seen.time_K)
    rate = float(np.median(steps)) if len(steps) else 0.0
    jump, swell, jitter = _steps(seen, rate)
    if len(jump):
        result |= {"jump": float(jump.max()), "swell": float(swell.max()), "jitter": float(np.median(jitter))}
    return result


def second_look(seen: Seen) -> dict[str, float]:
    """How far the hand was from where second looks found one, hand sizes; 9 stands for not found.

    The lower quartile: a hand that is there is missed now and then, what is none is not found at all.
    """
    looks = seen.place_K[~np.isnan(seen.place_K)].clip(0, 9)
    return {"second_look": float(np.quantile(looks, 0.25, method="lower"))} if len(looks) else {}


def _growth(seen: Seen) -> np.ndarray:
    """f64 [K-1]: by how much the palm grew in the picture from frame to frame, logarithm.

    An affine map takes one palm to the next. A hand that turns grows or shrinks along one axis, a hand that comes
    nearer along both: the smaller change of the two counts, none when they have opposite signs.
    """
    palm = seen.landmarks_K212[:, PALM_AND_THUMB]
    palm = palm - palm.mean(1, keepdims=True)
    before, after = palm[:-1], palm[1:]
    spread = before.transpose(0, 2, 1) @ before + 1e-3 * np.eye(2)
    stretch = np.log(np.linalg.svd(np.linalg.solve(spread, before.transpose(0, 2, 1) @ after), compute_uv=False) + 1e-6)
    smaller = np.take_along_axis(stretch, np.abs(stretch).argmin(1)[:, None], 1)[:, 0]
    return np.where(stretch.prod(1) > 0, smaller, 0.0)


def _depth_scores(seen: Seen, camera: Camera, assumed_palm_m: float) -> dict[str, float]:
    """How the sensor's depth goes with the size of the hand, whether it jumps, and how often there is any."""
    depth = seen.depth_K
    known = np.flatnonzero(np.isfinite(depth))
    if len(known) < 5:
        return {}
    time, log_depth = seen.time_K[known], np.log(depth[known])
    rays = camera.unproject(seen.landmarks_K212[known], np.ones((len(known), JOINTS)))[..., :2]
    by_size = depth_of_least_foreshortened_chord(rays, assumed_palm_m)
    result = {"sensed": len(known) / len(depth), "depth_by_size": float(np.median(log_depth - np.log(by_size)))}
    if np.median(np.diff(time)) <= SLOWEST_S:
        steps = _depth_steps(seen.surface_z_K21[known])
        result["depth_jump"] = float(np.abs(steps - _usual(steps / np.diff(time)) * np.diff(time)).max())
    return result


def _depth_steps(surface_z_K21: np.ndarray) -> np.ndarray:
    """f64 [K-1]: the step of the logarithm of the depth of most landmarks; single ones slip off the hand's edges."""
    log_z = np.log(surface_z_K21)
    steps = np.diff(log_z, axis=0)
    common = np.isfinite(steps).sum(1) >= SENSED
    result = np.diff(np.nanmedian(log_z, axis=1))
    result[common] = np.nanmedian(steps[common], axis=1)
    return result


def _usual(values: np.ndarray, reach: int = 3) -> np.ndarray:
    """Median of the ``reach`` values on each side, without the value itself."""
    return np.array(
        [np.median([*values[max(i - reach, 0) : i], *values[i + 1 : i + 1 + reach]]) for i in range(len(values))]
    )


def relief(seen: Seen) -> np.ndarray:
    """f64 [K], -1..1: how much the sensor's relief of the hand is that of the detector's landmarks; mirrored ones are
    negative. NaN without a sensor."""
    z = seen.surface_z_K21
    result = np.full(len(z), np.nan)
    for row in np.flatnonzero(np.isfinite(z).sum(1) >= 2 * SENSED):
        known = np.isfinite(z[row])
        sensed, told = (values - values.mean() for values in (z[row, known], seen.world_K213[row, known, 2]))
        result[row] = sensed @ told / max(float(np.linalg.norm(sensed) * np.linalg.norm(told)), 1e-9)
    return result


def rightness(seen: Seen) -> float:
    """Evidence of the side, -1 (left) .. 1 (right): labels, second looks, and above all the relief in the sensor."""
    if len(seen.time_K) == 0:
        return 0.0
    sign = np.where(seen.right_K, 1.0, -1.0)
    evidence, weights = [float(np.mean(sign * seen.score_K))], [1.0]
    looked = seen.mirrored_right_K[np.isfinite(seen.mirrored_right_K)]
    if len(looked):
        evidence.append(float(looked.mean()))
        weights.append(SECOND_COUNTS)
    measured = sign * relief(seen)
    if np.isfinite(measured).sum() >= 3:
        evidence.append(float(np.clip(np.nanmean(measured) / CLEAR_RELIEF, -1, 1)))
        weights.append(RELIEF_COUNTS)
    return float(np.average(evidence, weights=weights))


def sides(evidence: list[float], at_once: list[tuple[int, int]]) -> list[str]:
    """The side of every hand, from its ``rightness``. at_once: pairs of hands that are seen together for long.

    Two hands at once are mostly a left and a right one: when both seem to be of one side and one of them is in doubt,
    that one is the other.
    """
    right = [value >= 0 for value in evidence]
    for first, second in at_once:
        if right[first] == right[second]:
            doubtful = min(first, second, key=lambda number: abs(evidence[number]))
            if abs(evidence[doubtful]) < DOUBTFUL:
                right[doubtful] = not right[doubtful]
    return ["right" if value else "left" for value in right]


def _steps(seen: Seen, rate: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How far each step of the palm (hand sizes) and of the logarithm of its size is from the steps around it."""
    if len(seen.time_K) < 5 or rate > SLOWEST_S:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    elapsed = np.diff(seen.time_K)
    size = np.median(seen.size_K)
    velocity = np.diff(seen.centre_K2, axis=0) / elapsed[:, None] / size
    growth = _growth(seen) / elapsed
    jump, swell = [], []
    for row in range(len(elapsed)):
        near = [k for k in range(row - 3, row + 4) if 0 <= k < len(elapsed) and k != row]
        jump.append(np.linalg.norm(velocity[row] - np.median(velocity[near], 0)) * min(elapsed[row], 2 * rate))
        swell.append(abs(growth[row] - np.median(growth[near])) * min(elapsed[row], 6 * rate))
    middle = 0.5 * (seen.landmarks_K212[2:] + seen.landmarks_K212[:-2])
    jitter = np.linalg.norm(seen.landmarks_K212[1:-1] - middle, axis=-1).mean(1) / seen.size_K[1:-1]
    return np.array(jump), np.array(swell), jitter
