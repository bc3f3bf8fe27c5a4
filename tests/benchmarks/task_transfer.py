"""Which video-only tasks are fair to hold out: how often labelled tasks' behaviour solves them by accident.

    python -m tests.benchmarks.task_transfer --json figures.json

In every candidate task, with its own objects widened by 12 cm, what was learned from labelled tasks is played:

- the plan of a labelled task: path of the grasp point and commands of its expert, the commands played and the path held
  by a P-controller, once where it was in the world (`world`), once moved by what lies between both tasks' objects
  (`object`);
- the mean action of a labelled task's expert, all the time; and no action at all.

A candidate is fair to hold out when its own expert succeeds and none of these does. Physics only, nothing is rendered.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from metaworld.policies import ENV_POLICY_MAP

from data.simulation.metaworld import CONTROL_HZ, environment, record_expert, reset
from data.simulation.tasks import INSTRUCTIONS

LABELLED = ("drawer-close-v3", "window-close-v3", "faucet-close-v3", "button-press-v3", "pick-place-v3")
CANDIDATES = (
    "drawer-open-v3",
    "window-open-v3",
    "faucet-open-v3",
    "button-press-topdown-v3",
    "push-v3",
    "door-open-v3",
    "coffee-push-v3",
    "plate-slide-v3",
    "handle-pull-v3",
    "lever-pull-v3",
    "door-lock-v3",
    "door-unlock-v3",
    "dial-turn-v3",
    "plate-slide-side-v3",
    "push-back-v3",
    "coffee-pull-v3",
    "handle-press-side-v3",
    "handle-pull-side-v3",
    "peg-unplug-side-v3",
    "sweep-v3",
)
WIDENED_M = 0.12
GAIN = 20.0  # command per metre of error
NEAR_M = 0.02  # the plan goes on while its point is nearer than this
PATIENCE = 8  # control steps; a point that cannot be reached is given up after so many
HOLD_S, CONSTANT_S, NOTHING_S, EXPERT_S = 1.0, 4.0, 1.0, 6.0
FAIR_EXPERT, FAIR_OTHERS = 0.9, 0.2
OBJECT = slice(4, 7)  # where Meta-World's observation has the object, metres, world

Command = Callable[[np.ndarray, Any], np.ndarray]


@dataclass(frozen=True)
class Plan:
    """What a labelled task's expert did: its path and its object in metres, world frame, and its commands."""

    path_C3: np.ndarray
    commands_C4: np.ndarray
    object_3: np.ndarray


@dataclass(frozen=True)
class Transfer:
    """Success rates in one candidate. Each `best` comes with the name of what reached it first."""

    task: str
    expert: float
    nothing: float
    best_constant: float
    best_constant_of: str
    best_plan: float
    best_plan_of: str
    plans: dict[str, float]
    constants: dict[str, float]

    @property
    def by_accident(self) -> float:
        return max(self.nothing, self.best_constant, self.best_plan)

    @property
    def fair(self) -> bool:
        return self.expert >= FAIR_EXPERT and self.by_accident <= FAIR_OTHERS


def make_plans(task: str, episodes: int, seed: int) -> list[Plan]:
    """Plans of so many noiseless expert episodes of ``task``."""
    plans = []
    for index in range(episodes):
        recording = record_expert(task, index, seed, extra_object_range_m=WIDENED_M)
        path = np.array([state.tcp for state in recording.snapshots[:-1]])
        start = reset(environment(task), recording.seed, WIDENED_M)
        plans.append(Plan(path, recording.commands, start[OBJECT].copy()))
    return plans


def episode_seed(task: str, index: int, seed: int) -> int:
    """The start of episode ``index`` of a candidate; 31 bits."""
    number = list(INSTRUCTIONS).index(task)
    return int(np.random.SeedSequence([seed, number, index, 77]).generate_state(1)[0] >> 1)


def solved(task: str, start_seed: int, make_command: Callable[[np.ndarray], Command], seconds: float) -> bool:
    """True when the task was solved within so many seconds. make_command: of the first observation."""
    env = environment(task)
    observation = reset(env, start_seed, WIDENED_M)
    command = make_command(observation)
    for _ in range(min(round(seconds * CONTROL_HZ), env.max_path_length - 1)):
        action = np.clip(command(observation, env), -1, 1).astype(np.float32)
        observation, _, _, _, info = env.step(action)
        if info["success"] > 0.5:
            return True
    return False


def expert_of(task: str) -> Callable[[np.ndarray], Command]:
    policy = ENV_POLICY_MAP[task]()

    def command(observation: np.ndarray, env: Any) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experts ask for more than full scale by design
            return policy.get_action(observation)

    return lambda observation: command


def constant(action_4: np.ndarray) -> Callable[[np.ndarray], Command]:
    return lambda observation: lambda _observation, _env: action_4


def follow(plan: Plan, at_object: bool) -> Callable[[np.ndarray], Command]:
    """The plan where it was in the world, or moved to the object of the task that it is played in; then it holds."""

    def make(observation: np.ndarray) -> Command:
        shift = observation[OBJECT] - plan.object_3 if at_object else np.zeros(3)
        path = plan.path_C3 + shift
        step, waited = 0, 0

        def command(_observation: np.ndarray, env: Any) -> np.ndarray:
            nonlocal step, waited
            error = path[step] - env.tcp_center
            action = np.array([*(GAIN * error), plan.commands_C4[step, 3]])
            waited += 1
            if np.linalg.norm(error) < NEAR_M or waited >= PATIENCE:
                if step + 1 < len(path):
                    action[:3] += plan.commands_C4[step, :3]
                step, waited = min(step + 1, len(path) - 1), 0
            return action

        return command

    return make


def seconds_of(plan: Plan) -> float:
    """Time to play a plan at half speed, and to hold at its end."""
    return 2 * len(plan.path_C3) / CONTROL_HZ + HOLD_S


def measure(task: str, plans: dict[str, list[Plan]], episodes: int, seed: int) -> Transfer:
    """Everything that is played in one candidate, from the same ``episodes`` starts."""
    starts = [episode_seed(task, index, seed) for index in range(episodes)]

    def rate(of: Callable[[int], tuple[Callable[[np.ndarray], Command], float]]) -> float:
        return float(np.mean([solved(task, start, *of(index)) for index, start in enumerate(starts)]))

    by_plan: dict[str, float] = {}
    by_constant: dict[str, float] = {}
    for name, made in plans.items():
        for where in ("world", "object"):
            by_plan[f"{name} ({where})"] = rate(
                lambda index, made=made, where=where: (
                    follow(made[index % len(made)], where == "object"),
                    seconds_of(made[index % len(made)]),
                )
            )
        mean = np.mean([plan.commands_C4.mean(axis=0) for plan in made], axis=0)
        by_constant[name] = rate(lambda index, mean=mean: (constant(mean), CONSTANT_S))
    best_plan, best_constant = max(by_plan, key=by_plan.__getitem__), max(by_constant, key=by_constant.__getitem__)
    return Transfer(
        task,
        expert=rate(lambda index: (expert_of(task), EXPERT_S)),
        nothing=rate(lambda index: (constant(np.zeros(4)), NOTHING_S)),
        best_constant=by_constant[best_constant],
        best_constant_of=best_constant,
        best_plan=by_plan[best_plan],
        best_plan_of=best_plan,
        plans=by_plan,
        constants=by_constant,
    )


def table(rows: list[Transfer]) -> str:
    """A Markdown table, fairest first."""
    lines = [
        "| candidate | expert | no action | best constant action | best labelled plan | fair |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (not row.fair, row.by_accident, -row.expert, row.task)):
        best = {
            "constant": f"{row.best_constant:.1f}" + (f" {row.best_constant_of}" if row.best_constant else ""),
            "plan": f"{row.best_plan:.1f}" + (f" {row.best_plan_of}" if row.best_plan else ""),
        }
        lines.append(
            f"| {row.task} | {row.expert:.1f} | {row.nothing:.1f} | {best['constant']} | {best['plan']} "
            f"| {'yes' if row.fair else 'no'} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=10, help="starts per candidate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--candidates", nargs="+", default=CANDIDATES, choices=INSTRUCTIONS, metavar="TASK")
    parser.add_argument("--labelled", nargs="+", default=LABELLED, choices=INSTRUCTIONS, metavar="TASK")
    arguments = parser.parse_args()
    plans = {task: make_plans(task, arguments.episodes, arguments.seed) for task in arguments.labelled}
    rows = []
    for task in arguments.candidates:
        rows.append(measure(task, plans, arguments.episodes, arguments.seed))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    settings = {"episodes": arguments.episodes, "seed": arguments.seed, "widened_m": WIDENED_M}
    figures = {"settings": settings, "tasks": [{**asdict(row), "fair": row.fair} for row in rows]}
    arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
