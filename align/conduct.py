"""How a policy is tried, and what came of it. Needs neither torch nor the simulator."""

from __future__ import annotations

from dataclasses import dataclass

from align.config import ControlName
from align.followers import Following


@dataclass(frozen=True)
class Outcome:
    """How one episode ended. seconds: simulated time until success or the end. film: (JPEG, seconds) per decision.
    confused: it failed doing what the task's sibling asks for; None for a task without one."""

    task: str
    seed: int
    success: bool
    seconds: float
    film: tuple[tuple[bytes, float], ...] = ()
    lost: str | None = None
    confused: bool | None = None


@dataclass(frozen=True)
class Conduct:
    """How a policy is run. execute: actions per decision. max_seconds: simulated. image_side: of stored pictures.
    embodiment: its name."""

    control: ControlName
    execute: int
    max_seconds: float
    following: Following
    image_side: int
    embodiment: str
    extra_object_range_m: float
