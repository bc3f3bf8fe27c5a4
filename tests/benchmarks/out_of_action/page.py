"""The figures of the benchmark as a page of Markdown with pictures beside it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from tests.benchmarks.out_of_action.ablations import PAPER
from tests.benchmarks.out_of_action.drawing import bars, cells, curves
from tests.benchmarks.out_of_action.lines import FRESH, IMPOSSIBLE, NOT_RUN, STALE
from tests.benchmarks.out_of_action.rows import CHAIN, MAIN
from tests.benchmarks.out_of_action.suite import CHAINS
from tests.benchmarks.pretraining_intervals import RESAMPLES

BARS, CELLS, CURVES = "success.svg", "tasks.svg", "curves.svg"
_CURVE_WORDS = {"labelled": "labelled episodes per labelled task", "videos": "videos per video-only task"}
_CHAIN_WORDS = (
    "**truth**: masks, depth and grasp points are the simulator's. **rgbd**: the robot's gripper and hands are found "
    "in colour and measured depth, and the predictor sees the scene without them. **rgb**: colour alone, pictures as "
    "they are."
)


def pictures(figures: dict[str, Any]) -> dict[str, str]:
    """SVG by file name, of what was measured."""
    rows = _measured(figures)
    found = {BARS: bars(rows), CELLS: cells(rows)} if rows else {}
    drawn = {_CURVE_WORDS[name]: series for name, series in figures["curves"].items() if series}
    return found | ({CURVES: curves(drawn)} if drawn else {})


def page(figures: dict[str, Any], folder: str) -> str:
    """docs/results/out_of_action.md. folder: where its pictures are, as seen from the page."""
    drawn = pictures(figures)
    parts = [
        "# Tasks seen only in video", _intro(figures), "## Targets", _targets(figures),
        "## Success by row", _picture(folder, BARS, "success by row", drawn), _rows(figures), _reading(),
        _same_code(figures),
        "## Task by task", _picture(folder, CELLS, "success by row and task", drawn), _tasks(figures),
        "## The source paper's ablations", _ablations(figures),
        "## How much is needed", _picture(folder, CURVES, "success over labels and videos", drawn), _curve_words(drawn),
        _films(figures, folder), "## How long the main row takes", _took(figures),
        "## What was not run", _not_run(figures), "## How it was measured", _method(figures),
    ]  # fmt: skip
    paragraphs = "\n\n".join(part for part in parts if part).split("\n\n")
    return (
        "\n\n".join(
            text if text[0] in "#|!-" else textwrap.fill(text, 120, break_on_hyphens=False) for text in paragraphs
        )
        + "\n"
    )


def _intro(f: dict[str, Any]) -> str:
    tasks = f["facts"]["tasks"]
    return f"""Written by `python -m tests.benchmarks.out_of_action --budget {f["budget"]} --work DIR --json F --page
docs/results/out_of_action.md`.

Everything here is **simulated** (Meta-World, rendered by MuJoCo): robots are driven by its scripted experts, and human
hands are **overlays** drawn over motion that an invisible gripper performed. None of it is real footage, and no figure
says how a real robot would fare.

{len(tasks["labelled"])} tasks come with a few labelled robot episodes ({_names(tasks["labelled"])});
{len(tasks["video_only"])} tasks are seen in video alone ({_names(tasks["video_only"])}). A policy is one network
for all of them. It sees one camera, the instruction and its own proprioception, and is tried in closed
loop in scenes that were never recorded. That no action of a video-only task can be read is checked on the packed clips
of every row."""


def _names(tasks: Sequence[str]) -> str:
    return ", ".join(task.removesuffix("-v3") for task in tasks)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows])


def _share(value: dict[str, float] | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value['mean']:.0f} ({100 * value['low']:.0f} to {100 * value['high']:.0f})"


def _targets(f: dict[str, Any]) -> str:
    words = {True: "**met**", False: "**missed**", None: "open"}
    rows = [[t["words"], t["target"], t["found"] or "-", words[t["met"]]] for t in f["acceptance"]]
    return _table(["", "target", "found", ""], rows)


def _picture(folder: str, name: str, words: str, drawn: dict[str, str]) -> str:
    return f"![{words}]({folder}/{name})" if name in drawn else ""


def _measured(f: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in f["rows"] if row["state"] in (FRESH, STALE)]


def _rows(f: dict[str, Any]) -> str:
    rows = []
    for row in _measured(f):
        name = f"**{row['row']}**" if row["row"] == MAIN else row["row"]
        rows.append([
            name + (" (**stale**)" if row["state"] == STALE else ""), row["chain"], row["words"], row["learns"],
            _share(row["unseen"]), _signed(row["to_main"]) if row["to_main"] else "-",
            f"{100 * row['worst']['rate']:.0f}, {row['worst']['task'].removesuffix('-v3')}",
            _share(row["seen"]), "-" if row["path_mm"] is None else f"{row['path_mm']:.1f}",
            ", ".join(map(str, row["seeds"])), " to ".join(map(str, sorted({row["episodes"][0], row["episodes"][-1]}))),
        ])  # fmt: skip
    if not rows:
        return "No row has been measured."
    head = ["row", "chain", "what it is", "labels; seen; video only", "video-only tasks, %", "to main, same chain"]
    head += ["worst task, %", "labelled tasks, %", "path error, mm", "training seeds", "episodes per task and seed"]
    return _table(head, rows)


def _reading() -> str:
    return f"""{_CHAIN_WORDS}

Shares of episodes that succeed, mean over tasks, with a 95 % interval: bootstrap over training seeds (where there are
several) and, within each, over the episodes of each task; tasks are kept; {RESAMPLES} resamples. Three training seeds
tell little of the spread between them, and where all or no episodes succeed the interval has no width, though more
episodes would give it one. Differences are over the training seeds that both rows have. Fourth column: labelled
episodes per labelled task; robot + hand videos per labelled task; the same per video-only task. Path error: distance of
the predicted to the true path at the last horizon, whenever it is there, on robot episodes that nothing was learnt
from; not told of joint, whose predictor learned with the actions. A row marked stale was measured with other code or
settings than the present ones. In plate-slide and plate-slide-back Meta-World puts the plate at one place and varies
its goal alone, so that their episodes are much alike and tend to succeed or fail together."""


def _same_code(f: dict[str, Any]) -> str:
    """What was changed without making rows stale, and how that was shown."""
    shown: dict[tuple[str, ...], list[str]] = {}
    table: dict[str, dict[str, Any]] = f["facts"].get("same_code", {})
    for step, one in ((step, one) for step, known in table.items() for one in known["shown"]):
        rows = "; ".join(f"{chain}: {', '.join(names)}" for chain, names in one["rows"].items())
        words = one["before"], one["budget"], rows, one["date"]
        shown.setdefault(words, []).append(step)
    return "\n\n".join(
        f"""Code of {", ".join(sorted(steps))} was changed after commit {before}, and rows from before count as fresh:
with the code of that commit and with that of {date}, the budget `{budget}` gave the same files, byte for byte (rows of
chain {rows}; `python -m tests.benchmarks.out_of_action.same_results`)."""
        for (before, budget, rows, date), steps in shown.items()
    )


def _tasks(f: dict[str, Any]) -> str:
    by_chain = {row["chain"]: row for row in _measured(f) if row["row"] == MAIN}
    if not by_chain:
        return "The main row has not been measured."
    chains = [chain for chain in CHAINS if chain in by_chain]
    found = {chain: {task["task"]: task for task in by_chain[chain]["tasks"]} for chain in chains}
    rows = []
    for task in next(iter(found.values())).values():
        cells = [task["task"].removesuffix("-v3"), "yes" if task["labelled"] else "no, video only"]
        for chain in chains:
            other = found[chain].get(task["task"])
            cells += [_share(other["rate"]) if other else "-", _confused(other), _millimetres(other)]
        rows.append(cells)
    stale = [chain for chain in chains if by_chain[chain]["state"] == STALE]
    head = ["task", "labels"]
    for chain in chains:
        head += [f"{chain}{', stale' if chain in stale else ''}, %", "sibling, %", "path, mm"]
    words = "Sibling: episodes that ended as the labelled sibling of the task would have, such as closed instead of"
    return "The main row:\n\n" + _table(head, rows) + f"\n\n{words} opened; a dash where that is not told."


def _ablations(f: dict[str, Any]) -> str:
    rows = []
    for found in f["ablations"]:
        here, names = found["here"], f"{found['changed']}, {found['full']}"
        cells = ["not measured", "-", "-", "-", "-"]
        if here is not None:
            seeds = ", ".join(map(str, here["seeds"]))
            cells = [_share(here["changed"]), _share(here["full"]), _signed(here["difference"]), _agrees(here), seeds]
        rows.append([found["words"], f"{found['paper']:+.1f}", *cells, names])
    head = ["change", "there, %", "with it, %", "without, %", "here, %", "worse here, too", "training seeds", "rows"]
    return f"""{_table(head, rows)}

There: what the change did to the mean success on four tasks of SIMPLER, from {PAPER} %, as a reading note of the paper
tells it; a network of 3.3 billion weights there learned from some 137,000 real episodes and acts by a direct head.
Here: on the tasks seen only in video, chain {CHAIN}, with the training seeds that both rows have. Rows that differ in
how they learn actions have a direct head, those that differ in points have inverse dynamics. 2D tracks here are given
the depth that is measured now. The predictor of grid learns points all over the picture, and is then asked for the
gripper's, which the head follows."""


def _agrees(here: dict[str, Any]) -> str:
    if here["difference"]["high"] < 0:
        return "yes"
    return "**no**: better" if here["difference"]["low"] > 0 else "not seen"


def _signed(value: dict[str, float]) -> str:
    return f"{100 * value['mean']:+.0f} ({100 * value['low']:+.0f} to {100 * value['high']:+.0f})"


def _confused(task: dict[str, Any] | None) -> str:
    return "-" if task is None or task["confused"] is None else f"{100 * task['confused']:.0f}"


def _millimetres(task: dict[str, Any] | None) -> str:
    return "-" if task is None or task["path_mm"] is None else f"{task['path_mm']:.1f}"


def _curve_words(drawn: dict[str, str]) -> str:
    if CURVES not in drawn:
        return "Fewer than three points of each curve have been measured."
    return "Mean success on video-only tasks with its interval; all else as in the main row."


def _films(f: dict[str, Any], folder: str) -> str:
    films = [(row, film) for row in _measured(f) if row["row"] == MAIN for film in row["films"]]
    if not films:
        return ""
    shown = [f"![{row['chain']}: {film['words']}]({folder}/{film['file']})\n\n{row['chain']}: "
             f"{film['words']}" for row, film in films]  # fmt: skip
    return "## Rollouts (simulated)\n\n" + "\n\n".join(shown)


def _took(f: dict[str, Any]) -> str:
    steps = ("simulate", "extract", "pretrain", "align", "rollout")
    rows = []
    for row in (row for row in _measured(f) if row["row"] == MAIN):
        for took in row["took"]:
            named = [took["minutes"].get(step, 0.0) for step in steps]
            whole = sum(took["minutes"].values())
            rows.append([row["chain"], str(took["seed"]), took["date"], str(took["cores"]), str(took["episodes"]),
                         *(f"{minutes:.1f}" for minutes in (*named, whole - sum(named), whole))])  # fmt: skip
    if not rows:
        return "The main row has not been measured."
    head = ["chain", "training seed", "date", "cores", "episodes per task", *steps, "all else", "together"]
    words = (
        "Minutes, data included. A step that another row or seed had done before counts as it took there, on whatever "
        "cores; all else that the machine did then is in it."
    )
    return _table(head, rows) + f"\n\n{words}"


def _not_run(f: dict[str, Any]) -> str:
    def those(state: str) -> list[str]:
        return [f"{row['row']} ({row['chain']})" for row in f["rows"] if row["state"] == state]

    sentences = [
        f"{words}: {', '.join(those(state))}."
        for state, words in (
            (NOT_RUN, "Not run"), (IMPOSSIBLE, "Not possible with the present code"),
            (STALE, "Measured with other code or settings, so not to be compared"),
        )
        if those(state)
    ]  # fmt: skip
    sentences.append("Nothing was tried on a real robot, with real hands or on other simulators.")
    return " ".join(sentences)


def _method(f: dict[str, Any]) -> str:
    measured = _measured(f)
    head = f"Budget `{f['budget']}`; pictures of {f['facts']['resolution']} x {f['facts']['resolution']} pixels."
    if not measured:
        return head
    last = max(measured, key=lambda row: row["dates"][-1])
    dates = sorted({date for row in measured for date in row["dates"]})
    machine = last["hardware"]
    named = ("python", "torch", "numpy", "mujoco", "metaworld")
    used = [f"{name} {last['versions'][name]}" for name in named if name in last["versions"]]
    when = f"on {dates[0]}" if len(dates) == 1 else f"between {dates[0]} and {dates[-1]}"
    return (
        f"{head} Made {when}, on {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['gpu'] or 'no GPU'}. Every row was made by the project's own stages. Versions: "
        f"{', '.join(used)}; code {last['versions']['kinecloud']}."
    )
