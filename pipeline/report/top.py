"""Choose what a newcomer sees first: key figures, overlays, the turning cloud, curves, the rollout strip.

Items that a stage marked ``top`` are taken, and where the stage that matters most for a kind marked none, its first
item is, so that a run whose stages marked nothing still opens well. Chosen items are shown once, at the top, and not
again in their section; figures are shown in both places.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.report.run import Part

MAX_FACTS = 8
FACTS_PER_ITEM = 4
UNMARKED_FACTS = 2
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

    @property
    def looks(self) -> list[Chosen]:
        """Overlays and clouds by stage, so that a stage's pictures stand beside its cloud."""
        return sorted([*self.overlays, *self.clouds], key=lambda c: (c.part.order, c.part.stage))

    def holds(self, item: dict[str, Any]) -> bool:
        return any(c.item is item for group in (self.overlays, self.clouds, self.curves, self.films) for c in group)


def choose_top(parts: list[Part]) -> Top:
    """The items for the first screens, in report order."""
    everything = [Chosen(part, item) for part in parts for item in part.items]

    def marked(kind: str) -> list[Chosen]:
        return [c for c in everything if c.item.get("kind") == kind and c.item.get("top")]

    def first(kind: str, *stages: str) -> list[Chosen]:
        """The first item of that kind in each of the stages."""
        found = (
            next((c for c in everything if c.item.get("kind") == kind and c.part.stage == s), None) for s in stages
        )
        return [c for c in found if c is not None]

    def with_extraction(kind: str) -> list[Chosen]:
        """Marked items, and one of the extraction in any case: the points on the video are what all else rests on."""
        chosen = marked(kind)
        missing = [] if any(c.part.stage == "extract" for c in chosen) else first(kind, "extract")
        return (missing + chosen)[:2]

    return Top(
        facts=_facts(everything),
        overlays=with_extraction("images"),
        clouds=with_extraction("cloud") or first("cloud", "pretrain"),
        curves=marked("curves")[:4] or first("curves", "pretrain", "align"),
        films=marked("film")[:3] or first("film", "rollout") or first("images", "rollout"),
    )


def _facts(everything: list[Chosen]) -> list[tuple[str, str, Part]]:
    """Marked figures, and the first two of the extraction in any case; where none is marked, the first two of each."""
    of_kind = [c for c in everything if c.item.get("kind") == "facts" and isinstance(c.item.get("facts"), list)]
    marked = [c for c in of_kind if c.item.get("top")]
    if marked and not any(c.part.stage == "extract" for c in marked):
        marked += [c for c in of_kind if c.part.stage == "extract"]
    facts = []
    for c in marked or of_kind:
        limit = FACTS_PER_ITEM if c.item.get("top") else UNMARKED_FACTS
        pairs = [pair for pair in c.item["facts"] if isinstance(pair, list) and len(pair) == 2]
        facts += [(str(name), str(value), c.part) for name, value in pairs[:limit]]
    return sorted(facts[:MAX_FACTS], key=lambda fact: (fact[2].order, fact[2].stage))
