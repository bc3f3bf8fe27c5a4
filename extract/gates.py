"""Gates on the quality of a clip: each names a score, a limit, and rejects by name, value and limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from pipeline.config import Settings


class Gate(Settings):
    """Limits of one score; a score that was not measured for a clip passes."""

    at_least: float | None = Field(default=None, description="Smaller scores are rejected.")
    at_most: float | None = Field(default=None, description="Larger scores are rejected.")

    @model_validator(mode="after")
    def _some_limit(self) -> Gate:
        if self.at_least is None and self.at_most is None:
            raise ValueError("needs at_least or at_most")
        return self

    def fault(self, value: float) -> str | None:
        """What is wrong with a value, or None."""
        if self.at_least is not None and not value >= self.at_least:
            return f"{value:.4g} is below {self.at_least:g}"
        if self.at_most is not None and not value <= self.at_most:
            return f"{value:.4g} is above {self.at_most:g}"
        return None


Gates = dict[str, Gate | None]


def merged(defaults: Mapping[str, Gate | None], given: Any) -> Any:
    """Configured gates over the defaults: a name replaces its default, null switches it off."""
    return {**defaults, **given} if isinstance(given, Mapping) else given


def faults(quality: Mapping[str, float], gates: Mapping[str, Gate | None]) -> list[tuple[str, str]]:
    """("gate_NAME", "value is below limit") for every gate that the scores do not pass."""
    found = []
    for name, gate in gates.items():
        if gate is not None and name in quality and (fault := gate.fault(quality[name])):
            found.append((f"gate_{name}", f"{name} {fault}"))
    return found
