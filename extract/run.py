"""The extract stage: plans units, runs them in worker processes, accounts for every episode."""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from data.index import Episode, Rejection, read_index, read_rejected
from data.schema import SCHEMA_VERSION
from data.sources.recording import REASONS
from extract.config import ExtractConfig
from extract.effectors import build_extractor
from extract.gripper.prepare import prepare_gripper
from extract.hand.bundle import hand_bundle
from extract.worker import ExtractTask, make_handler
from pipeline.atomic import write_json, write_lines
from pipeline.config import Config
from pipeline.errors import TooManyFailures
from pipeline.logs import StageLog
from pipeline.units import UnitStore, finished_shards
from pipeline.workers import run_tasks

STAGE = "extract"
STAGE_VERSION = 2
UNREADABLE = REASONS - {"duplicate"} | {"empty_file", "unreadable", "bad_arrays", "timeout", "crashed"}
NOT_IN_RESULT = {"timeout_s", "episodes_per_unit"}  # settings that do not change a clip


def run_extract(config: Config, workers: int | None) -> None:
    """Extracts all episodes of the index that are not done yet.

    Writes shards and sidecars, ``rejected.jsonl``, ``failures.jsonl``, ``summary.json`` and the report section.
    Raises TooManyFailures beyond the failure budget, Refused when the folder was made with another configuration.
    """
    settings = config.section("extract", ExtractConfig)
    folder = config.folder(STAGE)
    log = StageLog(config.run.out, STAGE)
    episodes = {episode.episode_id: episode for episode in read_index(config.folder("index"))}
    made_from = _made_from(settings, list(episodes.values()), folder, config.run.seed, log)
    store = UnitStore(folder, made_from)
    units = store.plan(sorted(episodes), settings.episodes_per_unit)
    tasks = [
        ExtractTask(unit, tuple(episodes[item] for item in unit.items if item in episodes))
        for unit in units
        if store.finished(unit) is None
    ]
    if tasks:
        log.info(f"{sum(len(task.episodes) for task in tasks)} episodes to do in {len(tasks)} units")
    else:
        log.info(f"nothing to do: all {len(units)} units are done")
    failures = _work(tasks, settings, folder, made_from, workers or config.run.worker_count(), log)
    write_lines(folder / "failures.jsonl", failures)
    accounts, rejections = account(folder, set(episodes), read_rejected(config.folder("index")))
    if tasks or not (folder / "summary.json").exists():
        own = [one for one in rejections if one.item in episodes]  # the index has told the others
        told = [f"rejected {_name(episodes[one.item])}: {one.reason}: {one.detail}" for one in own]
        log.first(told, folder / "rejected.jsonl")
        write_lines(folder / "rejected.jsonl", [rejection.as_dict() for rejection in rejections])
        summary = summarise(accounts, rejections)
        write_json(folder / "summary.json", summary)
        from extract.report import write_section

        write_section(folder, summary, rejections, episodes)
    _log_totals(log, accounts, rejections)
    _enforce_budget(config, failures, rejections)


def _made_from(
    settings: ExtractConfig, episodes: list[Episode], folder: Path, seed: int, log: StageLog
) -> dict[str, Any]:
    weights: dict[str, str] = {}
    for kind in sorted({episode.sidecar.effector or "hand" for episode in episodes}):
        if kind == "hand":
            hand_bundle(settings.hand.bundle)  # fetched once, before the workers start
        if kind == "gripper":
            prepare_gripper(episodes, settings.gripper, folder, seed, log)
        weights |= build_extractor(kind, settings, folder).weights_sha256
    return {
        "stage": STAGE,
        "stage_version": STAGE_VERSION,
        "schema_version": SCHEMA_VERSION,
        "config": settings.model_dump(mode="json", exclude=NOT_IN_RESULT),
        "weights_sha256": weights,
    }


def _work(
    tasks: list[ExtractTask],
    settings: ExtractConfig,
    folder: Path,
    made_from: dict[str, Any],
    workers: int,
    log: StageLog,
) -> list[dict[str, str]]:
    """Runs the units; returns one entry per unit that failed unexpectedly."""
    failures: list[dict[str, str]] = []
    with log.progress("units", len(tasks)) as advance:

        def done(task: ExtractTask, sidecar: dict[str, Any]) -> None:
            advance(1)

        def failed(task: ExtractTask, error: str) -> None:
            advance(1)
            failures.append({"unit": task.name, "error": error})
            log.warning(f"{task.name} failed: {error.strip().splitlines()[-1]}", error=error)

        workers = min(workers, max(len(tasks), 1))
        overlap = len(os.sched_getaffinity(0)) > workers
        handler = partial(make_handler, settings, folder, made_from, overlap)
        run_tasks(tasks, handler, workers, settings.timeout_s, done, failed)
    return failures


def account(
    folder: Path, wanted: set[str], rejected_files: list[Rejection]
) -> tuple[dict[str, dict[str, int]], list[Rejection]]:
    """What became of every episode of the index, and every rejection of index and extraction, in plan order."""
    accounts: dict[str, dict[str, int]] = {}
    rejections = list(rejected_files)
    for _, sidecar in finished_shards(folder):
        accounts |= {name: counts for name, counts in sidecar["episodes"].items() if name in wanted}
        rejections += [Rejection(**entry) for entry in sidecar["rejections"] if entry["item"] in wanted]
    return accounts, rejections


def summarise(accounts: dict[str, dict[str, int]], rejections: list[Rejection]) -> dict[str, Any]:
    """Counts for the report and for scripts."""
    return {
        "episodes": len(accounts),
        "episodes_with_clips": sum(counts["clips"] > 0 for counts in accounts.values()),
        "clips": sum(counts["clips"] for counts in accounts.values()),
        "frames": sum(counts["frames"] for counts in accounts.values()),
        "frames_with_effector": sum(counts["frames_with_effector"] for counts in accounts.values()),
        "rejections": dict(sorted(Counter(rejection.reason for rejection in rejections).items())),
        "by_episode": accounts,
    }


def _log_totals(log: StageLog, accounts: dict[str, dict[str, int]], rejections: list[Rejection]) -> None:
    summary = summarise(accounts, rejections)
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary["rejections"].items()) or "none"
    log.info(
        f"{summary['clips']} clips from {summary['episodes_with_clips']} of {summary['episodes']} episodes; "
        f"effector in {summary['frames_with_effector']} of {summary['frames']} frames; rejections: {reasons}"
    )


def _enforce_budget(config: Config, failures: list[dict[str, str]], rejections: list[Rejection]) -> None:
    if len(failures) > config.run.failure_budget:
        raise TooManyFailures(
            f"{len(failures)} units failed unexpectedly, run.failure_budget allows {config.run.failure_budget}; "
            f"see {config.folder(STAGE) / 'failures.jsonl'}. Finished units are kept: run again to retry the others."
        )
    unreadable = [rejection for rejection in rejections if rejection.reason in UNREADABLE]
    limit = config.run.max_unreadable
    if limit is not None and len(unreadable) > limit:
        raise TooManyFailures(
            f"{len(unreadable)} inputs are unreadable, run.max_unreadable allows {limit}; "
            f"see {config.folder(STAGE) / 'rejected.jsonl'}."
        )


def _name(episode: Episode) -> str:
    """For people: the video, or the episode of a data set."""
    return str(episode.path) if episode.recording is None else f"{episode.path}: {episode.episode_id}"
