"""Doing the steps of a plan: the project's own stages as processes, in run folders that share what they have alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from data.index import read_index, write_index
from data.pack import packed
from pipeline.atomic import write_bytes, write_json
from pipeline.errors import KinecloudError
from pipeline.fingerprint import digest, file_sha256, mark_done, read_done
from pipeline.process import end_with_parent, one_at_a_time
from pipeline.runner import versions
from tests.benchmarks.out_of_action.episodes import SOURCES, allowed_labels, chosen, gather
from tests.benchmarks.out_of_action.labels import check_labels
from tests.benchmarks.out_of_action.plan import Plan, Step
from tests.benchmarks.pretraining_data import grid_shards

CONFIG = "config.yaml"
GO = "go.json"  # when the present try at a step began, and what those before it took, seconds
# What the extract stage goes on from: its plan last, as shards that it does not name are nobody's.
MADE = tuple(f"extract/{name}" for name in ("stage.json", "*.npz", "rejected/*", "unit-*", "plan.json"))
MAKES_CLIPS = ("simulate", "episodes", "extract", "pack", "grid")
# What later steps read of these.
CONTENT = {"episodes": ("episodes/*/*",), "extract": ("extract/unit-*.tar", "extract/*.npz"), "pack": ("pack/*.tar",)}


class Runner:
    """Does steps in ``work``, each once, also for threads and other processes that work there. What a step started ends
    with this process. workers: processes of a stage, 0 = number of cores.

    versions: of what was there when it was made; hours later, the checkout may be another.
    """

    def __init__(self, work: Path, workers: int = 0, say: Callable[[str], None] = print):
        self.work, self.workers, self.say = work.resolve(), workers, say
        self.versions = versions()
        self._held: dict[str, int] = {}  # descriptors that hold folders of steps, by digest

    def folder(self, step: Step) -> Path:
        return step.folder(self.work)

    def run(self, plan: Plan, clips_only: bool = False) -> dict[str, float]:
        """All steps that are not done yet; seconds by step, as long as each took when it was done.

        clips_only: no more than makes the clips. Raises KinecloudError naming the command and its log; what was done
        before is kept.
        """
        seconds = {}
        for name, step in plan.steps.items():
            if clips_only and step.name not in MAKES_CLIPS:
                continue
            self.folder(step).mkdir(parents=True, exist_ok=True)
            with one_at_a_time(self.folder(step)) as held:
                self._held[step.digest] = held
                mark = read_done(self.folder(step))
                if mark is None:
                    self.say(f"{plan.row.name} ({plan.chain}, seed {plan.seed}): {name}")
                    self._do(step)
                    mark = read_done(self.folder(step))
                    assert mark is not None
            seconds[name] = mark["seconds"]
            if "content" in mark:
                step.contents[step.digest] = mark["content"]
            if step.name == "pack":
                self._check_labels(plan, step)
        return seconds

    def labelled(self, plan: Plan) -> dict[str, int]:
        """Labelled episodes by task in the clips that the row learns from. Raises UserError for one too many."""
        return self._check_labels(plan, plan.steps["pack"])

    def _check_labels(self, plan: Plan, step: Step) -> dict[str, int]:
        folder = self.folder(step) / "pack"
        allowed = {} if step.facts["judged"] else allowed_labels(plan.clips, plan.budget)
        return check_labels([*packed(folder, "train"), *packed(folder, "val")], allowed)

    def _do(self, step: Step) -> None:
        folder = self.folder(step)
        began, before = time.time(), _seconds_before(folder)
        write_json(folder / GO, {"began": began, "before": before})
        DOERS[step.name](self, step, folder)
        told = {"content": _content(folder, *CONTENT[step.name])} if step.name in CONTENT else {}
        mark_done(folder, step.document, seconds=round(before + time.time() - began, 1), **told)

    def stage(self, step: Step, folder: Path, command: Iterable[str], links: dict[str, Path], **sections: Any) -> None:
        """One stage of the project in ``folder``. links: what it finds there, by name. sections: over the step's."""
        for name, target in links.items():
            place = folder / name
            if not place.is_symlink():
                place.symlink_to(target)
        run = {"out": str(folder), "seed": step.seed, "workers": self.workers}
        document = {"run": run, **step.config, **sections}
        write_bytes(folder / CONFIG, yaml.safe_dump(document, sort_keys=False).encode())
        self.process(step, folder, *command, "--config", str(folder / CONFIG))

    def process(self, step: Step, folder: Path, *command: str) -> None:
        """``python -m`` with the words of ``command`` and the step's code; its output goes to a log. Raises
        KinecloudError."""
        log = folder / "log.txt"
        with log.open("a") as output:
            environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
            done = subprocess.run([sys.executable, "-m", *command], cwd=step.root, env=environment, stdout=output,
                                  stderr=subprocess.STDOUT, preexec_fn=end_with_parent,
                                  pass_fds=[self._held[step.digest]])  # fmt: skip
        if done.returncode:
            last = "\n".join(log.read_text().splitlines()[-8:])
            raise KinecloudError(f"{' '.join(command)} ended with exit code {done.returncode}; {log} ends:\n{last}")


def _seconds_before(folder: Path) -> float:
    """What earlier tries at the step took, which were killed: each until the last thing that it wrote."""
    if not (folder / GO).exists():
        return 0.0
    go = json.loads((folder / GO).read_text())
    last = max(path.stat().st_mtime for path in folder.rglob("*") if path.is_file())
    return go["before"] + max(last - go["began"], 0.0)


def _content(folder: Path, *patterns: str) -> str:
    """Digest of the files, by their names."""
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return digest({str(path.relative_to(folder)): file_sha256(path) for path in paths})


def _simulate(runner: Runner, step: Step, folder: Path) -> None:
    if "first" in step.before:  # of a name, the episode is the same
        _take_over(runner.folder(step.before["first"]), folder, "simulate/episodes/*")
    runner.stage(step, folder, ("data", "simulate"), {})


def _take_over(source: Path, out: Path, *patterns: str) -> None:
    """Links files of a finished step, unless they are there."""
    for path in (path for pattern in patterns for path in source.glob(pattern)):
        target = out / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.link(path, target)


def _episodes(runner: Runner, step: Step, folder: Path) -> None:
    simulated = {name: runner.folder(before) / "simulate" / "episodes" for name, before in step.before.items()}
    gather(simulated["simulate"], simulated.get("with_labels"), step.work["clips"], step.work["budget"],
           step.facts["chain"], folder / "episodes")  # fmt: skip


def _extract(runner: Runner, step: Step, folder: Path) -> None:
    episodes = runner.folder(step.before["episodes"]) / "episodes"
    by_name = {source["name"]: source for source in step.config["index"]["sources"]}
    sources = [by_name[name] | {"path": str(episodes / name)} for name in SOURCES]
    if "known" in step.before:  # the stage goes on from there, as with videos added to a pile
        _take_over(runner.folder(step.before["known"]), folder, *MADE)
    runner.stage(step, folder, ("data", "index"), {}, index={"sources": sources})
    runner.process(step, folder, "extract", "run", "--config", str(folder / CONFIG))


def _pack(runner: Runner, step: Step, folder: Path) -> None:
    extracted = runner.folder(step.before["extract"])
    kept = chosen(read_index(extracted / "index"), step.work["clips"], step.work["budget"], step.facts["judged"])
    write_index(folder / "index", kept)
    runner.stage(step, folder, ("data", "pack"), {"extract": extracted / "extract"})


def _grid(runner: Runner, step: Step, folder: Path) -> None:
    shards = runner.folder(step.before["pack"]) / "pack"
    index = runner.folder(step.before["extract"]) / "index"
    for split in ("train", "val"):
        grid_shards(packed(shards, split), index, folder / split)


def _pretrain(runner: Runner, step: Step, folder: Path) -> None:
    clips = runner.folder(step.before["pack"])
    section = dict(step.config["pretrain"])
    if step.before["pack"].name == "grid":
        shards = {f"{split}_shards": [str(path) for path in packed(clips / split, split)] for split in ("train", "val")}
        runner.stage(step, folder, ("pretrain",), {}, pretrain=section | shards)
    else:
        runner.stage(step, folder, ("pretrain",), {"pack": clips / "pack"})


def _judge(runner: Runner, step: Step, folder: Path) -> None:
    model = runner.folder(step.before["pretrain"]) / "pretrain" / "model"
    clips = runner.folder(step.before["judged"]) / "pack"
    words = (str(model), str(clips), str(runner.folder(step.before["pretrain"]) / CONFIG))
    runner.process(step, folder, "tests.benchmarks.out_of_action.judge", *words, str(folder / "judged.json"))


def _align(runner: Runner, step: Step, folder: Path) -> None:
    links = {name: runner.folder(step.before[name]) / name for name in ("pack", "pretrain")}
    runner.stage(step, folder, ("align",), links, pretrain=step.before["pretrain"].config["pretrain"])


def _rollout(runner: Runner, step: Step, folder: Path) -> None:
    links = {name: runner.folder(step.before[name]) / name for name in ("extract", "pack", "pretrain", "align")}
    links["index"] = runner.folder(step.before["extract"]) / "index"
    more = {name: step.before[name].config[name] for name in ("pretrain", "align")}
    runner.stage(step, folder, ("align", "rollout"), links, **more)


DOERS: dict[str, Callable[[Runner, Step, Path], None]] = {
    "simulate": _simulate, "episodes": _episodes, "extract": _extract, "pack": _pack, "grid": _grid,
    "pretrain": _pretrain, "judge": _judge, "align": _align, "rollout": _rollout,
}  # fmt: skip
