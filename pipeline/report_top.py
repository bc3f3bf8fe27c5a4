"""Choose what a newcomer sees first: key figures, overlays, the turning cloud, curves, the rollout strip.

Items that a stage marked ``top`` come first; for a kind that nobody marked, the likeliest item is taken, so that a run
whose stages marked nothing still opens well. Chosen items are shown once, at the top, and not again in their section.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.report_run import Part

MAX_FACTS = 10
PICTURES_SHOWN = 6


@dataclass(frozen=True)
class Chosen:
    part: Part
    item: dict[str, Any]


@dataclass
class Top:
    """facts: (name, value, part). The other lists hold whole items."""

    facts: list[tuple[str, str, Part]] = field(default_factory=list)
    overlays: list[Chosen] = field(default_factory=list)
    clouds: list[Chosen] = field(default_factory=list)
    curves: list[Chosen] = field(default_factory=list)
    films: list[Chosen] = field(default_factory=list)

    def holds(self, item: dict[str, Any]) -> bool:
        return any(c.item is item for group in (self.overlays, self.clouds, self.curves, self.films) for c in group)


def choose_top(parts: list[Part]) -> Top:
    """The items for the first screens, in report order. Facts are repeated, not moved: they also belong in place."""
    everything = [Chosen(part, item) for part in parts for item in part.items]

    def marked(kind: str, limit: int) -> list[Chosen]:
        return [c for c in everything if c.item.get("kind") == kind and c.item.get("top")][:limit]

    def first(kind: str, *stages: str) -> list[Chosen]:
        """The first item of that kind in each of the stages."""
        found = (
            next((c for c in everything if c.item.get("kind") == kind and c.part.stage == s), None) for s in stages
        )
        return [c for c in found if c is not None]

    return Top(
        facts=_facts(everything),
        overlays=marked("images", 2) or first("images", "extract"),
        clouds=marked("cloud", 2) or first("cloud", "extract", "pretrain")[:1],
        curves=marked("curves", 4) or first("curves", "pretrain", "align"),
        films=marked("film", 3) or first("film", "rollout") or first("images", "rollout"),
    )


def _facts(everything: list[Chosen]) -> list[tuple[str, str, Part]]:
    of_kind = [c for c in everything if c.item.get("kind") == "facts" and isinstance(c.item.get("facts"), list)]
    chosen = [c for c in of_kind if c.item.get("top")]
    # Without marks, the first two figures of every section: what a stage names first matters most to it.
    per_item = MAX_FACTS if chosen else 2
    facts = []
    for c in chosen or of_kind:
        pairs = [pair for pair in c.item["facts"] if isinstance(pair, list) and len(pair) == 2]
        facts += [(str(name), str(value), c.part) for name, value in pairs[:per_item]]
    return facts[:MAX_FACTS]
