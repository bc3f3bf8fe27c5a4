"""Which simulated episodes a row may see, and the folders of videos that hold these and no others.

Robot episodes of a task are numbered: the first ``judged`` are for judging, then come the labelled ones, then those
that are videos. An episode that is not one of the labelled loses its actions, proprioception and recorded poses here,
before anything reads it. Labelled episodes of a task are one group in a source of their own, so that packing, which
holds out whole groups and never a source's only one, leaves all of them for training.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.index import Episode
from data.simulation.sensors import RECORDED, Sensors, derive
from data.simulation.write import write_arrays
from pipeline.atomic import publishing_dir, write_json
from pipeline.errors import UserError
from tests.benchmarks.out_of_action.rows import MAIN, ROWS, Clips, Row
from tests.benchmarks.out_of_action.suite import Budget

LABELLED, VIDEOS, JUDGED = SOURCES = ("labelled", "videos", "judged")


def capped(clips: Clips, budget: Budget) -> Clips:
    """No more than the budget allows."""

    def pair(counts: tuple[int, int]) -> tuple[int, int]:
        return min(counts[0], budget.robot), min(counts[1], budget.hand)

    return replace(
        clips, labelled=min(clips.labelled, budget.labelled), seen=pair(clips.seen), unseen=pair(clips.unseen)
    )


def needs_no_more_than_main(row: Row, budget: Budget) -> bool:
    """Whether all that the row learns from is recorded for the main row anyhow."""
    own, main = capped(row.clips, budget), capped(ROWS[MAIN].clips, budget)
    counts = ((c.labelled, *c.seen, *c.unseen) for c in (own, main))
    return all(mine <= its for mine, its in zip(*counts, strict=True))


def stock(row: Row, budget: Budget) -> Clips:
    """What is extracted for the row: all that it or the main row needs, so that rows which need no more than main
    share one extraction, and others go on from it.

    Labels are the row's own; which of a robot's looks an extractor learns from them is main's, see ``plan``.
    """
    own, main = row.clips, ROWS[MAIN].clips

    def most(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
        return max(one[0], other[0]), max(one[1], other[1])

    return capped(replace(own, seen=most(own.seen, main.seen), unseen=most(own.unseen, main.unseen)), budget)


def names(clips: Clips, budget: Budget) -> dict[str, list[str]]:
    """Names of the episodes by source."""
    found: dict[str, list[str]] = {source: [] for source in SOURCES}
    for task in budget.tasks:
        robots, hands = clips.seen if task in budget.labelled_tasks else clips.unseen
        first = budget.judged
        until = first + allowed_labels(clips, budget).get(task, 0)
        found[JUDGED] += [f"{task}-robot-{number:03d}" for number in range(first)]
        found[LABELLED] += [f"{task}-robot-{number:03d}" for number in range(first, until)]
        found[VIDEOS] += [f"{task}-robot-{number:03d}" for number in range(until, first + robots)]
        found[VIDEOS] += [f"{task}-hand-{number:03d}" for number in range(hands)]
    return found


def allowed_labels(clips: Clips, budget: Budget) -> dict[str, int]:
    """How many episodes of a task may carry actions; a task that is not there may have none."""
    return dict.fromkeys(budget.tasks if clips.oracle else budget.labelled_tasks, clips.labelled)


def gather(simulated: Path, with_labels: Path | None, clips: Clips, budget: Budget, chain: Sensors, out: Path) -> None:
    """Makes ``out/<source>/`` for every source.

    simulated: the folder of all episodes. with_labels: the same motions of video-only tasks with actions, where
    ``clips.oracle`` asks for them. Raises UserError naming the episodes that are missing.
    """
    wanted = names(clips, budget)
    with publishing_dir(out) as temporary:
        given = temporary if chain == "truth" else temporary / "given"
        missing = []
        for source, chosen in wanted.items():
            (given / source).mkdir(parents=True)
            for name in chosen:
                task = name.rsplit("-", 2)[0]
                seen_only = source == LABELLED and task in budget.video_only_tasks
                folder = with_labels if seen_only and with_labels is not None else simulated
                if (folder / f"{name}.json").exists():
                    put(folder, name, given / source, labelled=source == LABELLED)
                else:
                    missing.append(name)
        if missing:
            raise UserError(f"{simulated}: {len(missing)} episodes are missing, the first is {missing[0]}")
        if chain != "truth":
            for source in SOURCES:
                (temporary / source).mkdir()
                if wanted[source]:
                    derive(given / source, temporary / source, chain)
            shutil.rmtree(given)


def put(folder: Path, name: str, out: Path, labelled: bool) -> None:
    """One episode into ``out``: linked, and without all that tells its actions unless it is one of the labelled."""
    sidecar = json.loads((folder / f"{name}.json").read_text())
    if labelled and not sidecar["labelled"]:
        raise UserError(f"{folder / name}.json: labelled: false, but its actions are needed; simulate again")
    arrays = folder / sidecar["arrays"]
    os.link(folder / f"{name}.mp4", out / f"{name}.mp4")
    if labelled:
        sidecar["group"] = f"{sidecar['task']}-labelled"
        os.link(arrays, out / arrays.name)
    elif sidecar["labelled"]:
        sidecar |= {"labelled": False, "action_spec": None}
        with np.load(arrays) as stored:
            write_arrays(out / arrays.name, {key: stored[key] for key in stored.files if key not in RECORDED})
    else:
        os.link(arrays, out / arrays.name)
    write_json(out / f"{name}.json", sidecar)


def chosen(episodes: Iterable[Episode], clips: Clips, budget: Budget, judged: bool) -> list[Episode]:
    """Those of an index that the row learns from, or those that predictors are judged on."""
    wanted = {source: set(found) for source, found in names(clips, budget).items()}
    use = (JUDGED,) if judged else (LABELLED, VIDEOS)
    return [e for e in episodes if e.source in use and e.path.stem in wanted[e.source]]
