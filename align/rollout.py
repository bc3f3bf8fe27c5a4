"""The rollout stage: a policy tried in the simulator on fresh episodes, beside references that learn nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from align.conduct import Conduct, Outcome
from align.config import RolloutConfig
from align.followers import following
from align.origin import policy_folder
from align.rollout_report import write_section
from align.wilson import wilson_interval
from data.clips import Shard
from data.index import has_index, read_index
from data.pack import packed
from data.simulation.config import SimulateConfig
from data.simulation.tasks import INSTRUCTIONS
from extract.config import ExtractConfig
from extract.models import device_of
from pipeline.atomic import write_json
from pipeline.config import Config
from pipeline.errors import TooManyFailures, UserError
from pipeline.fingerprint import DONE, mark_done, read_done
from pipeline.logs import StageLog
from pipeline.workers import Handler, run_tasks
from pretrain.model.configuration_kinecloud import UNKNOWN_EMBODIMENT, KinecloudConfig

STAGE = "rollout"
_ROLLOUTS = 29295  # keeps these seeds apart from those of recording
CONDITIONS = (
    "Closed loop in the Meta-World simulator. The policy sees one camera's picture, the instruction, its own "
    "proprioception, and the gripper's cloud that {cloud}. It is never given the state of an object. Seeds were not "
    "recorded; light and colours are random."
)
CONTROLS = {
    "policy": "",
    "true_future": " Its head is given an expert's motion instead of the predicted one: a bound, not a policy.",
    "p_controller": " A proportional controller that learned nothing follows its predicted motion.",
}


@dataclass(frozen=True)
class RolloutTask:
    """All episodes of one task. constants: learning-free references, action by name."""

    task: str
    seeds: tuple[int, ...]
    run_seed: int
    constants: dict[str, tuple[float, ...]]

    @property
    def name(self) -> str:
        return self.task


def rollout(config: Config, document: dict[str, Any]) -> None:
    """Tries the run's policy; writes RUN/rollout/rollout.json, films and the report section.

    Raises UserError when there is no policy or no simulated task, or nothing that can show it what it learned from;
    TooManyFailures when tasks fail unexpectedly.
    """
    settings = config.section(STAGE, RolloutConfig)
    folder = config.folder(STAGE)
    log = StageLog(config.run.out, STAGE)
    mark = read_done(config.folder("align"))
    assert mark is not None  # the policy's folder is only there when alignment has finished
    labelled = mark["labelled"]
    tasks = _tasks(config, settings, labelled)
    seed = config.run.seed
    scenes, extraction = (
        config.section("simulate", SimulateConfig), config.section("extract", ExtractConfig)
    )  # fmt: skip
    follow = following(labelled["extractor"], extraction, config.folder("extract"))
    follow.require(KinecloudConfig.from_pretrained(policy_folder(config)).depth)
    work = [
        RolloutTask(
            task,
            fresh_seeds(seed, task, settings.episodes, _recorded_seeds(config, task)),
            seed,
            _constants(labelled, task),
        )
        for task in tasks
    ]
    outcomes: dict[str, dict[str, list[Outcome]]] = {}
    failures: list[str] = []
    (folder / DONE).unlink(missing_ok=True)
    log.info(f"{len(tasks)} tasks x {settings.episodes} episodes, in the simulator")
    with log.progress("tasks", len(work)) as advance:

        def done(task: RolloutTask, result: dict[str, list[Outcome]]) -> None:
            outcomes[task.task] = result
            successes = sum(outcome.success for outcome in result["policy"])
            advance(1)
            log.info(f"{task.task}: {successes} of {len(result['policy'])} episodes succeed (simulated)")

        def failed(task: RolloutTask, text: str) -> None:
            failures.append(f"{task.task}: {text}")
            advance(1)

        make = partial(
            make_handler, policy_folder(config), settings, scenes, extraction, config.folder("extract"), labelled
        )
        run_tasks(work, make, min(config.run.worker_count(), len(work)), settings.timeout_s, done, failed)
    if failures:
        log.warning("\n".join(failures))
    if len(failures) > config.run.failure_budget or not outcomes:
        raise TooManyFailures(f"{len(failures)} of {len(work)} tasks failed unexpectedly; see {log.path}")
    rows = [_row(task, outcomes[task], labelled) for task in tasks if task in outcomes]
    conditions = CONDITIONS.format(cloud=follow.words) + CONTROLS[settings.control]
    result = {"conditions": conditions, "simulated": True, "settings": document["settings"], "tasks": rows}
    write_json(folder / "rollout.json", result)
    write_section(folder, result, _examples(outcomes, tasks))
    mark_done(folder, document)


def _tasks(config: Config, settings: RolloutConfig, labelled: dict[str, Any]) -> list[str]:
    """Configured tasks, else those of the simulated training clips: labelled ones first, then those only seen."""
    if settings.tasks is None:
        shards = [Shard(path) for path in packed(config.folder("pack"), "train")]
        seen = {meta.task for shard in shards for meta in map(shard.meta, shard.keys) if meta.simulated}
        known = {task for task in seen if task in INSTRUCTIONS}
        chosen = sorted(known & set(labelled["tasks"])) + sorted(known - set(labelled["tasks"]))
    else:
        chosen = list(settings.tasks)
    unknown = [task for task in chosen if task not in INSTRUCTIONS]
    if unknown or not chosen:
        raise UserError(
            f"{config.path}: rollout.tasks: {', '.join(unknown) or 'no training clip is of a simulated task'}; "
            f"known: {', '.join(sorted(INSTRUCTIONS))}"
        )
    return chosen


def fresh_seeds(run_seed: int, task: str, count: int, recorded: set[int | None]) -> tuple[int, ...]:
    """Seeds of a task's episodes, a pure function of the run's seed, without those that were recorded."""
    number = sorted(INSTRUCTIONS).index(task)
    candidates = np.random.SeedSequence([run_seed, number, _ROLLOUTS]).generate_state(count + len(recorded)) >> 1
    return tuple(int(seed) for seed in candidates if int(seed) not in recorded)[:count]


def _recorded_seeds(config: Config, task: str) -> set[int | None]:
    index = config.folder("index")
    if not has_index(index):
        return set()
    return {episode.sidecar.seed for episode in read_index(index) if episode.sidecar.task == task}


def _constants(labelled: dict[str, Any], task: str) -> dict[str, tuple[float, ...]]:
    constants = {"mean action of all labels": tuple(labelled["mean_action"])}
    if task in labelled["task_mean_actions"]:
        constants["mean action of the task's labels"] = tuple(labelled["task_mean_actions"][task])
    return constants


def make_handler(
    policy_path: Path,
    settings: RolloutConfig,
    scenes: SimulateConfig,
    extraction: ExtractConfig,
    extracted: Path,
    labelled: dict[str, Any],
) -> Handler:
    """The function that a worker process calls for each task. The simulator and torch are imported here.

    extracted: folder of the extract stage. labelled: as alignment's mark tells.
    """
    import torch

    from align.episode import run_constant, run_policy, shrunk
    from align.policy import load_policy
    from data.simulation.environment import TaskEnvironment
    from data.simulation.scene import random_look

    torch.set_num_threads(1)
    policy = load_policy(policy_path)
    policy.to(device_of(settings.device, "rollout.device"))  # pyright: ignore[reportArgumentType]
    embodiment = labelled["embodiments"][0]
    conduct = Conduct(
        settings.control,
        settings.execute,
        settings.max_seconds,
        following(labelled["extractor"], extraction, extracted),
        extraction.image_side,
        embodiment if embodiment in policy.config.embodiments else UNKNOWN_EMBODIMENT,
        scenes.extra_object_range_m,
    )

    def handle(task: RolloutTask, skip: dict[str, str], begin: Callable[[str], None]) -> dict[str, list[Outcome]]:
        show_goal = task.task in scenes.show_goal_tasks
        result: dict[str, list[Outcome]] = {name: [] for name in ("policy", *task.constants)}
        world = partial(TaskEnvironment, task.task, scenes.resolution, show_goal)
        with world(scenes.extra_object_range_m, scenes.action_mixing) as environment:
            for seed in task.seeds:
                if str(seed) in skip:
                    result["policy"].append(Outcome(task.task, seed, False, 0.0, lost=skip[str(seed)]))
                    continue
                begin(str(seed))
                look = random_look(np.random.default_rng([task.run_seed, seed]), scenes.camera_jitter_m)
                outcome = run_policy(policy, environment, seed, look, conduct)
                first = outcome.success not in {o.success for o in result["policy"] if o.film}
                film = tuple(shrunk(outcome.film, 12)) if first else ()  # one success and one failure are enough to see
                result["policy"].append(replace(outcome, film=film))
                for name, action in task.constants.items():
                    result[name].append(run_constant(environment, seed, np.array(action), settings.max_seconds))
        return result

    return handle


def _row(task: str, outcomes: dict[str, list[Outcome]], labelled: dict[str, Any]) -> dict[str, Any]:
    episodes = [
        {k: v for k, v in asdict(outcome).items() if k not in ("film", "task")} for outcome in outcomes["policy"]
    ]
    return {
        "task": task,
        "instruction": INSTRUCTIONS[task],
        "labelled": task in labelled["tasks"],
        "policy": _rate(outcomes["policy"]),
        "references": {name: _rate(found) for name, found in outcomes.items() if name != "policy"},
        "episodes": episodes,
    }


def _rate(outcomes: list[Outcome]) -> dict[str, Any]:
    successes = sum(outcome.success for outcome in outcomes)
    low, high = wilson_interval(successes, len(outcomes))
    return {"successes": successes, "episodes": len(outcomes), "low": low, "high": high}


def _examples(outcomes: dict[str, dict[str, list[Outcome]]], tasks: list[str]) -> list[Outcome]:
    """One success and one failure that can be shown, where there are such."""
    shown = [outcome for task in tasks if task in outcomes for outcome in outcomes[task]["policy"] if outcome.film]
    chosen = [next((o for o in shown if o.success is success), None) for success in (True, False)]
    return [outcome for outcome in chosen if outcome is not None]
