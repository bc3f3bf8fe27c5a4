"""The trust benchmark's section of docs/results/extraction.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from extract.hand.config import GATES
from tests.benchmarks.trust_cases import CORRUPTIONS

KEPT = 0.6  # a good clip is kept when so many of its frames pass
WORSE = 1.5  # a bad clip is repaired when its error is at most so many times that of the clean clip
REAL_LIMIT_M = 0.02  # for real footage, which has no truth: mean deviation from the clean clip's result


def verdict(row: dict[str, Any]) -> str:
    """``kept`` or ``lost`` for good clips; ``rejected``, ``repaired`` or ``passed`` for bad ones."""
    if row["bad"] == "none":
        return "kept" if row["kept"] >= KEPT else "lost"
    if row["error_m"] is None:
        return "rejected"
    limit = REAL_LIMIT_M if row["real"] else WORSE * (row["clean_error_m"] or 0.0)
    return "repaired" if row["error_m"] <= limit else "passed"


def interval(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927), percent."""
    if not count:
        return 0.0, 100.0
    z, share = 1.96, hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return float(100 * (middle - half)), float(100 * (middle + half))


def section(figures: dict[str, Any]) -> str:
    """Markdown."""
    rows = figures["rows"]
    return "\n".join(
        [
            "## Trust in hands",
            "",
            "Clips made bad on purpose, with the default settings and gates (`tests/benchmarks/extraction_trust.py`). "
            "Simulated close-ups of one hand (2 s at 25 Hz, 640x480) and of two hands (3 s), with exact truth and, in "
            "half of the runs, exact sensor depth; and stretches of 2.4 s of real footage (signing, a waving hand, "
            "cups, coffee). A bad clip is *rejected* when no track passes its gates, *repaired* when the points that "
            f"still count as measured are on average at most {WORSE} times as far from the truth as in the clean clip "
            f"(real footage, which has no truth: at most {1000 * REAL_LIMIT_M:.0f} mm from the clean clip's result), "
            f"and else it *passed*. A good clip is kept when at least {KEPT:.0%} of its frames pass. Gates were chosen "
            "on other seeds and other stretches.",
            "",
            *_summary(rows),
            "",
            *_corruptions(rows),
            "",
            f"Gates: {_gates()}.",
            "",
            *_identity(figures.get("identity", [])),
            *_masks(figures.get("masks", {})),
            *_speed(figures.get("speed", {})),
            "Limits: the corruptions are ours, real videos fail in more ways; simulated hands hold nothing. A hand "
            "that is too large or too small throughout looks like one at another distance, and no gate tells without "
            "depth. Of real hands, fast and blurred ones (cups) are rejected most often.",
            "",
        ]
    )


def _groups(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {
        "simulated, sensor depth": [row for row in rows if row["sensor"]],
        "simulated, image only": [row for row in rows if not row["sensor"] and not row["real"]],
        "real, image only": [row for row in rows if row["real"]],
    }


def _summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "| clips | good kept | bad rejected or repaired | largest depth error of an accepted frame, median / 90 % |",
        "|---|---|---|---|",
    ]
    for name, group in [*_groups(rows).items(), ("all", list(rows))]:
        if not group:
            continue
        good = [verdict(row) == "kept" for row in group if row["bad"] == "none"]
        bad = [verdict(row) != "passed" for row in group if row["bad"] != "none"]
        cells = [_share(good), _share(bad)]
        off = [100 * row["depth_off"] for row in group if not row["real"] and row["error_m"] is not None]
        cells.append(f"{np.median(off):.1f} / {np.percentile(off, 90):.1f} %" if off else "-")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    frames = [row for row in rows if row["sensor"] and row["error_m"] is not None]
    if frames:
        beyond, count = (sum(row[key] for row in frames) for key in ("frames_beyond", "frames_accepted"))
        lines += [
            "",
            f"With sensor depth {beyond} of {count} accepted frames (good and bad clips) are off by more than 5 % in "
            "depth.",
        ]
    return lines


def _share(hits: Sequence[bool]) -> str:
    low, high = interval(sum(hits), len(hits))
    return f"{100 * np.mean(hits):.0f} % ({sum(hits)} of {len(hits)}; {low:.0f} to {high:.0f})" if hits else "-"


def _corruptions(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "Rejected / repaired / passed:",
        "",
        "| what is bad | sensor depth | image only | real |",
        "|---|---|---|---|",
    ]
    for corruption in CORRUPTIONS:
        cells = []
        for group in _groups(rows).values():
            found = [verdict(row) for row in group if row["bad"] == corruption.name]
            cells.append(
                " / ".join(str(found.count(kind)) for kind in ("rejected", "repaired", "passed")) if found else "-"
            )
        lines.append(f"| {corruption.name}: {corruption.told} | {' | '.join(cells)} |")
    return lines


def _gates() -> str:
    parts = []
    for name, gate in GATES.items():
        limits = [f"at least {gate.at_least:g}"] if gate.at_least is not None else []
        limits += [f"at most {gate.at_most:g}"] if gate.at_most is not None else []
        parts.append(f"{name} {' and '.join(limits)}")
    return "; ".join(parts)


def _identity(clips: Sequence[dict[str, Any]]) -> list[str]:
    if not clips:
        return []
    swaps, with_swaps = sum(clip["swaps"] for clip in clips), sum(clip["swaps"] > 0 for clip in clips)
    delays = [delay for clip in clips for delay in clip["delays_s"]]
    return [
        f"**Who is who.** {len(clips)} simulated clips of two hands (crossing, one before the other, touching, leaving "
        f"and returning; of one person and of two): {swaps} swaps, in {with_swaps} clips. Hands in plain view are "
        f"found in {100 * np.mean([clip['seen'] for clip in clips]):.1f} % of the frames "
        f"({100 * np.mean([clip['seen_always'] for clip in clips]):.1f} % when more hands are looked for in every "
        f"frame); a hand that appears is found {np.median(delays):.2f} s later than by looking in every frame (median; "
        f"longest {max(delays):.2f} s, {len(delays)} times). A hand that was hidden for longer than max_gap_s begins a "
        "new track.",
        "",
    ]


def _masks(masks: dict[str, list[float]]) -> list[str]:
    if not masks:
        return []
    parts = [
        f"{name} {np.median(values):.2f} (a tenth below {np.percentile(values, 10):.2f})"
        for name, values in masks.items()
    ]
    return [
        "**Masks from landmarks** (extract/segment/landmarks.py), intersection over union with the exact mask, median "
        f"over {len(next(iter(masks.values())))} frames: {'; '.join(parts)}.",
        "",
    ]


def _speed(speed: dict[str, dict[str, float]]) -> list[str]:
    if not speed:
        return []
    lines = ["Frames per second of processor time, one process, decoding not counted:", ""]
    lines += ["| video | bare HandLandmarker, two hands | all looking of the extractor |", "|---|---|---|"]
    lines += [f"| {name} | {row['bare_fps']:.0f} | {row['look_fps']:.0f} |" for name, row in speed.items()]
    return [*lines, ""]
