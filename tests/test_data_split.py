"""The split: about the wanted share of groups, every stratum served that can be, whatever the words of the clips."""

from __future__ import annotations

import hashlib
import math
import random
from collections import defaultdict
from dataclasses import dataclass

import pytest

from data.split import validation_groups


@dataclass(frozen=True)
class Words:
    """What is said of a clip."""

    group: str
    task: str | None = None
    instruction: str = ""
    source: str = "made-up"

    @property
    def stratum(self) -> tuple[str, str]:
        return self.source, self.task or self.instruction


def by_stratum(clips: list[Words]) -> dict[tuple[str, str], set[str]]:
    strata: dict[tuple[str, str], set[str]] = defaultdict(set)
    for clip in clips:
        strata[clip.stratum].add(clip.group)
    return strata


def share_of_each(clips: list[Words], fraction: float, seed: int) -> set[str]:
    """Of every stratum for itself the first by hash: the rule where no group is in two strata."""
    held_out: set[str] = set()
    for groups in by_stratum(clips).values():
        order = sorted(groups, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).hexdigest())
        held_out |= set(order[: min(math.ceil(fraction * len(groups)), len(groups) - 1)])
    return held_out


def narrated(episodes: int, sentences: int, rng: random.Random) -> list[Words]:
    """Episodes of many sentences, few of which are frequent, as people narrate what they do in a kitchen."""
    known = [f"sentence {number}" for number in range(1000)]
    weights = [1 / (1 + number) for number in range(1000)]
    return [
        Words(f"episode-{episode}", instruction=said)
        for episode in range(episodes)
        for said in rng.choices(known, weights, k=sentences)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_strata_of_their_own_are_divided_each_for_itself(seed: int) -> None:
    """Two sources, tasks of 1 to 40 groups, several clips to a group: all that a few tasks with names can look like."""
    rng = random.Random(seed)
    clips = [
        Words(f"{source}-{task}-{group}", f"task-{task}" if source == "a" else None, f"do {task}", source)
        for source in ("a", "b")
        for task, count in enumerate([1, 2, 3, 40, *rng.choices(range(1, 30), k=8)])
        for group in range(count)
        for _ in range(rng.randint(1, 3))
    ]
    for fraction in (0.01, 0.15, 0.5, 0.99):
        assert validation_groups(clips, fraction, seed) == share_of_each(clips, fraction, seed)


def test_twins_in_another_source_are_held_out_together() -> None:
    """Every group in two strata of the same groups: as in either of them."""
    clips = [Words(f"motion-{group}", "push", source=source) for group in range(20) for source in ("robot", "hand")]
    assert validation_groups(clips, 0.15, 0) == share_of_each(clips, 0.15, 0) and len(by_stratum(clips)) == 2


@pytest.mark.parametrize("seed", range(3))
def test_of_narrated_episodes_the_wanted_share_is_held_out(seed: int) -> None:
    clips = narrated(episodes=200, sentences=50, rng=random.Random(seed))
    assert len(share_of_each(clips, 0.15, seed)) > 100, "most, where each sentence claims its share"
    held_out = validation_groups(clips, 0.15, seed)
    assert len(held_out) == 30
    several = [groups for groups in by_stratum(clips).values() if len(groups) > 1]
    assert all(groups - held_out for groups in several), "something to learn every sentence from"
    served = [bool(groups & held_out) for groups in several if len(groups) >= 10]
    assert sum(served) > 0.9 * len(served)


def test_a_stratum_that_shares_one_group_is_served_all_the_same() -> None:
    clips = [Words(f"g{number}", "many") for number in range(90)]
    clips += [Words(f"g{number}", "few") for number in range(89, 92)]
    for seed in range(10):
        held_out = validation_groups(clips, 0.1, seed)
        assert len(held_out) == 10
        assert all(groups & held_out and groups - held_out for groups in by_stratum(clips).values())


def test_where_all_sentences_differ_the_source_is_divided() -> None:
    alone = [Words(f"g{number // 3}", instruction=f"sentence {number}", source="alone") for number in range(60)]
    named = [Words(f"n{number}", f"task-{number // 5}", source="named") for number in range(20)]
    assert share_of_each(alone, 0.15, 0) == set()
    held_out = validation_groups(alone + named, 0.15, 0)
    assert len(held_out & {clip.group for clip in alone}) == 3
    assert held_out & {clip.group for clip in named} == share_of_each(named, 0.15, 0)
    assert len(validation_groups(alone[:6], 0.15, 0)) == 1 and validation_groups(alone[:3], 0.15, 0) == set()


def test_the_only_demonstration_of_a_task_stays_in_training() -> None:
    clips = [Words(f"g{number}", f"task-{number}", "one of a kind") for number in range(20)]
    assert validation_groups(clips, 0.15, 0) == set()


def test_the_order_of_clips_decides_nothing() -> None:
    clips = narrated(episodes=40, sentences=12, rng=random.Random(0))
    held_out = validation_groups(clips, 0.2, 0)
    for seed in range(5):
        assert validation_groups(random.Random(seed).sample(clips, len(clips)), 0.2, 0) == held_out
    assert validation_groups(clips, 0.2, 1) != held_out
