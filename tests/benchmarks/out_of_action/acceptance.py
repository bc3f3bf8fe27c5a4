"""What the benchmark is to show, as data: each line is met or missed by the figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tests.benchmarks.out_of_action.lines import Line, Took
from tests.benchmarks.out_of_action.rows import MAIN

Key = tuple[str, str]  # row, chain
Measure = Literal["mean", "worst", "minutes"]


@dataclass(frozen=True)
class Target:
    """A share of successes that is to be reached. of: whose.

    at_least, at_most: of the mean over video-only tasks, of the worst of them, or of the minutes of the quickest
    measuring of one training seed. over: another row; then at_least is of the difference of means. apart: both rows'
    intervals must not overlap. labelled: labelled tasks count, and no difference to the worse is to be seen (its
    interval reaches 0).
    """

    words: str
    of: Key
    at_least: float | None = None
    at_most: float | None = None
    over: Key | None = None
    measure: Measure = "mean"
    apart: bool = False
    labelled: bool = False


_MAIN: Key = (MAIN, "rgbd")
TARGETS = (
    Target("tasks seen only in video succeed", _MAIN, at_least=0.9),
    Target("no video-only task is hopeless", _MAIN, at_least=0.6, measure="worst"),
    Target("nearly as good as with labels for all tasks", _MAIN, at_least=-0.05, over=("oracle", "rgbd")),
    Target("it takes an hour, data included", _MAIN, at_most=60, measure="minutes"),
    Target("blind policies fail", ("blind", "rgbd"), at_most=0.25),
    Target("without videos of the tasks they fail", ("labelled_videos", "rgbd"), at_most=0.05),
    Target("better than 2D tracks", _MAIN, over=("tracks2d", "rgbd"), apart=True),
    Target("better than latent actions", _MAIN, over=("latent", "rgbd"), apart=True),
    Target("hands alone teach the tasks", ("as_hand", "rgbd"), at_least=0.85),
    Target("one colour camera is enough", (MAIN, "rgb"), at_least=0.75),
    Target("a direct head learns the tasks, too", ("direct", "rgbd"), at_least=0.6),
    Target("a proportional controller does not", ("p_controller", "rgbd"), at_most=0.4),
    Target("labelled tasks do not get worse", _MAIN, over=("no_pretraining", "rgbd"), labelled=True),
)


def judged(target: Target, lines: dict[Key, Line]) -> dict[str, Any]:
    """The line of a target. met: null when a row that it needs was not measured with the present code."""
    needed = [target.of, *([target.over] if target.over else [])]
    missing = [key for key in needed if key not in lines or not lines[key].measured]
    document: dict[str, Any] = {"words": target.words, "met": None, "found": None, "target": _wanted(target)}
    if missing:
        return document | {"found": "not measured: " + ", ".join(f"{row} ({chain})" for row, chain in missing)}
    of = lines[target.of]
    if target.over is not None:
        met, found = _compared(target, of, lines[target.over])
    elif target.measure == "worst":
        task, rate = of.worst
        met, found = _within(target, rate), f"{rate:.2f} ({task})"
    elif target.measure == "minutes":
        quickest = _quickest(of)
        met, found = _within(target, min(took.whole for took in quickest)), "; ".join(map(_timed, quickest))
    else:
        met, found = _within(target, of.unseen["mean"]), _shown(of.unseen)
    return document | {"met": met, "found": found}


def _quickest(of: Line) -> list[Took]:
    """Of each number of episodes, fewest first."""
    found: dict[int, Took] = {}
    for took in sorted(of.took(), key=lambda took: took.whole):
        found.setdefault(took.episodes, took)
    return [found[episodes] for episodes in sorted(found)]


def _timed(took: Took) -> str:
    return f"{took.whole:.0f} (training seed {took.seed}, {took.cores} cores, {took.episodes} episodes per task)"


def _compared(target: Target, of: Line, over: Line) -> tuple[bool, str]:
    if target.apart:
        return of.unseen["low"] > over.unseen["high"], f"{_shown(of.unseen)} against {_shown(over.unseen)}"
    found = of.minus(over, target.labelled)
    met = found["high"] >= 0 if target.labelled else _within(target, found["mean"])
    return met, f"{found['mean']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f})"


def _within(target: Target, value: float) -> bool:
    low = target.at_least is None or value >= target.at_least
    return low and (target.at_most is None or value <= target.at_most)


def _shown(value: dict[str, float]) -> str:
    return f"{value['mean']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def _wanted(target: Target) -> str:
    row = "{} ({})".format(*target.of)
    if target.measure == "minutes":
        return f"{row} in at most {target.at_most:.0f} minutes"
    if target.over is None:
        name = "worst task of " if target.measure == "worst" else "mean of "
        bound = f"at least {target.at_least:.2f}" if target.at_least is not None else f"at most {target.at_most:.2f}"
        return f"{name}{row} {bound}"
    other = "{} ({})".format(*target.over)
    if target.apart:
        return f"{row} above {other}, intervals apart"
    return (
        f"{row} - {other} on labelled tasks not below 0"
        if target.labelled
        else f"{row} - {other} >= {target.at_least:+.2f}"
    )
