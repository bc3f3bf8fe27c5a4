"""The suite: which tasks, which scenes, and how much of everything a budget allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from data.simulation.sensors import Sensors

CHAINS: tuple[Sensors, ...] = ("truth", "rgbd", "rgb")
LABELLED_TASKS = ("drawer-close-v3", "window-close-v3", "faucet-close-v3", "button-press-v3", "pick-place-v3")
VIDEO_ONLY_TASKS = (
    "drawer-open-v3", "window-open-v3", "faucet-open-v3", "button-press-topdown-v3", "push-v3", "door-open-v3",
    "coffee-push-v3", "plate-slide-v3", "coffee-pull-v3", "lever-pull-v3", "plate-slide-back-v3", "sweep-into-v3",
)  # fmt: skip
# Scenes of recording and of rollout alike.
SCENES: dict[str, Any] = {
    "extra_object_range_m": 0.12,
    "camera_jitter_m": 0.0,
    "action_mixing": 1,
    "show_goal_tasks": ["push-v3", "pick-place-v3"],
}
RECORDING: dict[str, Any] = {"action_noise": 0.2, "retry_share": 0.2, "closeup_clips": 0}
DATA_SEED = 0
TRAINING_SEEDS = (0, 1, 2)
RATE_HZ = 20.0
# How each chain sees a robot; hands need no setting.
EXTRACT: dict[str, dict[str, Any]] = {
    "truth": {},
    "rgbd": {"gripper": {"detect": {"name": "registered"}}},
    "rgb": {"gripper": {"detect": {"name": "learned"}}},
}
# What a predictor of each chain is given to see: with depth, the scene without the actor; in colour alone the picture
# as it is, because without depth the arm is not told from what is behind it. Extracted hands are seen less often than
# robots, because they are less exact: some 9 mm with depth against 2; decimetres along the viewing ray in colour.
FEWER_HANDS: dict[str, Any] = {"by": "embodiment", "weights": {"human-hand": 0.25, "*": 0.75}}
PRETRAIN: dict[str, dict[str, Any]] = {
    "truth": {"window": {"scene": "depth"}},
    "rgbd": {"window": {"scene": "depth"}, "mixture": FEWER_HANDS},
    "rgb": {"window": {"scene": "none"}, "objective": {"trust_m": 0.03}, "mixture": FEWER_HANDS},
}
# How every row learns, whatever the budget.
LEARNING: dict[str, Any] = {
    "learning_rate": 1.5e-3, "weight_decay": 0.02, "ema_decay": 0.995, "batch_size": 32,
    "validation_windows": 256, "evaluation_candidates": 0,
    "window": {"horizons_s": [0.05, 0.1, 0.15, 0.2, 0.3], "points": 32},
    "model": {"width": 96, "layers": 2, "heads": 4},
    "objective": {"chamfer": 1.0, "tracked": 1.0, "opening": 0.5, "grasp": 1.0, "waypoints": 1.0, "heatmap": 0.2},
    "augment": {"roll_deg": 8.0, "zoom": 0.12, "shift": 0.06, "color": 0.2, "past_offset_m": 0.012, "past_slow": 0.5,
                "drop_image": 0.0, "drop_text": 0.0, "drop_embodiment": 0.0, "drop_history": 0.0, "drop_opening": 0.0},
}  # fmt: skip
VIDEOS = 0.8  # share of windows without labels where points and actions are learned together
CONTROL: dict[str, Any] = {"execute": 1, "max_seconds": 6.0}


@dataclass(frozen=True)
class Budget:
    """What is spent on a row.

    episodes: of each task and training seed in closed loop. judged: robot episodes per task that nothing is learnt
    from; predictors are judged on them. labelled, robot, hand: rows get no more than so many episodes per task.
    resolution: side of the simulated pictures, pixels. scenes: over SCENES. pretrain, align, rollout: of these
    sections, for every row. rows: those to run; null = all. jobs: how many of them side by side. margin: by how much
    main's mean success on video-only tasks must exceed that without their videos, or else the command fails; null = it
    never does.
    """

    name: str
    labelled_tasks: tuple[str, ...] = LABELLED_TASKS
    video_only_tasks: tuple[str, ...] = VIDEO_ONLY_TASKS
    chains: tuple[Sensors, ...] = CHAINS
    seeds: tuple[int, ...] = TRAINING_SEEDS
    episodes: int = 40
    judged: int = 4
    labelled: int = 10
    robot: int = 40
    hand: int = 40
    resolution: int = 480
    scenes: Mapping[str, Any] = field(default_factory=dict)
    pretrain: Mapping[str, Any] = field(default_factory=dict)
    align: Mapping[str, Any] = field(default_factory=dict)
    rollout: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[str, ...] | None = None
    jobs: int = 1
    margin: float | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Labelled tasks, then those seen only."""
        return self.labelled_tasks + self.video_only_tasks


SMOKE = Budget(
    "smoke",
    labelled_tasks=("drawer-close-v3", "faucet-close-v3"),
    video_only_tasks=("button-press-topdown-v3",),
    chains=("truth",),
    seeds=(0,),
    episodes=4,
    judged=1,
    labelled=3,
    robot=6,
    hand=2,
    resolution=96,
    pretrain={"steps": 260, "batch_size": 16, "checkpoint_every": 260, "validation_windows": 64, "device": "cpu",
              "window": {"image_size": 64, "points": 16}, "model": {"width": 64}},
    align={"steps": 100, "device": "cpu"},
    rollout={"max_seconds": 2.0},
    rows=("main", "labelled_videos"),
    jobs=2,
    margin=0.5,
)  # fmt: skip
# As much as extraction needs to find grippers, so that every chain is possible.
SMALL = replace(
    SMOKE,
    name="small",
    labelled_tasks=LABELLED_TASKS,
    chains=CHAINS,
    episodes=2,
    robot=3,
    hand=1,
    resolution=480,
    rows=None,
    margin=None,
)
CPU = Budget(
    "cpu",
    pretrain={"steps": 5000, "checkpoint_every": 5000, "device": "cpu"},
    align={"steps": 800, "checkpoint_every": 800, "device": "cpu"},
)
GPU = Budget(
    "gpu",
    pretrain={"steps": 20000, "batch_size": 128, "checkpoint_every": 5000, "mixed_precision": "bf16", "device": "cuda"},
    align={"steps": 3000, "batch_size": 64, "checkpoint_every": 3000, "device": "cuda"},
)
BUDGETS = {budget.name: budget for budget in (SMOKE, SMALL, CPU, GPU)}
