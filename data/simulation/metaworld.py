"""Meta-World motions by the shipped experts: physics only, nothing is rendered here.

Control runs at 80 Hz. Seeds are exact: the same task and seed give the same motion in any process.
"""

# pyright: reportAttributeAccessIssue=false
# (mujoco fills its namespace from a C extension without type stubs)
from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP

from data.simulation.mixing import unmixed
from data.simulation.retry import GRASP_TASKS, MissedGrasp
from data.simulation.wander import Wander
from pipeline.errors import UserError

CONTROL_HZ = 80
FRAME_HZ = 20
STEPS_PER_FRAME = CONTROL_HZ // FRAME_HZ
ATTEMPTS = 20
ACTION_SPEC: dict[str, Any] = {
    "names": ["dx", "dy", "dz", "gripper"],
    "unit": "Meta-World command in [-1,1], averaged over 4 control steps of 12.5 ms",
    "frame": "world",
    "mode": "delta",
    "rate_hz": float(FRAME_HZ),
    "proprio_names": ["tcp_x", "tcp_y", "tcp_z", "gripper_opening"],
}


def action_spec(mixing: int | None = None) -> dict[str, Any]:
    """What the numbers of an action mean; ``mixing``: the seed of the matrix that mixes the translation, or None."""
    if mixing is None:
        return ACTION_SPEC
    unit = "Meta-World command before its translation is mixed by a fixed 3x3 matrix, mean over 4 steps of 12.5 ms"
    return {**ACTION_SPEC, "unit": unit, "frame": f"world, mixed (action_mixing {mixing})"}


@functools.cache
def environment(task: str) -> Any:
    """The task's environment (one per process), unlocked so that ``seed`` then ``reset`` fixes the whole episode."""
    env: Any = ALL_V3_ENVIRONMENTS[task]()
    env._freeze_rand_vec = False
    env._set_task_called = True
    env.seeded_rand_vec = True
    env._partially_observable = False
    # The cached space was made for hidden goals and would clip every goal to zero, silently.
    env.__dict__.pop("sawyer_observation_space", None)
    env.object_range = (env._random_reset_space.low.copy(), env._random_reset_space.high.copy())
    return env


def reset(env: Any, seed: int, extra_object_range_m: float = 0.0) -> np.ndarray:
    """Start the episode of ``seed``; returns Meta-World's observation. Only objects whose x varies are widened.

    Where an object and a goal are drawn, only the object is: with a goal widened by 12 cm too, experts fail in up to 9
    of 20 episodes, because it gets out of reach.
    """
    low, high = (bound.copy() for bound in env.object_range)
    if high[0] > low[0]:
        low[0] -= extra_object_range_m
        high[0] += extra_object_range_m
    env._random_reset_space.low[:] = low
    env._random_reset_space.high[:] = high
    env.seed(seed)
    env.reset()
    # Meta-World moves its objects last and leaves the derived poses where they were drawn for before: what is seen at
    # the start would be another start.
    mujoco.mj_forward(env.model, env.data)
    env._prev_obs = env._get_curr_obs_combined_no_goal()
    return env._get_obs()


@dataclass(frozen=True)
class Snapshot:
    """Everything a picture needs, world frame, metres.

    geom_position f64 [G,3]; geom_rotation f64 [G,3,3]; tcp f64 [3], between the fingertips; jaw_axis f64 [3], unit,
    from the right to the left finger; approach f64 [3], unit, where the fingers point; opening, free space between
    the pads; goal f64 [3].
    """

    geom_position: np.ndarray
    geom_rotation: np.ndarray
    tcp: np.ndarray
    jaw_axis: np.ndarray
    approach: np.ndarray
    opening: float
    goal: np.ndarray

    def proprio(self) -> np.ndarray:
        """f32 [4]: tcp (world, metres) and opening (metres)."""
        return np.array([*self.tcp, self.opening], np.float32)


def snapshot(env: Any) -> Snapshot:
    """The environment's present state."""
    data, model = env.data, env.model
    left, right = data.geom("leftpad_geom"), data.geom("rightpad_geom")
    between = left.xpos - right.xpos
    distance = float(np.linalg.norm(between))
    # The pads are boxes; their second half-size is half their thickness along the jaw axis.
    thickness = model.geom("leftpad_geom").size[1] + model.geom("rightpad_geom").size[1]
    return Snapshot(
        geom_position=data.geom_xpos.copy(),
        geom_rotation=data.geom_xmat.reshape(-1, 3, 3).copy(),
        tcp=env.tcp_center.copy(),
        jaw_axis=between / distance,
        approach=data.body("hand").xmat.reshape(3, 3)[:, 0].copy(),
        opening=max(distance - float(thickness), 0.0),
        goal=np.asarray(env._target_pos, float).copy(),
    )


@dataclass(frozen=True)
class Recording:
    """One successful expert episode. snapshots: C+1 states at 80 Hz, before each command and after the last.

    commands: f32 [C,4], what was executed after noise and clipping; C is a multiple of 4.
    """

    task: str
    seed: int
    snapshots: list[Snapshot]
    commands: np.ndarray

    @property
    def frames(self) -> int:
        """Number of 20 Hz frames; frame t shows snapshot 4t."""
        return len(self.commands) // STEPS_PER_FRAME

    def actions(self, mixing: int | None = None) -> np.ndarray:
        """f32 [F,4]: mean of the commands executed from each frame until the next, as actions of the mixed robot."""
        return unmixed(self.commands.reshape(-1, STEPS_PER_FRAME, 4).mean(axis=1), mixing)

    def proprio(self) -> np.ndarray:
        """f32 [F,4] at the frames."""
        return np.stack([s.proprio() for s in self.snapshots[:-1:STEPS_PER_FRAME]])


def _expert_command(policy: Any, observation: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experts ask for more than full scale by design; the clip is below
        return np.clip(policy.get_action(observation), -1, 1)


def _attempt(
    task: str, seed: int, noise: float, tail_s: float, extra_object_range_m: float, retry: bool
) -> Recording | None:
    env, policy = environment(task), ENV_POLICY_MAP[task]()
    rng = np.random.default_rng(seed)
    observation = reset(env, seed, extra_object_range_m)
    snapshots, commands = [snapshot(env)], []
    wander = Wander(rng, noise, CONTROL_HZ)
    miss = MissedGrasp(rng) if retry else None
    remaining = None
    while len(commands) + STEPS_PER_FRAME < env.max_path_length:
        for _ in range(STEPS_PER_FRAME):
            command = _expert_command(policy, miss.shown(observation) if miss else observation)
            if miss:
                command = miss.command(command, float(snapshots[-1].tcp[2]), snapshots[-1].opening)
            command[:3] += wander.step()  # the gripper is left alone: a trembling grasp would drop things
            command = np.clip(command, -1, 1).astype(np.float32)
            observation, _, _, _, info = env.step(command)
            commands.append(command)
            snapshots.append(snapshot(env))
            if info["success"] > 0.5 and remaining is None:
                if miss and not miss.missed:
                    return None  # solved by chance, or by the grasp that was to miss
                remaining = round(tail_s * CONTROL_HZ)
        if remaining is not None:
            remaining -= STEPS_PER_FRAME
            if remaining <= 0:
                return Recording(task, seed, snapshots, np.array(commands, np.float32))
    return None


def record_expert(
    task: str,
    index: int,
    seed: int,
    noise: float = 0.0,
    tail_s: float = 0.5,
    extra_object_range_m: float = 0.0,
    retry_share: float = 0.0,
) -> Recording:
    """The first successful attempt of episode ``index`` of ``task``; the run's ``seed`` fixes it, whoever asks.

    In about ``retry_share`` of the episodes of a task in ``retry.GRASP_TASKS`` the first grasp misses; where
    that never succeeds in half of the attempts, the episode is an ordinary one. Raises UserError when none of 20
    attempts succeeds.
    """
    number = list(ALL_V3_ENVIRONMENTS).index(task)
    drawn = np.random.default_rng([seed, number, index, 0x2E72]).random() < retry_share
    retry = bool(drawn) and task in GRASP_TASKS
    for attempt in range(ATTEMPTS):
        # 31 bits: gymnasium and numpy take such a seed on every platform.
        episode_seed = int(np.random.SeedSequence([seed, number, index, attempt]).generate_state(1)[0] >> 1)
        with_miss = retry and attempt < ATTEMPTS // 2
        recording = _attempt(task, episode_seed, noise, tail_s, extra_object_range_m, with_miss)
        if recording is not None:
            return recording
    raise UserError(
        f"simulate: {task}: the expert failed {ATTEMPTS} times in episode {index}; "
        f"lower action_noise (found {noise}) or extra_object_range_m (found {extra_object_range_m})"
    )
