"""A gripper followed frame by frame in colour: what extraction uses for every frame of a video, and a running policy.

Where it is expected it is looked at a few times, each time from where the last look saw it; where it is not there, the
whole picture is searched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.episode import Frame
from extract.effector import Camera
from extract.gripper.estimate import Estimate
from extract.gripper.learned.body import Body
from extract.gripper.learned.gaze import Picture
from extract.gripper.learned.model import LearnedGripperModel
from extract.gripper.learned.pose import Look, looks, together
from extract.gripper.learned.steady import Belief, expected, first_belief, ray_noise, turned_towards, updated

ROLLS = (-0.06, 0.06)  # radians, of the last looks, whose mean counts
LOOKS = 2  # before those
SEARCH_LOOKS = 3
WIDEST = 0.2  # of the picture's longer side, a focal length (136 degrees): shorter ones would be searched without end
APART, DEEPER = 0.45, 0.45  # crop widths, logarithm: between places of a search, less than twice what lessons are off
KEPT = 6  # places of a search that are looked at closer
CONVERGED, SETTLED = 0.2, 0.15  # crop widths, logarithm: the last looks see it where they look
MOST_ALONG = 0.08  # of the distance, one sigma: a look that knows so little of it tells nothing
RANGE = 1.5  # times further or nearer than in the labelled episodes, at most
JUMP_M, JUMP_M_S = 0.06, 1.5  # how far from where it was expected: more is another thing
FORGET_S = 0.5  # after so long unseen, the last place says nothing
REST_S = 0.25  # the longest that a gripper that is nowhere to be found is not looked for
# One sigma: what the network expects to be wrong by is what it learnt from lessons. See tests/benchmarks/
# gripper_following.py: so many times more hold 68 % in simulated episodes of other tasks, and this much at least.
ACROSS, ALONG = 1.6, 0.75
LEAST_ACROSS, LEAST_ALONG = 0.003, 0.004  # of the distance


@dataclass(frozen=True)
class LearnedEstimate(Estimate):
    """sigma_2: f64 metres, one sigma of the position across and along the ray. measured_44, measured_opening: of this

    frame alone; the others rest on earlier frames, too."""

    sigma_2: np.ndarray
    measured_44: np.ndarray
    measured_opening: float


class LearnedGripper:
    """Follows one gripper through the frames of one camera. See ``see``; ``reset`` before another video."""

    def __init__(self, model: LearnedGripperModel, camera: Camera, points: int = 200, min_score: float = 0.5):
        self._model, self._camera, self._min_score = model, camera, min_score
        self._body = model.spread(points)
        self.reset()

    def reset(self) -> None:
        """Forget the last frames."""
        self._last: tuple[float, Belief, np.ndarray] | None = None
        self._missed_since, self._next_search = np.inf, -np.inf

    def see(self, frame: Frame) -> LearnedEstimate | None:
        """The gripper in the next frame; None where it is not found. Causal; nothing but the image is used."""
        if self._last is not None and not 0 < frame.time - self._last[0] <= FORGET_S:
            self.reset()
        picture = Picture(frame.image, self._camera)
        look = self._followed(picture, frame.time)
        if look is None and frame.time >= self._next_search:
            look = self._searched(picture)
            if look is not None:
                self._last = None  # what was followed is another thing, or has jumped
        if look is None:
            # the longer it is gone, the less often it is worth the search
            self._missed_since = min(self._missed_since, frame.time)
            self._next_search = frame.time + min(frame.time - self._missed_since, REST_S)
            return None
        self._missed_since, self._next_search = np.inf, -np.inf
        return self._estimated(look, frame.time)

    def _estimated(self, look: Look, time: float) -> LearnedEstimate:
        sigma = honest_sigma(look)
        noise = ray_noise(look.pose_44[:3, 3], sigma)
        rotation = look.pose_44[:3, :3]
        if self._last is None:
            belief = first_belief(look.pose_44[:3, 3], noise)
        else:
            before, believed, turn = self._last
            belief = updated(expected(believed, time - before), look.pose_44[:3, 3], noise)
            rotation = turned_towards(turn, rotation, time - before)
        self._last = time, belief, rotation
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation, belief.mean_6[:3]
        return estimate_of(self._model, self._body, self._camera, pose, look, sigma)

    def _followed(self, picture: Picture, time: float) -> Look | None:
        if self._last is None:
            return None
        before, belief, rotation = self._last
        ahead = expected(belief, time - before).mean_6[:3]
        anchor = rotation @ self._model.anchor_3
        for start in (ahead, belief.mean_6[:3]):
            if (start + anchor)[2] <= 0:
                continue
            look = self._refined(picture, [start + anchor], LOOKS)[0]
            if look is not None and np.linalg.norm(look.pose_44[:3, 3] - ahead) < JUMP_M + JUMP_M_S * (time - before):
                return look
        return None

    def _searched(self, picture: Picture) -> Look | None:
        """The best of the whole picture."""
        places = search_places(self._camera, self._model)
        found = looks(self._model, picture, places, [0.0] * len(places))
        order = np.argsort([-look.score for look in found], kind="stable")
        starts: list[np.ndarray] = []
        for look in (found[k] for k in order if found[k].score > self._min_score):
            near = 0.3 * self._model.width
            if look.anchor_3[2] > 0 and all(np.linalg.norm(look.anchor_3 - other) > near for other in starts):
                starts.append(look.anchor_3)
        if not starts:
            return None
        good = [look for look in self._refined(picture, starts[:KEPT], SEARCH_LOOKS) if look is not None]
        return max(good, key=lambda look: look.score, default=None)

    def _refined(self, picture: Picture, places: Sequence[np.ndarray], count: int) -> list[Look | None]:
        """``count`` looks from every place on, then the last ones together; None where they see no gripper there."""
        alive = dict(enumerate(places))
        for _ in range(count):
            found = looks(self._model, picture, list(alive.values()), [0.0] * len(alive))
            alive = {k: look.anchor_3 for k, look in zip(alive, found, strict=True) if self._possible(look)}
            if not alive:
                return [None] * len(places)
        last = looks(self._model, picture, [p for p in alive.values() for _ in ROLLS], list(ROLLS) * len(alive))
        means = [together(last[k * len(ROLLS) : (k + 1) * len(ROLLS)]) for k in range(len(alive))]
        good = {k: look for k, look in zip(alive, means, strict=True) if self._believed(look)}
        return [good.get(k) for k in range(len(places))]

    def _possible(self, look: Look) -> bool:
        """In front of the camera, and about as far as in the labelled episodes."""
        distance, (near, far) = float(np.linalg.norm(look.anchor_3)), self._model.range_2
        return look.anchor_3[2] > 0 and near / RANGE < distance < far * RANGE

    def _believed(self, look: Look) -> bool:
        settled = look.aside < CONVERGED and abs(look.further) < SETTLED
        sure = look.sigma_2[1] < MOST_ALONG * float(np.linalg.norm(look.anchor_3))
        return look.score >= self._min_score and settled and sure and self._possible(look)


def honest_sigma(look: Look) -> np.ndarray:
    """f64 [2] metres, across and along the ray."""
    distance = np.linalg.norm(look.pose_44[:3, 3])
    return np.hypot(np.array([ACROSS, ALONG]) * look.sigma_2, np.array([LEAST_ACROSS, LEAST_ALONG]) * distance)


def estimate_of(
    model: LearnedGripperModel, body: Body, camera: Camera, pose_44: np.ndarray, look: Look, sigma_2: np.ndarray
) -> LearnedEstimate:
    """The estimate that belongs to a pose (camera_from_effector) which a look and those before it gave."""
    points, grasp = placed(model, body, pose_44, look.opening)
    pixels, size = camera.project(points), np.array(camera.image_size)
    return LearnedEstimate(
        pose_44=pose_44,
        points_N3=points,
        visible_N=((pixels >= 0) & (pixels < size)).all(1) & (points[:, 2] > 0),
        opening=look.opening,
        grasp_3=grasp,
        fit=look.score,
        residual_m=float(np.hypot(*sigma_2)),
        sigma_2=sigma_2,
        measured_44=look.pose_44,
        measured_opening=look.opening,
    )


def placed(
    model: LearnedGripperModel, body: Body, pose_44: np.ndarray, opening: float
) -> tuple[np.ndarray, np.ndarray]:
    """Points f32 [N,3] and grasp point f32 [3], metres, camera frame, of a gripper with this camera_from_effector."""
    local = np.concatenate([body.at(opening), model.grasp_3[None]])
    moved = (local @ pose_44[:3, :3].T + pose_44[:3, 3]).astype(np.float32)
    return moved[:-1], moved[-1]


def search_places(camera: Camera, model: LearnedGripperModel) -> list[np.ndarray]:
    """f64 [3] metres each: over the whole picture, at distances as in the labelled episodes and somewhat beyond.

    Their number grows with the square of what the picture shows; of one wider than ``WIDEST``, it does no longer.
    """
    near, far = model.range_2
    focal_px = max(camera.focal_px, WIDEST * max(camera.image_size))
    layers = max(1, int(np.ceil(np.log(far / near) / DEEPER)))
    distances = np.exp(np.linspace(np.log(near), np.log(far), 2 * layers + 1)[1::2])
    places = []
    for distance in distances:
        step = APART * float(model.width) * focal_px / distance
        axes = [
            (np.arange(max(1, round(side / step))) + 0.5) * side / max(1, round(side / step))
            for side in camera.image_size
        ]
        pixels = np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)
        rays = camera.unproject(pixels, np.ones(len(pixels)))
        places += list(rays / np.linalg.norm(rays, axis=1, keepdims=True) * distance)
    return places
