"""The document ``eval.json``: what an evaluation of a predictor says, for programs.

| key | what |
|---|---|
| version | 2; another number means another layout |
| horizons_s | times after the present, seconds; every list "by horizon" is in this order |
| windows, clips, episodes | how many were read; episodes that show the same recorded motion count as one |
| stride | every so many-th held-out window was read |
| samples | predictions drawn per window; 1 unless the model is generative and more were asked for |
| methods | the methods in order: `predictor`, its further readings when samples > 1, the baselines |
| measures | by name: unit (`mm` or `share`), better (`lower` or `higher`), text (definition and source) |
| nearest_neighbour | what the baseline chose on training data, or null when it was left out |
| counts | by subset: clips, episodes, windows |
| results | by subset, measure, method: a value by horizon, or null where no clip has one |
| last_horizon | by subset: the predictor's means at the last horizon (see below), or null |
| tasks | up to 20 tasks by number of clips, then the rest as one: task, counts, and by measure and method the value at the last horizon |
| examples | best, median and worst clips by ADE: rank, clip key, embodiment, task, instruction, simulated, its windows' mean ADE, and the window nearest to that mean (its number in the data set, time in the clip, its ADE and that of no motion) |

A value is {mean, low, high, episodes}: mean over episodes, 95 % bootstrap interval over episodes (null with one
episode), number of episodes. Subsets: `all`, `simulated`, `filmed` (those that occur), and every embodiment.

last_horizon: ade_mm, fde_mm (the displacement there), chamfer_mm, path_mm, off_path_mm, within_1cm ... within_10cm,
opening_mm; share_of: by baseline the predictor's Chamfer error divided by the baseline's; ade_share_of: by baseline
{ratio, low, high} of ADE, its interval from common resamples.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pretrain.metrics import MEASURES
from pretrain.scores import MODEL, ClipScore, Scores, Summary, WindowScore, rounded, summarize

VERSION = 2
MAX_TASKS = 20
EXAMPLES_PER_RANK = 2
TASK_MEASURES = ("ade_mm", "displacement_mm", "chamfer_mm", "path_mm", "within_5cm")


def document_of(scores: Scores, **more: Any) -> dict[str, Any]:
    """The document; more: stride, samples, nearest_neighbour."""
    clips = scores.clips
    chosen = {name: found for name, of in _subsets(clips).items() if (found := [c for c in clips if of(c)])}
    results, verdicts = {}, {}
    for name, found in chosen.items():
        summary = summarize(found)
        results[name], verdicts[name] = _results(summary, scores), _verdict(summary, scores.methods)
    return {
        "version": VERSION,
        "horizons_s": scores.horizons,
        "windows": len(scores.windows),
        "clips": len(clips),
        "episodes": len({clip.group for clip in clips}),
        **more,
        "methods": scores.methods,
        "measures": {name: asdict(measure) for name, measure in MEASURES.items()},
        "counts": {name: _counts(found) for name, found in chosen.items()},
        "results": results,
        "last_horizon": verdicts,
        "tasks": _tasks(scores),
        "examples": _examples(scores),
    }


def _subsets(clips: Sequence[ClipScore]) -> dict[str, Callable[[ClipScore], bool]]:
    subsets: dict[str, Callable[[ClipScore], bool]] = {
        "all": lambda clip: True,
        "simulated": lambda clip: clip.simulated,
        "filmed": lambda clip: not clip.simulated,
    }
    for embodiment in sorted({clip.embodiment for clip in clips}):
        subsets[embodiment] = lambda clip, name=embodiment: clip.embodiment == name
    return subsets


def _counts(clips: Sequence[ClipScore]) -> dict[str, int]:
    return {
        "clips": len(clips),
        "episodes": len({clip.group for clip in clips}),
        "windows": sum(clip.windows for clip in clips),
    }


def _results(summary: Summary, scores: Scores) -> dict[str, Any]:
    return {
        measure: {
            method: [summary.value(m, k, h) for h in range(len(scores.horizons))]
            for m, method in enumerate(scores.methods)
        }
        for k, measure in enumerate(MEASURES)
    }


def _verdict(summary: Summary, methods: list[str]) -> dict[str, Any] | None:
    """The predictor at the last horizon, and as a share of each baseline."""
    names = list(MEASURES)
    chamfer, ade, ours = names.index("chamfer_mm"), names.index("ade_mm"), methods.index(MODEL)
    if not np.isfinite(summary.mean[ours, chamfer, -1]):
        return None
    means = {name: summary.mean[ours, k, -1] for k, name in enumerate(names)}
    means["fde_mm"] = means.pop("displacement_mm")
    others = {m: method for m, method in enumerate(methods) if not method.startswith(MODEL)}
    chamfer_shares = {method: summary.share(ours, m, chamfer, -1) for m, method in others.items()}
    return {
        **{name: rounded(mean) if np.isfinite(mean) else None for name, mean in means.items()},
        "share_of": {method: share and share["ratio"] for method, share in chamfer_shares.items()},
        "ade_share_of": {method: summary.share(ours, m, ade, -1) for m, method in others.items()},
    }


def _tasks(scores: Scores) -> list[dict[str, Any]]:
    by_task: dict[str, list[ClipScore]] = {}
    for clip in scores.clips:
        by_task.setdefault(clip.task, []).append(clip)
    ordered = sorted(by_task.items(), key=lambda item: (-len(item[1]), item[0]))
    shown, rest = ordered[:MAX_TASKS], ordered[MAX_TASKS:]
    if rest:
        shown.append((f"{len(rest)} other tasks", [clip for _, clips in rest for clip in clips]))
    rows = []
    for task, clips in shown:
        summary = summarize(clips)
        rows.append({"task": task, **_counts(clips)})
        for name in TASK_MEASURES:
            k = list(MEASURES).index(name)
            values = {method: summary.value(m, k, -1) for m, method in enumerate(scores.methods)}
            rows[-1]["fde_mm" if name == "displacement_mm" else name] = values
    return rows


def _examples(scores: Scores) -> list[dict[str, Any]]:
    """The best, the median and the worst clips, no clip twice, each by the window that is most like its mean."""
    windows: dict[int, list[WindowScore]] = {}
    for window in scores.windows:
        if np.isfinite(window.ade_mm):
            windows.setdefault(window.clip, []).append(window)
    means = {clip: float(np.mean([w.ade_mm for w in found])) for clip, found in windows.items()}
    order = sorted(means, key=lambda clip: (means[clip], scores.clips[clip].key))
    middle = max(0, (len(order) - EXAMPLES_PER_RANK) // 2)
    ranks = {
        "best": order[:EXAMPLES_PER_RANK],
        "median": order[middle : middle + EXAMPLES_PER_RANK],
        "worst": order[::-1][:EXAMPLES_PER_RANK],
    }
    if len(order) < 3 * EXAMPLES_PER_RANK:
        ranks = {"best": order[:1], "median": order[len(order) // 2 :][:1], "worst": order[-1:]}
    examples, seen = [], set()
    for rank, chosen in ranks.items():
        for number in chosen:
            if number in seen:
                continue
            seen.add(number)
            clip, mean = scores.clips[number], means[number]
            window = min(windows[number], key=lambda w: abs(w.ade_mm - mean))
            examples.append(
                {
                    "rank": rank,
                    "clip": clip.key,
                    "embodiment": clip.embodiment,
                    "task": clip.task,
                    "instruction": clip.instruction,
                    "simulated": clip.simulated,
                    "mean_ade_mm": rounded(mean),
                    "window": window.number,
                    "time_s": rounded(window.time),
                    "ade_mm": rounded(window.ade_mm),
                    "no_motion_ade_mm": rounded(window.no_motion_ade_mm),
                }
            )
    return examples


def lines_of(document: dict[str, Any]) -> list[str]:
    """The evaluation for people: per subset ADE and Chamfer error at the last horizon, beside the baselines."""
    if not document["windows"]:
        return ["no held-out windows, so nothing was evaluated"]
    lines = []
    at = document["horizons_s"][-1]
    for subset, result in document["results"].items():
        counts = document["counts"][subset]
        if subset != "all" and counts == document["counts"]["all"]:
            continue  # the same clips again
        for measure, title in (("ade_mm", f"ADE up to {at:g} s"), ("chamfer_mm", f"Chamfer at {at:g} s")):
            last = {m: by_horizon[-1]["mean"] for m, by_horizon in result[measure].items() if by_horizon[-1]}
            text = ", ".join(f"{method} {value:.2f} mm" for method, value in last.items())
            lines.append(f"{title}, {subset} ({counts['episodes']} episodes): {text or 'no clip is long enough'}")
    return lines
