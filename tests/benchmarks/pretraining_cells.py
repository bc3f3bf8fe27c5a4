"""The rows of the benchmark of pretraining: what each trains with, and what is taken from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

HORIZONS_S = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
STEPS = 300
BATCH = 32
STRIDE = 3  # every so many-th window is judged, 0.15 s apart
SAMPLES = 8  # of a generative predictor, per window
SEEDS = (0, 1, 2)
TUNING_SEED = 100
LEARNING_RATES = (1e-3, 2e-3)

ROBOT, HAND = "sawyer-gripper", "human-hand"
SUBSETS = ("all", ROBOT, HAND)
DEFAULT = "default"
BASELINES = "baselines"


@dataclass(frozen=True)
class Cell:
    """One row, trained once per seed.

    title: in the tables. settings: of the section ``pretrain``, over those common to all. tuned_as: the row whose
    learning rate it uses, chosen on the tuning clips. removed: inputs (image, text, history) it never gets, neither in
    training nor in test. grid: trained on points all over the picture. in_plane: errors across the ray are told, too.
    """

    name: str
    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    tuned_as: str = DEFAULT
    removed: tuple[str, ...] = ()
    grid: bool = False
    samples: int = 1
    in_plane: bool = False


def _objective(name: str, title: str, **more: Any) -> Cell:
    weights = {"chamfer": 0.0, "tracked": 0.0} | more.pop("weights")
    return Cell(name, title, {"objective": weights, **more.pop("settings", {})}, tuned_as=name, **more)


OBJECTIVES = (
    Cell(DEFAULT, "chamfer + tracked (default)", tuned_as=DEFAULT, in_plane=True),
    _objective("chamfer", "chamfer", weights={"chamfer": 1.0}),
    _objective("tracked", "tracked", weights={"tracked": 1.0}),
    _objective("flow-matching", "flow matching", weights={"flow_matching": 1.0}, samples=SAMPLES),
    _objective(
        "tracks-2d", "2D tracks, depth as now (ATM-like)", weights={"tracks2d": 1.0},
        settings={"model": {"dimensions": 2}}, in_plane=True,
    ),
    _objective("latent-action", "latent actions (LAPO-like)", weights={"latent_action": 1.0, "tracked": 1.0}),
)  # fmt: skip

ABLATIONS = (
    Cell("32-points", "32 points in training instead of 64", {"window": {"points": 32}}),
    Cell("200-points", "200 points in training instead of 64", {"window": {"points": 200}}),
    Cell("uniform-grid", "points of a uniform grid instead of the effector's", grid=True),
    Cell("no-image", "no image", removed=("image",)),
    Cell("no-text", "no instruction", removed=("text",)),
    Cell("no-history", "no history, the present cloud alone", removed=("history",)),
    Cell(
        "robot-alone", "robot alone, no hands",
        {"mixture": {"by": "embodiment", "weights": {ROBOT: 1.0, "*": 0.0}}, "model": {"embodiments": [ROBOT]}},
    ),
)  # fmt: skip

CELLS = {cell.name: cell for cell in (*OBJECTIVES, *ABLATIONS)}


def settings_of(cell: Cell, steps: int, learning_rate: float) -> dict[str, Any]:
    """The section ``pretrain`` of a row but for its shards. Everything that is not here has its default.

    The last checkpoint is judged, so none is chosen. One thread: rows are trained beside each other.
    """
    common = {
        "steps": steps,
        "batch_size": BATCH,
        "learning_rate": learning_rate,
        "warmup_steps": min(50, steps // 5),
        "checkpoint_every": steps,
        "keep_last": 1,
        "validation_windows": 64,
        "device": "cpu",
        "threads": 1,
        "log_every": max(1, steps // 4),
    }
    settings = common | cell.settings
    settings["window"] = {"horizons_s": list(HORIZONS_S)} | cell.settings.get("window", {})
    if cell.removed:
        settings["augment"] = {f"drop_{name}": 1.0 for name in cell.removed}
    return settings
