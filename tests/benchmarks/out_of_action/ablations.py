"""The source paper's ablations, and what the rows that repeat them found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.benchmarks.out_of_action.lines import Line, shared
from tests.benchmarks.out_of_action.rows import CHAIN, MAIN

PAPER = 68.2  # its full method, per cent


@dataclass(frozen=True)
class Ablation:
    """Something that the paper changed in its method. paper: success with the change, per cent. changed, full: the
    rows here, with the change and without."""

    words: str
    paper: float
    changed: str
    full: str


ABLATIONS = (
    Ablation("2D tracks instead of 3D", 64.2, "tracks2d", MAIN),
    Ablation("32 points instead of 200", 60.9, MAIN, "points200"),
    Ablation("points of a uniform grid instead of the effector's", 54.7, "grid", MAIN),
    Ablation("points and actions trained together instead of in two stages", 47.9, "joint", "direct"),
    Ablation("separate models of the stages, which share no weights", 46.9, "separate", "direct"),
)


def repeated(ablation: Ablation, lines: dict[tuple[str, str], Line]) -> dict[str, Any]:
    """What was found here, over the training seeds that both rows have. here: null where they share none, or where a
    row was not measured with the present code."""
    document = {"words": ablation.words, "changed": ablation.changed, "full": ablation.full, "here": None}
    document["paper"] = round(ablation.paper - PAPER, 1)
    changed, full = (lines.get((name, CHAIN)) for name in (ablation.changed, ablation.full))
    if changed is None or full is None or not (changed.measured and full.measured):
        return document
    if not changed.entries.keys() & full.entries.keys():
        return document
    changed, full = shared(changed, full)
    seeds = [int(seed) for seed in full.entries]
    apart = changed.minus(full, labelled=False)
    here = {"seeds": seeds, "changed": changed.unseen, "full": full.unseen, "difference": apart}
    return document | {"here": here}
