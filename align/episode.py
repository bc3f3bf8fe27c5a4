"""One closed-loop episode in the simulator: look, follow the effector, predict, act, look again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from align.live import LiveCloud, Past
from data.clips import encode_image
from data.simulation.environment import Observation, TaskEnvironment
from data.simulation.scene import Look
from extract.effector import Camera
from extract.mask.config import MaskConfig
from pretrain.model.policy_kinecloud import KinecloudPolicy

_SCALE = 2  # enlargement of the film's pictures
_NOW, _AHEAD = (255, 255, 255), (255, 140, 40)


@dataclass(frozen=True)
class Outcome:
    """How one episode ended. seconds: simulated time until success or the end. film: (JPEG, seconds) per decision."""

    task: str
    seed: int
    success: bool
    seconds: float
    film: tuple[tuple[bytes, float], ...] = ()
    lost: str | None = None


@dataclass(frozen=True)
class Conduct:
    """How a policy is run: actions executed per decision, time limit, extraction settings, name of the embodiment."""

    execute: int
    max_seconds: float
    mask: MaskConfig
    embodiment: str


def run_policy(
    policy: KinecloudPolicy, environment: TaskEnvironment, seed: int, look: Look, conduct: Conduct
) -> Outcome:
    """Lets the policy act until success, the simulator's limit or the time limit.

    It is given the picture, the instruction, its proprioception, and the cloud that the extractor's tracker makes from
    the simulator's effector mask and depth; never the state of any object.
    """
    observation = environment.reset(seed, look)
    camera = Camera(environment.intrinsics, environment.image_size, "given")
    cloud = LiveCloud(camera, conduct.mask, policy.config.past_times)
    cloud.see(observation.frame, observation.opening)
    film: list[tuple[bytes, float]] = []
    while not _over(environment, conduct.max_seconds):
        past = cloud.past()
        actions_KA, predicted_HN3 = _decide(policy, environment, observation, past, conduct)
        film.append((_picture(observation, camera, past, predicted_HN3), environment.seconds))
        for action in actions_KA[: conduct.execute]:
            environment.step(action)
            observation = environment.observe()
            cloud.see(observation.frame, observation.opening)
            if _over(environment, conduct.max_seconds):
                break
    film.append((_picture(observation, camera, cloud.past(), None), environment.seconds))
    return Outcome(environment.task, seed, environment.success, environment.seconds, tuple(film))


def run_constant(environment: TaskEnvironment, seed: int, action_A: np.ndarray, max_seconds: float) -> Outcome:
    """The reference without learning: the same action all the time."""
    environment.reset(seed)
    while not _over(environment, max_seconds):
        environment.step(action_A)
    return Outcome(environment.task, seed, environment.success, environment.seconds)


def _over(environment: TaskEnvironment, max_seconds: float) -> bool:
    return environment.success or environment.done or environment.seconds >= max_seconds - 1e-6


def _decide(
    policy: KinecloudPolicy,
    environment: TaskEnvironment,
    observation: Observation,
    past: Past | None,
    conduct: Conduct,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Actions [K,A] and the predicted clouds [H,N,3]; standing still as long as the effector was never seen."""
    if past is None:
        return np.zeros((policy.config.action_chunk, len(policy.config.action_names)), np.float32), None
    prediction = policy.predict(
        observation.frame.image,
        environment.instruction,
        past.clouds_PN3,
        past.valid_P,
        environment.intrinsics,
        observation.proprio,
        conduct.embodiment,
        past.visible_PN,
        past.opening_P,
    )
    actions = policy.denormalize(prediction.actions, "action")[0]
    return actions.numpy(), prediction.points[0].numpy()


def _picture(observation: Observation, camera: Camera, past: Past | None, predicted_HN3: np.ndarray | None) -> bytes:
    """The frame with the cloud now (white) and as predicted at the last horizon (orange), JPEG."""
    image = Image.fromarray(observation.frame.image)
    image = image.resize((image.width * _SCALE, image.height * _SCALE), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    clouds = [(past.clouds_PN3[-1], _NOW)] if past is not None else []
    if predicted_HN3 is not None:
        clouds.append((predicted_HN3[-1], _AHEAD))
    for points_N3, color in clouds:
        for u, v in camera.project(points_N3[points_N3[:, 2] > 1e-3])[::2] * _SCALE:
            pen.ellipse((u - 1, v - 1, u + 1, v + 1), fill=color)
    return encode_image(np.asarray(image))


def shrunk(film: tuple[tuple[bytes, float], ...], count: int) -> list[tuple[bytes, float]]:
    """At most ``count`` pictures, first and last included."""
    places = np.unique(np.linspace(0, len(film) - 1, min(count, len(film))).round().astype(int))
    return [film[place] for place in places]
