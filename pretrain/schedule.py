"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math


def learning_rate(step: int, steps: int, peak: float, warmup_steps: int, final: float) -> float:
    """Linear warm-up to ``peak``, then a cosine down to ``final * peak`` at the last step.

    step: 0-based, of ``steps``. No state: what was trained before does not matter.
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, steps - 1 - warmup_steps)
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
