"""The two ways to serve a policy: clients send its clouds, or pictures in which the server follows the effector.

A session is one connection's side of it; what it is given was unpacked, but not checked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from align.eyes import Eyes, View
from align.followers import Following
from align.serve.fields import Field, checked
from align.serve.rejected import Rejected, problem
from align.serve.table import camera_fields, cloud_fields
from data.episode import Frame
from extract.effector import Camera
from pretrain.model.policy_kinecloud import KinecloudPolicy

LARGEST = {"H": 2048, "W": 2048, "N": 4096}
SAME = 1e-6  # relative: intrinsics closer than this are those of the same camera
STEP_S = 0.001  # between two pictures, at least: what is remembered of the last moments stays small
MASKED_PICTURES = 600  # of an episode that is followed by masks: each picture takes in all poses before it again


class Session(Protocol):
    """What is remembered of one connection."""

    def answer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """What goes back, with f32 ``actions`` [K,A] in the units of the action spec. Raises Rejected."""
        ...


@dataclass(frozen=True)
class Served:
    """A policy, what its clients are to send, and how a connection begins. license: None = not declared."""

    policy: KinecloudPolicy
    takes: Literal["clouds", "pictures"]
    fields: tuple[Field, ...]
    begin: Callable[[], Session]
    license: str | None = None


def serving_clouds(policy: KinecloudPolicy, license: str | None = None) -> Served:
    """Clients send the arguments of ``KinecloudPolicy.act``. Nothing is remembered between observations."""
    fields = cloud_fields(policy.config)
    return Served(policy, "clouds", fields, lambda: CloudSession(policy, fields), license)


def serving_pictures(
    policy: KinecloudPolicy, following: Following, image_side: int, embodiment: str, license: str | None = None
) -> Served:
    """Clients send pictures; each connection has a follower of its own. embodiment: where a client names none.

    Raises UserError for a policy that wants depth with a follower that looks at colour alone.
    """
    following.require(policy.config.depth)
    fields = camera_fields(policy.config, following.sensors)

    def begin() -> Session:
        return PictureSession(policy, fields, following, image_side, embodiment)

    return Served(policy, "pictures", fields, begin, license)


class CloudSession:
    """A connection whose client follows the effector itself."""

    def __init__(self, policy: KinecloudPolicy, fields: tuple[Field, ...]):
        self._policy, self._fields = policy, fields

    def answer(self, observation: dict[str, Any]) -> dict[str, Any]:
        return {"actions": actions(self._policy, checked(observation, self._fields, LARGEST))}


@dataclass
class _Episode:
    """What an episode began with, and its last moment in seconds."""

    camera: Camera
    eyes: Eyes
    time: float
    frames: int = 0


class PictureSession:
    """A connection whose pictures are followed. One episode at a time: one camera at rest, time going on."""

    def __init__(
        self,
        policy: KinecloudPolicy,
        fields: tuple[Field, ...],
        following: Following,
        image_side: int,
        embodiment: str,
    ):
        self._policy, self._fields, self._following = policy, fields, following
        self._image_side, self._embodiment = image_side, embodiment
        self._episode: _Episode | None = None

    def answer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Also tells ``effector_visible``; without ``actions`` where the observation says ``act: false``."""
        seen = checked(observation, self._fields, LARGEST)
        episode = self._episode_of(seen)
        depth_HW, grasp_3 = (_single(seen.get(name)) for name in ("depth_HW", "grasp_3"))
        frame = Frame(
            episode.frames, seen["time"], seen["image_u8_HW3"], depth_HW, seen.get("mask_HW"), seen.get("actor_HW")
        )
        episode.time, episode.frames = seen["time"], episode.frames + 1
        episode.eyes.see(frame, seen.get("opening", np.nan), grasp_3)
        view = episode.eyes.view()
        answer: dict[str, Any] = {"effector_visible": view is not None and bool(view.past.visible_PN[-1].any())}
        if seen.get("act", True):
            if view is None:
                raise Rejected(
                    problem(
                        "image_u8_HW3", "no gripper in any picture of this episode", "one in view",
                        "Bring it into view; send act: false until effector_visible is true.",
                    )
                )  # fmt: skip
            itself = {name: seen[name] for name in ("instruction", "proprio")}
            embodiment = seen.get("embodiment", self._embodiment)
            try:
                answer["actions"] = actions(self._policy, {**_told(view), **itself, "embodiment": embodiment})
            except Rejected as error:
                raise Rejected(f"{error}\nThe picture itself was taken in: go on with the next one.") from None
        return answer

    def _episode_of(self, seen: dict[str, Any]) -> _Episode:
        """The episode that goes on, or a new one. Raises Rejected where it cannot go on so."""
        intrinsics_33 = seen["intrinsics_33"].astype(np.float64)
        height, width = seen["image_u8_HW3"].shape[:2]
        episode = self._episode
        if episode is None or seen.get("reset", False):
            _require_pixels(intrinsics_33, max(width, height))
            camera = Camera(intrinsics_33, (width, height), "given")
            eyes = Eyes(camera, self._following, self._policy.config, self._image_side)
            self._episode = _Episode(camera, eyes, seen["time"])
            return self._episode
        begun = episode.camera
        remedy = "Send reset: true with the first picture of a new episode."
        if (width, height) != begun.image_size:
            wanted = f"{begun.image_size[0]} x {begun.image_size[1]}, as this episode began"
            raise Rejected(problem("image_u8_HW3", f"{width} x {height} pixels", wanted, remedy))
        if not np.allclose(intrinsics_33, begun.intrinsics_33, rtol=SAME, atol=0):
            wanted = f"{begun.intrinsics_33.tolist()}, as this episode began"
            raise Rejected(problem("intrinsics_33", str(intrinsics_33.tolist()), wanted, remedy))
        if not (seen["time"] >= episode.time + STEP_S and seen["time"] > episode.time):  # these differ at 1e15 s
            wanted = f"at least {STEP_S:g} s more than the last, {episode.time:g} s"
            raise Rejected(problem("time", f"{seen['time']:g} s", wanted, remedy))
        if self._following.sensors == "truth" and episode.frames >= MASKED_PICTURES:
            wanted = f"at most {MASKED_PICTURES} in an episode that is followed by masks"
            raise Rejected(problem("image_u8_HW3", "one more picture", wanted, remedy))
        return episode


def _require_pixels(intrinsics_33: np.ndarray, side: int) -> None:
    """Raises Rejected for intrinsics that cannot be in pixels of a picture whose longer side is ``side``."""
    focal, centre = intrinsics_33[[0, 1], [0, 1]], np.abs(intrinsics_33[:2, 2])
    if (focal < side / 10).any() or (focal > side * 1000).any() or (centre > side * 10).any():
        wanted = f"fx and fy of {side / 10:g} to {side * 1000:g}, cx and cy of at most {side * 10:g}"
        remedy = "They are in pixels of the picture that is sent."
        raise Rejected(problem("intrinsics_33", str(intrinsics_33.tolist()), wanted, remedy))


def _told(view: View) -> dict[str, Any]:
    """A view as arguments of ``KinecloudPolicy.act``."""
    return {
        "image_u8_HW3": view.image,
        "depth_HW": view.depth,
        "intrinsics_33": view.intrinsics_33,
        **view.past.arguments(),
    }


def _single(array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None else array.astype(np.float32)


def actions(policy: KinecloudPolicy, observation: dict[str, Any]) -> np.ndarray:
    """f32 [K,A]. Raises Rejected where the policy says that an argument does not fit, or has no finite answer."""
    try:
        found = policy.act(**observation)
    except ValueError as error:
        raise Rejected(str(error)) from error
    if not np.isfinite(found).all():
        remedy = "Hold the units of what was sent against the metadata."
        raise Rejected(problem("actions", "values that are not finite", "finite ones", remedy))
    return found
