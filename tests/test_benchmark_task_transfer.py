"""What the transfer benchmark plays: plans solve their own task, and are followed where they are said to be."""

import numpy as np
import pytest

from data.simulation.metaworld import environment, reset
from tests.benchmarks.task_transfer import (
    OBJECT,
    WIDENED_M,
    Transfer,
    episode_seed,
    follow,
    make_plans,
    measure,
    table,
)

TASK = "faucet-close-v3"


@pytest.fixture(scope="module")
def plans():
    return make_plans(TASK, 3, seed=1)


def test_a_plan_moved_to_the_object_solves_its_own_task_and_nothing_is_solved_by_standing_still(plans):
    found = measure(TASK, {TASK: plans}, 3, seed=1)
    assert found.expert == 1 and found.nothing == 0
    assert found.plans[f"{TASK} (object)"] == 1
    assert found.best_plan_of == f"{TASK} (object)" and not found.fair


@pytest.mark.parametrize("at_object", [False, True])
def test_plans_are_followed_where_they_are_said_to_be(plans, at_object):
    """The first seconds are free of contact: the hand then stays near the plan's own path, moved or not."""
    env = environment(TASK)
    observation = reset(env, episode_seed(TASK, 5, 1), WIDENED_M)
    moved = observation[OBJECT] - plans[0].object_3 if at_object else np.zeros(3)
    assert np.linalg.norm(observation[OBJECT] - plans[0].object_3) > 0.02
    command = follow(plans[0], at_object)(observation)
    for _ in range(60):
        observation, *_ = env.step(np.clip(command(observation, env), -1, 1).astype(np.float32))
    apart = np.linalg.norm(plans[0].path_C3 + moved - env.tcp_center, axis=1).min()
    assert apart < 0.03


def _row(task: str, expert: float, plan: float) -> Transfer:
    return Transfer(task, expert, 0.0, 0.0, TASK, plan, f"{TASK} (world)", {}, {})


def test_table_calls_fair_what_only_its_expert_solves_and_puts_it_first():
    rows = table([_row("b", 1.0, 0.5), _row("c", 0.5, 0.0), _row("a", 1.0, 0.1)]).splitlines()[2:]
    assert [line.split("|")[1].strip() for line in rows] == ["a", "c", "b"]
    assert [line.split("|")[-2].strip() for line in rows] == ["yes", "no", "no"]
