"""Settings of the simulated source. Importing this file starts no simulator."""

from __future__ import annotations

import difflib

from pydantic import Field, field_validator

from data.simulation.sensors import Sensors
from data.simulation.tasks import INSTRUCTIONS
from pipeline.config import Settings


class SimulateConfig(Settings):
    """Which simulated episodes to make. Everything made from it is simulated; hands are overlays, never real data."""

    labelled_tasks: tuple[str, ...] = Field(
        default=("drawer-close-v3", "window-close-v3", "faucet-close-v3", "button-press-v3", "pick-place-v3"),
        description="Meta-World tasks whose robot episodes carry actions.",
    )
    video_only_tasks: tuple[str, ...] = Field(
        default=("drawer-open-v3", "window-open-v3", "faucet-open-v3", "button-press-topdown-v3", "push-v3"),
        description="Meta-World tasks that are only seen: no actions are written.",
    )
    robot_episodes: int = Field(default=6, ge=0, description="Robot episodes per task.")
    labelled_episodes: int | None = Field(
        default=None,
        ge=0,
        description="Only the first so many robot episodes of a labelled task carry actions; null = all of them.",
    )
    hand_episodes: int = Field(
        default=3,
        ge=0,
        description="Human-hand twins per task; twin k shows the motion of robot episode `hand_first` + k.",
    )
    hand_first: int = Field(
        default=0, ge=0, description="Which motion the first twin shows; from `robot_episodes` on, no robot shows it."
    )
    sensors: Sensors = Field(
        default="truth",
        description="What the episodes tell: `truth`, masks, depth, grasp points and poses of the simulator; `rgbd`, "
        "video and depth; `rgb`, video alone. Labelled robot episodes always tell pose, actions and proprioception.",
    )
    closeup_clips: int = Field(default=12, ge=0, description="Close-up hand clips, seen by the real hand detector.")
    closeup_size: tuple[int, int] = Field(default=(640, 480), description="Width and height of close-ups, pixels.")
    closeup_seconds: float = Field(default=2.0, gt=0, description="Length of a close-up.")
    closeup_steps_mm: tuple[float, ...] = Field(
        default=(5.0, 10.0, 20.0),
        min_length=1,
        description="Median motion from frame to frame, in turn, mm.",
    )
    closeup_left_every: int = Field(default=4, ge=0, description="Every n-th close-up shows a left hand; 0 = none.")
    resolution: int = Field(default=128, ge=32, multiple_of=2, description="Side of the square task pictures, pixels.")
    action_noise: float = Field(
        default=0.3,
        ge=0,
        description="Standard deviation of the noise on the expert's commands during lapses (full scale 1).",
    )
    action_mixing: int | None = Field(
        default=None,
        ge=0,
        description="Seed of a fixed matrix that mixes the translation axes of every action; null = axes of the world.",
    )
    retry_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of the episodes of tasks with a grasp whose first grasp misses and is tried again.",
    )
    tail_seconds: float = Field(default=0.5, ge=0, description="How long to record on after success.")
    camera_jitter_m: float = Field(default=0.06, ge=0, description="Bound of the camera's random displacement, metres.")
    extra_object_range_m: float = Field(default=0.0, ge=0, description="Widen where objects start, metres per side.")
    show_goal_tasks: tuple[str, ...] = Field(
        default=("pick-place-v3", "push-v3"),
        description="Tasks whose goal is drawn, because nothing else in the picture tells where it is.",
    )

    @field_validator("labelled_tasks", "video_only_tasks", "show_goal_tasks")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in INSTRUCTIONS:
                near = difflib.get_close_matches(name, INSTRUCTIONS, n=1, cutoff=0.3)
                raise ValueError(f"unknown Meta-World task '{name}'" + (f"; did you mean '{near[0]}'?" if near else ""))
        return names

    @field_validator("closeup_size")
    @classmethod
    def _even(cls, size: tuple[int, int]) -> tuple[int, int]:
        if any(side % 2 or side < 32 for side in size):
            raise ValueError(f"closeup_size {size}: H.264 needs even sides of at least 32 pixels")
        return size

    def is_labelled(self, task: str, index: int) -> bool:
        """True when robot episode ``index`` of ``task`` carries actions."""
        return task in self.labelled_tasks and (self.labelled_episodes is None or index < self.labelled_episodes)

    def tasks(self) -> tuple[str, ...]:
        """All tasks, labelled ones first, each once."""
        return tuple(dict.fromkeys(self.labelled_tasks + self.video_only_tasks))
