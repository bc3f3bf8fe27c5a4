"""LeRobot's evaluation beside our rollouts, on the same episodes of the simulator:

    python tests/lerobot_evaluates.py RUN --config C.yaml [--episodes 2] [--tasks ...] [--json F]

It runs in the environment of lerobot with the plugin. RUN: the folder of a run with a rollout; C.yaml: its
configuration. Exit code 1 where an episode ends otherwise.
"""

import argparse
import json
import sys
from pathlib import Path

from lerobot.configs import PreTrainedConfig  # pyright: ignore[reportMissingImports]
from lerobot.envs.factory import (  # pyright: ignore[reportMissingImports]
    make_env,
    make_env_config,
    make_env_pre_post_processors,
)
from lerobot.envs.utils import close_envs  # pyright: ignore[reportMissingImports]
from lerobot.policies.factory import make_policy, make_pre_post_processors  # pyright: ignore[reportMissingImports]
from lerobot.scripts.lerobot_eval import rollout  # pyright: ignore[reportMissingImports]
from lerobot.utils.import_utils import register_third_party_plugins  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).resolve().parent.parent


def policy_config(run, execute):
    return PreTrainedConfig.get_choice_class("kinecloud")(
        pretrained_kinecloud=str(run / "align/model"), embodiment="sawyer-gripper", device="cpu", push_to_hub=False,
        n_action_steps=execute,
    )  # fmt: skip


def evaluated(task, env_config, config, seeds):
    """(succeeded, frames) of each seed, by lerobot."""
    policy = make_policy(config, env_cfg=env_config).eval()
    processors = make_pre_post_processors(policy.config)
    around = make_env_pre_post_processors(env_config, policy.config)
    envs = make_env(env_config, n_envs=1)
    try:
        (environment,) = envs["kinecloud_metaworld"].values()
        ends = [rollout(environment, policy, *around, *processors, seeds=[seed]) for seed in seeds]
    finally:
        close_envs(envs)
    return [(bool(end["success"].any()), int(end["action"].shape[1])) for end in ends]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--python", default=".venv/bin/python", help="of Kinecloud's environment")
    parser.add_argument("--episodes", type=int, default=2)
    parser.add_argument("--tasks", nargs="+")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    register_third_party_plugins()
    rolled = json.loads((arguments.run / "rollout/rollout.json").read_text())
    rows, same = [], 0
    for ours in (row for row in rolled["tasks"] if not arguments.tasks or row["task"] in arguments.tasks):
        episodes = ours["episodes"][: arguments.episodes]
        env_config = make_env_config(
            "kinecloud_metaworld", task=ours["task"], repository=str(ROOT), python=arguments.python,
            config=str(arguments.config.absolute()), overrides=[f"run.out={arguments.run.absolute()}"],
        )  # fmt: skip
        config = policy_config(arguments.run, rolled["settings"]["execute"])
        found = evaluated(ours["task"], env_config, config, [episode["seed"] for episode in episodes])
        expected = [(episode["success"], round(episode["seconds"] * env_config.fps)) for episode in episodes]
        same += sum(one == other for one, other in zip(found, expected, strict=True))
        rows.append({"task": ours["task"], "lerobot": found, "rollouts": expected})
        print(f"{ours['task']}: lerobot {sum(s for s, _ in found)}, rollouts {sum(s for s, _ in expected)} of "
              f"{len(found)}; frames {[n for _, n in found]} and {[n for _, n in expected]}", flush=True)  # fmt: skip
    count = sum(len(row["lerobot"]) for row in rows)
    alike = sum(a[0] == b[0] for row in rows for a, b in zip(row["lerobot"], row["rollouts"], strict=True))
    print(f"{count} episodes: {alike} end alike, {same} after as many frames")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    sys.exit(0 if alike == count and count else 1)


main()
