"""The simulate stage: makes every episode of the plan once, in worker processes, and accounts for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from data.simulation.config import SimulateConfig
from data.simulation.jobs import Job, episode_jobs
from data.simulation.sensors import sensed
from data.simulation.write import is_finished, write_episode
from pipeline.atomic import remove_leftovers, write_json, write_lines
from pipeline.config import Config
from pipeline.errors import TooManyFailures, UserError
from pipeline.fingerprint import canonical, require_same
from pipeline.logs import StageLog
from pipeline.workers import run_tasks

STAGE = "simulate"
STAGE_VERSION = 4
EPISODES = "episodes"
ITEM_TIMEOUT_S = 300.0


def run_simulate(config: Config) -> None:
    """Makes the episodes of the configuration that are not there yet, in ``RUN/simulate/episodes``.

    Raises Refused when the folder was made with other settings, TooManyFailures beyond ``run.failure_budget``.
    """
    settings = config.section(STAGE, SimulateConfig)
    folder = config.folder(STAGE)
    log = StageLog(config.run.out, STAGE)
    failures = simulate(settings, folder, config.run.seed, config.run.worker_count(), log)
    if len(failures) > config.run.failure_budget:
        raise TooManyFailures(
            f"{len(failures)} jobs failed unexpectedly, run.failure_budget allows {config.run.failure_budget}; "
            f"see {folder / 'failures.jsonl'}. Finished episodes are kept: run again to retry the others."
        )


def simulate(config: SimulateConfig, out: Path, seed: int, workers: int, log: StageLog) -> list[dict[str, str]]:
    """Fills ``out/episodes``; returns the jobs that failed unexpectedly, as written to ``out/failures.jsonl``.

    Every episode is a pure function of (config, seed, its name): the number of workers changes nothing, and finished
    episodes are kept. Raises Refused when ``out`` was made with other settings.
    """
    made_from = json.loads(
        canonical({"stage": STAGE, "version": STAGE_VERSION, "config": config.model_dump(mode="json"), "seed": seed})
    )
    mark = out / "stage.json"
    if mark.exists():
        require_same(json.loads(mark.read_text()), made_from, out)
    else:
        write_json(mark, made_from)
    episodes = out / EPISODES
    episodes.mkdir(parents=True, exist_ok=True)
    remove_leftovers(episodes)
    jobs = episode_jobs(config, seed)
    todo = [job for job in jobs if not all(is_finished(episodes, name) for name in job.items)]
    total = sum(len(job.episodes) for job in jobs)
    if not todo and (out / "report" / "section.json").exists():
        log.info(f"nothing to do: all {total} simulated episodes are there")
        return []
    missing = sum(not is_finished(episodes, name) for job in todo for name in job.items)
    log.info(f"{missing} of {total} simulated episodes to make")
    failures = _work(todo, episodes, workers, log)
    write_lines(out / "failures.jsonl", failures)
    from data.simulation.report import write_section

    write_section(out, episodes, jobs)
    log.info(
        f"{sum(is_finished(episodes, name) for job in jobs for name in job.items)} simulated episodes in {episodes}"
    )
    return failures


def _work(jobs: list[Job], episodes: Path, workers: int, log: StageLog) -> list[dict[str, str]]:
    failures: list[dict[str, str]] = []
    with log.progress("jobs", len(jobs)) as advance:

        def done(job: Job, skipped: dict[str, str]) -> None:
            advance(1)
            if skipped:  # a crash or a hang of the renderer
                failures.append({"unit": job.name, "error": json.dumps(skipped)})
                log.warning(f"{job.name}: {skipped}")

        def failed(job: Job, error: str) -> None:
            advance(1)
            failures.append({"unit": job.name, "error": error})
            log.warning(f"{job.name} failed: {error.strip().splitlines()[-1]}", error=error)

        run_tasks(jobs, partial(_make_handler, episodes), max(min(workers, len(jobs)), 1), ITEM_TIMEOUT_S, done, failed)
    return failures


def _make_handler(episodes: Path) -> Callable[[Job, dict[str, str], Callable[[str], None]], Any]:
    def handle(job: Job, skip: dict[str, str], begin: Callable[[str], None]) -> dict[str, str]:
        run_job(job, episodes, skip, begin)
        return skip

    return handle


def run_job(job: Job, out: Path, skip: Iterable[str] = (), begin: Callable[[str], None] = lambda name: None) -> None:
    """Makes the job's missing episodes in ``out``, calling ``begin(name)`` before each, without those in ``skip``."""
    wanted = [i for i in job.episodes if job.episode_name(i) not in set(skip)]
    wanted = [i for i in wanted if not is_finished(out, job.episode_name(i))]
    if not wanted:
        return
    if job.kind == "closeup":
        _make_closeups(job, wanted, out, begin)
    else:
        _make_task_episodes(job, wanted, out, begin)


def _make_closeups(job: Job, wanted: list[int], out: Path, begin: Callable[[str], None]) -> None:
    from data.simulation.closeup import CloseupSettings, write_closeup

    config = job.config
    for index in wanted:
        name = job.episode_name(index)
        begin(name)
        every = config.closeup_left_every
        settings = CloseupSettings(
            width=config.closeup_size[0],
            height=config.closeup_size[1],
            seconds=config.closeup_seconds,
            step_mm=config.closeup_steps_mm[index % len(config.closeup_steps_mm)],
            side="left" if every and index % every == every - 1 else "right",
        )
        write_closeup(out, name, int(job.generator(index).integers(2**31)), settings, config.sensors)


def _make_task_episodes(job: Job, wanted: list[int], out: Path, begin: Callable[[str], None]) -> None:
    from data.simulation.film import robot_episode
    from data.simulation.metaworld import FRAME_HZ, record_expert
    from data.simulation.scene import TaskScene
    from data.simulation.twin import twin_episode

    config, task = job.config, job.task
    if task is None:
        raise UserError(f"simulate: job {job.name} names no task")
    hand = "right" if job.kind == "hand" else None
    begin(job.episode_name(wanted[0]))
    with TaskScene(task, config.resolution, task in config.show_goal_tasks, hand) as scene:
        for index in wanted:
            name = job.episode_name(index)
            begin(name)
            recording = record_expert(
                task,
                job.motion(index),
                job.seed,
                config.action_noise,
                config.tail_seconds,
                config.extra_object_range_m,
                config.retry_share,
            )
            rng = job.generator(index)
            if hand:
                episode = twin_episode(scene, recording, rng, config.camera_jitter_m)
            else:
                labelled = config.is_labelled(task, index)
                episode = robot_episode(scene, recording, rng, config.camera_jitter_m, labelled, config.action_mixing)
            arrays, sidecar = sensed(episode.arrays, {**episode.sidecar, "group": job.group(index)}, config.sensors)
            write_episode(out, name, episode.images, FRAME_HZ, arrays, sidecar)
