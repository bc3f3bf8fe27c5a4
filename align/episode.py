"""One closed-loop episode in the simulator: look, follow the effector, predict, act, look again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from align.conduct import Conduct, Outcome
from align.confusion import confused
from align.control import control_of
from align.eyes import Eyes, View
from data.clips import encode_image
from data.simulation.environment import Observation, TaskEnvironment
from data.simulation.scene import Look
from data.simulation.sensors import Sensors
from extract.effector import Camera
from pretrain.model.policy_kinecloud import KinecloudPolicy

FILM_SIDE = 256  # longer side of the film's pictures, pixels
_NOW, _AHEAD = (255, 255, 255), (255, 140, 40)


def run_policy(
    policy: KinecloudPolicy, environment: TaskEnvironment, seed: int, look: Look, conduct: Conduct
) -> Outcome:
    """Lets the policy act until success, the simulator's limit or the time limit.

    It is given the picture, the instruction, its proprioception, and the cloud that extraction's own means of following
    the gripper give; never the state of any object.
    """
    control = control_of(conduct.control, policy, environment, conduct.embodiment, seed, conduct.extra_object_range_m)
    observation = environment.reset(seed, look)
    camera = Camera(environment.intrinsics, environment.image_size, "given")
    eyes = Eyes(camera, conduct.following, policy.config, conduct.image_side)
    show(observation, eyes, conduct.following.sensors)
    film: list[tuple[bytes, float]] = []
    path = [observation.proprio[:3]]
    while not _over(environment, conduct.max_seconds):
        view = eyes.view()
        decision = control.rest() if view is None else control.decide(observation, view)
        film.append((_picture(observation, camera, view, decision.ahead_HN3), environment.seconds))
        for action in decision.actions_KA[: conduct.execute]:
            environment.step(action)
            observation = environment.observe()
            show(observation, eyes, conduct.following.sensors)
            path.append(observation.proprio[:3])
            if _over(environment, conduct.max_seconds):
                break
    film.append((_picture(observation, camera, eyes.view(), None), environment.seconds))
    task, success, seconds = environment.task, environment.success, environment.seconds
    did_other = confused(task, seed, conduct.extra_object_range_m, np.stack(path), success)
    return Outcome(task, seed, success, seconds, tuple(film), confused=did_other)


def show(observation: Observation, eyes: Eyes, sensors: Sensors) -> None:
    """Shows the eyes what the simulator shows, no more of it than these sensors tell."""
    frame = observation.frame
    if sensors == "truth":
        eyes.see(replace(frame, actor=observation.actor), observation.opening, observation.grasp)
    else:
        depth = frame.depth if sensors == "rgbd" else None
        eyes.see(replace(frame, mask=None, depth=depth), observation.opening)


def run_constant(environment: TaskEnvironment, seed: int, action_A: np.ndarray, max_seconds: float) -> Outcome:
    """The reference without learning: the same action all the time."""
    environment.reset(seed)
    while not _over(environment, max_seconds):
        environment.step(action_A)
    return Outcome(environment.task, seed, environment.success, environment.seconds)


def _over(environment: TaskEnvironment, max_seconds: float) -> bool:
    return environment.success or environment.done or environment.seconds >= max_seconds - 1e-6


def _picture(observation: Observation, camera: Camera, view: View | None, ahead_HN3: np.ndarray | None) -> bytes:
    """The frame with the cloud now (white) and as predicted at the last horizon (orange), JPEG."""
    image = Image.fromarray(observation.frame.image)
    scale = FILM_SIDE / max(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    clouds = [(view.past.clouds_PN3[-1], _NOW)] if view is not None else []
    if ahead_HN3 is not None:
        clouds.append((ahead_HN3[-1], _AHEAD))
    for points_N3, color in clouds:
        for u, v in camera.project(points_N3[points_N3[:, 2] > 1e-3])[::2] * scale:
            pen.ellipse((u - 1, v - 1, u + 1, v + 1), fill=color)
    return encode_image(np.asarray(image))


def shrunk(film: tuple[tuple[bytes, float], ...], count: int) -> list[tuple[bytes, float]]:
    """At most ``count`` pictures, first and last included."""
    places = np.unique(np.linspace(0, len(film) - 1, min(count, len(film))).round().astype(int))
    return [film[place] for place in places]
