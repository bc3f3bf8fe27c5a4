"""Which groups of clips are held out for validation."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Protocol


class Described(Protocol):
    """A clip, as far as its split goes; fields as in data.schema.ClipMeta."""

    @property
    def source(self) -> str: ...
    @property
    def task(self) -> str | None: ...
    @property
    def instruction(self) -> str: ...
    @property
    def group(self) -> str: ...


def validation_groups(clips: Iterable[Described], fraction: float, seed: int) -> set[str]:
    """Groups held out: in every stratum (source, task or instruction) about ``fraction`` of them, by hash order.

    A group is never split. Strata that share groups are divided together: an episode narrated in a hundred sentences
    is in a hundred strata, and a share of each would add up to most of the episodes. Of a stratum with several groups
    one at least stays in training. A stratum with a single group stays there as a whole, but where nothing else of a
    source is held out, its groups without a task are divided as one stratum: sentences may all be different.
    """
    strata: dict[tuple[str, str], set[str]] = defaultdict(set)
    taskless: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        strata[clip.source, clip.task or clip.instruction].add(clip.group)
        taskless[clip.source].update(() if clip.task else (clip.group,))
    held_out = _held_out(list(strata.values()), fraction, seed)
    served = {source for (source, _), groups in strata.items() if groups & held_out}
    return held_out | _held_out([taskless[source] for source in taskless if source not in served], fraction, seed)


def _held_out(strata: list[set[str]], fraction: float, seed: int) -> set[str]:
    found: set[str] = set()
    for linked in _linked(strata):
        groups = sorted(set().union(*linked), key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).hexdigest())
        found |= _first(groups, linked, min(math.ceil(fraction * len(groups)), len(groups) - 1))
    return found


def _first(groups: list[str], strata: list[set[str]], count: int) -> set[str]:
    """``count`` of the groups in their order: at first those that bring something to a stratum that has nothing yet."""
    of_group = _numbers_of([stratum if len(stratum) > 1 else set() for stratum in strata])
    taken = [0] * len(strata)
    chosen: set[str] = set()
    for anyone in (False, True):
        for group in groups:
            numbers = of_group.get(group, [])
            last = any(taken[number] == len(strata[number]) - 1 for number in numbers)
            wanted = anyone or any(taken[number] == 0 for number in numbers)
            if len(chosen) < count and group not in chosen and wanted and not last:
                chosen.add(group)
                for number in numbers:
                    taken[number] += 1
    return chosen


def _linked(strata: list[set[str]]) -> list[list[set[str]]]:
    """Strata put together until those of one part share no group with those of another."""
    of_group, seen, parts = _numbers_of(strata), set[int](), list[list[set[str]]]()
    for first in range(len(strata)):
        part = [] if first in seen else [first]
        for number in part:  # which grows meanwhile
            seen.add(number)
            for group in strata[number]:
                others = [other for other in of_group.pop(group, []) if other not in seen]
                seen.update(others)
                part += others
        parts += [[strata[number] for number in part]] if part else []
    return parts


def _numbers_of(strata: list[set[str]]) -> dict[str, list[int]]:
    """For each group the numbers of the strata that hold it."""
    found: dict[str, list[int]] = defaultdict(list)
    for number, groups in enumerate(strata):
        for group in groups:
            found[group].append(number)
    return found
