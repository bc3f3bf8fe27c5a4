"""A gripper followed frame by frame: what extraction uses for every frame of a video, and a policy while it runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.episode import Frame
from extract.effector import Camera
from extract.gripper.estimate import Estimate
from extract.gripper.registered.closing import with_best_jaws
from extract.gripper.registered.fit import Fit, Registration
from extract.gripper.registered.model import GripperModel, State
from extract.gripper.registered.search import around, candidates

SEARCH_M = (0.03, 0.03, 0.02, 0.02, 0.012, 0.012, 0.008, 0.008, 0.005, 0.005, 0.005, 0.005)
CATCH_M = (0.02, 0.02, 0.012, 0.012, 0.008, *(0.005,) * 7)
SETTLE_M = (0.005,) * 6
FOLLOW_M = (0.012, 0.008, 0.008, *(0.005,) * 8)
JAW_SLACK_M, TURN_SLACK_DEG = 0.012, 25.0  # beyond what the labelled episodes show
SURE = 0.95  # share that agrees from which no other start is tried
JAW_STARTS = 4  # between closed and open
DOUBTED = 0.9  # share that agrees below which the whole picture is searched as well
FORGET_S = 0.5  # after so long unseen, the last place says nothing
REST_S = 0.25  # the longest that a gripper that is nowhere to be found is not looked for
LEAST_SEEN = 0.15  # of the points that face the camera
FOUND_SEEN = 0.6  # the same where the gripper was not followed but found: other things look like parts of it


class RegisteredGripper:
    """Follows one gripper through the frames of one video. See ``see``; ``reset`` before another video."""

    def __init__(self, model: GripperModel, camera: Camera, points: int = 200, min_fit: float = 0.8):
        self._model, self._camera, self._min_fit = model, camera, min_fit
        self._registration = Registration(model, camera)
        self._points = model.spread(points)
        self.reset()

    def reset(self) -> None:
        """Forget the last frames."""
        self._last: list[tuple[float, State]] = []
        self._missed_since, self._next_search = np.inf, -np.inf

    def see(self, frame: Frame) -> Estimate | None:
        """The gripper in the next frame; None where it is not found or the frame has no depth. Causal."""
        if frame.depth is None:
            return None
        if self._last and not 0 < frame.time - self._last[-1][0] <= FORGET_S:
            self.reset()
        fit = self._followed(frame)
        if fit is None and frame.time < self._next_search:
            return None
        if fit is None or fit.share < DOUBTED:
            fit = self._best([fit, self._searched(frame.depth, frame.image)])
        if fit is None:
            # the longer it is gone, the less often it is worth the search
            self._missed_since = min(self._missed_since, frame.time)
            self._next_search = frame.time + min(frame.time - self._missed_since, REST_S)
            return None
        fit = self._with_jaws(frame, fit)
        self._last = [*self._last[-1:], (frame.time, fit.state)]
        self._missed_since, self._next_search = np.inf, -np.inf
        points = self._model.placed(fit.state, self._points)
        return Estimate(
            pose_44=fit.state.pose_44,
            points_N3=points.astype(np.float32),
            visible_N=self._registration.visible(frame.depth, fit.state, self._points),
            opening=fit.state.opening,
            grasp_3=self._model.grasp(fit.state).astype(np.float32),
            fit=fit.share,
            residual_m=fit.residual_m,
        )

    def _followed(self, frame: Frame) -> Fit | None:
        if not self._last or frame.depth is None:
            return None
        expected, last = self._expected(frame.time)
        fit = self._best([self._registration.fit(frame.depth, expected, FOLLOW_M)])
        if fit is not None and fit.share >= SURE:
            return fit
        # Motion that changed abruptly, or jaws that moved far: other starts are tried before the whole picture is.
        nearby = around(self._model, self._camera, frame.depth, frame.image, last)
        fits = [fit, *(self._registration.fit(frame.depth, start, CATCH_M) for start in [last, *nearby])]
        found = max((f for f in fits if f is not None), key=lambda f: f.share * f.seen, default=None)
        if found is None:
            return None
        starts = self._other_jaws(found.state)
        return self._best([found, *(self._registration.fit(frame.depth, start, CATCH_M) for start in starts)])

    def _with_jaws(self, frame: Frame, fit: Fit) -> Fit:
        """The same with jaws looked for along their whole way: near by, thin jaws are easily taken for each other."""
        assert frame.depth is not None
        start = with_best_jaws(self._model, self._camera, frame.depth, frame.image, fit.state)
        if start is fit.state:
            return fit
        return self._best([self._registration.fit(frame.depth, start, SETTLE_M)]) or fit

    def _other_jaws(self, state: State) -> list[State]:
        closed, open_ = self._model.jaws_22
        shares = np.linspace(0, 1, JAW_STARTS)
        return [State(state.rotation_33, state.translation_3, closed + share * (open_ - closed)) for share in shares]

    def _expected(self, time: float) -> tuple[State, State]:
        """Where the gripper would be at constant velocity, and where it was."""
        (_, last) = self._last[-1]
        if len(self._last) < 2:
            return last, last
        before_time, before = self._last[-2]
        ahead = (time - self._last[-1][0]) / (self._last[-1][0] - before_time)
        moved = last.translation_3 + ahead * (last.translation_3 - before.translation_3)
        jaws = last.jaws_2 + ahead * (last.jaws_2 - before.jaws_2)
        return State(last.rotation_33, moved, jaws), last

    def _searched(self, depth_HW: np.ndarray, image_HW3: np.ndarray) -> Fit | None:
        starts = candidates(self._model, self._camera, depth_HW, image_HW3)
        fits = [self._registration.fit(depth_HW, start, SEARCH_M) for start in starts]
        found = max((fit for fit in fits if fit is not None), key=lambda fit: fit.share * fit.seen, default=None)
        if found is None:
            return None
        starts = self._other_jaws(found.state)
        fits = [found, *(self._registration.fit(depth_HW, start, CATCH_M) for start in starts)]
        return self._best([fit for fit in fits if fit is not None and fit.seen >= FOUND_SEEN])

    def _best(self, fits: Sequence[Fit | None]) -> Fit | None:
        good = [fit for fit in fits if fit is not None and self._believed(fit)]
        return max(good, key=lambda fit: fit.share * fit.seen, default=None)

    def _believed(self, fit: Fit) -> bool:
        """It agrees with the picture, and with how the gripper was in the labelled episodes."""
        closed, open_ = (jaws[0] - jaws[1] for jaws in self._model.jaws_22)
        opens = closed - JAW_SLACK_M < fit.state.opening < open_ + JAW_SLACK_M
        turn = np.einsum("kij,ij->k", self._model.rotations_K33, fit.state.rotation_33).max()
        turned = np.degrees(np.arccos(np.clip((turn - 1) / 2, -1, 1)))
        return fit.share >= self._min_fit and fit.seen >= LEAST_SEEN and opens and turned < TURN_SLACK_DEG
