"""The figures of the benchmark of pretraining as a page of Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from pretrain.metrics import NO_MOTION
from pretrain.neighbour import NAME as NEIGHBOUR
from tests.benchmarks.pretraining_cells import BATCH, CELLS, DEFAULT, HAND, ROBOT, STRIDE, SUBSETS
from tests.benchmarks.pretraining_cells import TUNING_SEED as EXTRA
from tests.benchmarks.pretraining_data import GRID
from tests.benchmarks.pretraining_figures import ADE
from tests.benchmarks.pretraining_intervals import RESAMPLES

_SUBSET_WORDS = {"all": "all", ROBOT: "robot", HAND: "hand"}


def page(figures: dict[str, Any], added: Sequence[str] = ()) -> str:
    """docs/results/pretraining.md. added: sections in Markdown, put at the end as they are."""
    parts = [
        "# Pretraining: objectives, baselines, ablations", _intro(figures),
        figures["verdict"]["text"], _strong(figures),
        "## Objectives beside baselines", _objectives(figures), _told_apart(figures, "objective"),
        "### By embodiment", _embodiments(figures), "### Over time", _ahead(figures),
        "## Ablations", _ablations(figures), _told_apart(figures, "ablation"), "### In the image plane",
        _plane_table(figures),
        "## How it was measured", _method(figures), _tuning(figures),
    ]  # fmt: skip
    paragraphs = "\n\n".join(part for part in parts if part).split("\n\n")
    filled = [text if text[0] in "#|" else textwrap.fill(text, 120) for text in paragraphs]
    return "\n\n".join([*filled, *(section.strip() for section in added)]) + "\n"


def _intro(f: dict[str, Any]) -> str:
    facts, test = f["facts"], f["data"]["test"]
    missing = f" Not measured: {', '.join(facts['missing'])}." if facts["missing"] else ""
    return f"""Written by `python -m tests.benchmarks.pretraining --json F --page docs/results/pretraining.md --tune`.

Everything here is **simulated**: Meta-World tasks by a robot, and the same motions shown by a simulated human hand.
Figures compare methods with each other on these clips; none says how well real video is predicted. Every row was
trained with the same clips, {facts["steps"]} steps of {BATCH} windows and the same network, once for each of
{len(facts["seeds"])} seeds, and judged on {test["clips"]} clips ({test["robot_clips"]} robot,
{test["hand_clips"]} hand; {test["motions"]} motions) of the same tasks from other seeds of the simulator, which
nothing was chosen on.{missing}"""


def _strong(f: dict[str, Any]) -> str:
    """What the target is worth: how other baselines fare beside constant velocity."""
    ade = {row["key"]: row["values"]["all"][ADE]["mean"] for row in f["rows"]}
    if DEFAULT not in ade:
        return ""
    return (
        f"How hard that is: on these clips {NO_MOTION} has {ade[NO_MOTION]:.1f} mm, {f['velocity']} "
        f"{ade[f['velocity']]:.1f} mm and the nearest neighbour {ade[NEIGHBOUR]:.1f} mm; the default has "
        f"{ade[DEFAULT] / ade[NEIGHBOUR]:.2f} times the neighbour's error."
    )


def _interval(value: dict[str, float] | None, digits: int = 1, scale: float = 1.0) -> str:
    if value is None:
        return "-"
    low, high = (f"{scale * value[end]:.{digits}f}" for end in ("low", "high"))
    return f"{scale * value['mean']:.{digits}f} ({low} to {high})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _of_kind(f: dict[str, Any], *kinds: str) -> list[dict[str, Any]]:
    return [row for row in f["rows"] if row["kind"] in kinds]


def _bold(row: dict[str, Any]) -> str:
    return f"**{row['title']}**" if row["key"] == DEFAULT else row["title"]


def _objectives(f: dict[str, Any]) -> str:
    at, rows = f["horizons_s"][-1], []
    for row in _of_kind(f, "baseline", "objective"):
        values, against = row["values"]["all"], row["against"]["all"]
        millimetres = [_interval(values[name]) for name in (ADE, "displacement_mm", "chamfer_mm", "path_mm")]
        shares = [_interval(values[name], 0, 100) for name in ("within_2cm", "within_5cm")]
        ratios = [f"{against[name]['ratio']['mean']:.2f}" for name in (f["velocity"], NEIGHBOUR)]
        rows.append([_bold(row), *millimetres, *shares, *ratios])
    head = ["", f"ADE to {at:g} s, mm", f"FDE at {at:g} s, mm", "Chamfer, mm", "path, mm", "within 2 cm, %"]
    head += ["within 5 cm, %", "ADE / constant velocity's", "ADE / neighbour's"]
    return (
        _table(head, rows)
        + f"""

Mean over episodes and seeds (95 % interval). FDE, Chamfer, path error and shares are those at {at:g} s; definitions and
sources stand in `pretrain/metrics.py`. Constant velocity's ratio is to the better of the two. Nearest neighbour: the
{f["neighbour"]["neighbours"]} training windows most like this one, out of {f["neighbour"]["windows"]}, replayed; its
weights and number of neighbours were chosen on training clips. 2D tracks are placed at the depth that each point has
now. Latent actions are learned from images; what turns them into points of the effector teaches them nothing."""
    )


def _told_apart(f: dict[str, Any], kind: str) -> str:
    """Which rows differ from the default beyond the interval of the difference, and which do not."""
    words: dict[str, list[str]] = {"worse": [], "better": [], "same": []}
    for row in _of_kind(f, kind):
        if row["key"] != DEFAULT and DEFAULT in row["against"]["all"]:
            apart = row["against"]["all"][DEFAULT]["difference"]
            words[_sign(apart)].append(f"{row['title']} ({_signed(apart)} mm)")
    sentences = []
    for sign, text in (("worse", "Worse than the default"), ("better", "Better than the default")):
        if words[sign]:
            sentences.append(f"{text}, beyond the interval of the difference in ADE: {'; '.join(words[sign])}.")
    if words["same"]:
        sentences.append(
            f"Not told apart from the default, as the interval of the difference holds 0: {'; '.join(words['same'])}."
        )
    if kind == "objective":
        behind = [
            row["title"]
            for row in _of_kind(f, kind)
            if _sign(row["against"]["all"][NEIGHBOUR]["difference"]) != "better"
        ]
        sentences.append(
            "Against the nearest neighbour, "
            + (f"not better beyond the interval: {'; '.join(behind)}." if behind else "every objective is better.")
        )
    return " ".join(sentences)


def _sign(apart: dict[str, float]) -> str:
    return "worse" if apart["low"] > 0 else "better" if apart["high"] < 0 else "same"


def _signed(apart: dict[str, float]) -> str:
    return f"{apart['mean']:+.1f}, {apart['low']:+.1f} to {apart['high']:+.1f}"


def _embodiments(f: dict[str, Any]) -> str:
    rows = [
        [_bold(row), *(_interval(row["values"][subset].get(ADE)) for subset in (ROBOT, HAND))]
        for row in _of_kind(f, "baseline", "objective")
    ]
    return _table([f"ADE to {f['horizons_s'][-1]:g} s, mm", "robot clips", "hand clips"], rows)


def _ahead(f: dict[str, Any]) -> str:
    rows = [
        [_bold(row), *("-" if at is None else f"{at['mean']:.1f}" for at in row["ade_ahead"])]
        for row in _of_kind(f, "baseline", "objective")
    ]
    return _table(["ADE, mm, up to", *(f"{horizon:g} s" for horizon in f["horizons_s"])], rows)


def _ablations(f: dict[str, Any]) -> str:
    chosen = [row for row in f["rows"] if row["key"] in (DEFAULT, "tracks-2d") or row["kind"] == "ablation"]
    rows = []
    for row in chosen:
        own = row["key"] == DEFAULT
        apart = {subset: row["against"].get(subset, {}).get(DEFAULT) for subset in SUBSETS}
        cells = [
            "-" if own or found is None else f"{_signed(found['difference'])}" for found in apart.values()
        ]  # fmt: skip
        rows.append([_bold(row), _interval(row["values"]["all"].get(ADE)), *cells])
    head = ["", f"ADE to {f['horizons_s'][-1]:g} s, mm", *(f"to the default, {_SUBSET_WORDS[s]}" for s in SUBSETS)]
    return (
        _table(head, rows)
        + f"""

Columns 3 to 5: difference to the default's ADE in mm and its 95 % interval; plus is worse. All are tested on the 200
points that extraction puts on the effector. Uniform grid: the training clips' frames with {GRID} x {GRID} points all
over the picture instead, tracked and lifted by the same Lucas-Kanade and depth; {f["data"]["grid_on_effector"]:.1f} of
them lie on the effector on average, and a model so trained meets clouds in test of a kind that it never saw, which is
part of the difference. Removed inputs are missing in
training and in test. Robot alone trains as many steps, on robot clips only; hands are an embodiment unknown to it.
Intervals are not corrected for the number of rows."""
    )


def _plane_table(f: dict[str, Any]) -> str:
    rows = [
        [
            found["title"],
            _interval(found["ade_mm"]),
            "-" if not (d := found["difference"]) or name == DEFAULT else _signed(d),
        ]
        for name, found in f["in_plane"].items()
    ]
    return (
        _table(["", f"ADE to {f['horizons_s'][-1]:g} s, mm", "to the default"], rows)
        + """

What a tracker without depth can be judged by: predicted and true points are moved along their rays to the depth that
each has now, so only motion across the ray counts. Baselines go on from image tracks."""
    )


def _method(f: dict[str, Any]) -> str:
    facts, data = f["facts"], f["data"]
    versions = facts["versions"]
    seconds = facts["train_s"].values()
    named = ", ".join(f"{CELLS[name].title} {count / 1e6:.2f} M" for name, count in facts["parameters"].items())
    train, used = data["train"], [name for name in ("python", "torch", "transformers", "numpy") if name in versions]
    return f"""Clips: {train["clips"]} to train on ({train["robot_clips"]} robot, {train["hand_clips"]} hand;
{train["motions"]} motions, {train["frames"]} frames), {data["val"]["clips"]} held out of the same run for choosing
learning rates, {data["test"]["clips"]} for test; 128 x 128 pixels, 20 frames/s, made by the stages simulate,
index, extract and pack. Tasks: close and open a drawer and a window, press a button, close a faucet. Close-up hand
clips are left out, as they follow no task. {facts["windows"]} test windows, every {STRIDE}rd; an error at a horizon is
that of windows whose clip lasts so long.

The network is the compact model with the settings' defaults. Parameters: {named}. The last checkpoint is judged. Each
row and seed is one process with one thread; training took {min(seconds):.0f} to {max(seconds):.0f} s (median over
seeds), {facts["jobs"]} at once on {facts["cores"]} cores without a GPU. Made on {facts["date"]}; this command took
{facts["minutes"]:g} minutes, without what was cached.

Intervals: bootstrap over episodes (robot episode and hand twin of one motion count as one) and seeds, crossed,
{RESAMPLES} resamples; rows share the resampled episodes. Three seeds tell little of the spread between seeds.

Versions: {", ".join(f"{name} {versions[name]}" for name in used)}; code {versions["kinecloud"]}."""


def _tuning(f: dict[str, Any]) -> str:
    if not f["tuning"]:
        return "Learning rates were not tuned; all rows use the same one."
    rows = [
        [CELLS[name].title, *(f"{error:.1f}" for error in found["errors"].values()), f"{found['chosen']:g}"]
        for name, found in f["tuning"].items()
    ]
    rates = list(next(iter(f["tuning"].values()))["errors"])
    head = ["ADE on held-out clips, mm, by learning rate", *rates, "chosen"]
    return (
        _table(head, rows)
        + f"""

The same effort for each objective: {len(rates)} learning rates with one more seed ({EXTRA}), judged on the held-out
clips of the training run. Ablations use the default's. Weights of the two terms of the default, and all else, are the
settings' defaults."""
    )
