"""What the benchmark is to show, as data: each line is met or missed by the figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.benchmarks.out_of_action.lines import Line, against
from tests.benchmarks.out_of_action.rows import MAIN

Key = tuple[str, str]  # row, chain


@dataclass(frozen=True)
class Target:
    """``of`` reaches ``at_least``, as a share of successes. worst: on its worst video-only task, else the mean of them.

    over: the difference to this row counts instead, and the low end of its interval must lie above ``at_least``.
    """

    words: str
    of: Key
    at_least: float
    over: Key | None = None
    worst: bool = False


TARGETS = (
    Target("tasks seen only in video succeed", (MAIN, "rgbd"), 0.8),
    Target("no video-only task is hopeless", (MAIN, "rgbd"), 0.4, worst=True),
    Target("seeing a task in video is what makes it work", (MAIN, "rgbd"), 0.3, over=("labelled_videos", "rgbd")),
    Target("it looks: better than without images", (MAIN, "rgbd"), 0.0, over=("blind", "rgbd")),
    Target("inverse dynamics beats a direct head", (MAIN, "rgbd"), 0.0, over=("direct", "rgbd")),
    Target("labels matter: better than a proportional controller", (MAIN, "rgbd"), 0.0, over=("p_controller", "rgbd")),
    Target("hands alone teach the tasks", ("human_only", "rgbd"), 0.7),
    Target("one colour camera is enough", (MAIN, "rgb"), 0.6),
    Target("seeing costs little: at most 0.1 below the simulator's truth", (MAIN, "rgbd"), -0.1, over=(MAIN, "truth")),
)


def judged(target: Target, lines: dict[Key, Line]) -> dict[str, Any]:
    """The line of a target. met: null when a row that it needs was not measured with the present code."""
    of, over = lines.get(target.of), lines.get(target.over) if target.over else None
    needed = [target.of, *([target.over] if target.over else [])]
    missing = [key for key in needed if key not in lines or not lines[key].measured]
    document: dict[str, Any] = {"words": target.words, "met": None, "found": None, "target": _wanted(target)}
    if missing:
        return document | {"found": "not measured: " + ", ".join(f"{row} ({chain})" for row, chain in missing)}
    assert of is not None
    if over is not None:
        apart = against(of, over)
        found = f"{apart['mean']:+.2f} ({apart['low']:+.2f} to {apart['high']:+.2f})"
        return document | {"met": apart["low"] > target.at_least, "found": found}
    if target.worst:
        task, rate = of.worst
        return document | {"met": rate >= target.at_least, "found": f"{rate:.2f} ({task})"}
    value = of.unseen
    found = f"{value['mean']:.2f} ({value['low']:.2f} to {value['high']:.2f})"
    return document | {"met": value["mean"] >= target.at_least, "found": found}


def _wanted(target: Target) -> str:
    row, chain = target.of
    if target.over:
        return f"{row} ({chain}) - {target.over[0]} ({target.over[1]}) > {target.at_least:+.2f}, with its interval"
    return f"{'worst task' if target.worst else 'mean'} of {row} ({chain}) at least {target.at_least:.2f}"
