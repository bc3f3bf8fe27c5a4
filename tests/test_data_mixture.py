"""The order of training: exact shares in every block, no window twice in a group's epoch, any position at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from data.clips import Clip, write_shard
from data.config import MixtureConfig, WindowConfig
from data.loader import WindowDataset, batches
from data.mixture import LARGEST_BLOCK, Order, shares
from pipeline.errors import UserError

NAMES = ["bridge", "hands", "rt1"]
GROUPS = [range(0, 5), range(5, 705), range(705, 805)]
QUOTAS = [3, 10, 7]


def group_of(window: int) -> int:
    return next(number for number, windows in enumerate(GROUPS) if window in windows)


def test_every_block_has_exact_shares() -> None:
    order = Order(GROUPS, QUOTAS, seed=3)
    orders = set()
    for block in range(30):
        groups = [group_of(order.at(position)[0]) for position in range(20 * block, 20 * block + 20)]
        assert [groups.count(number) for number in range(3)] == QUOTAS
        orders.add(tuple(groups))
    assert len(orders) > 25  # and each block its own order


def test_a_group_shows_all_its_windows_before_it_shows_one_again() -> None:
    order = Order(GROUPS, QUOTAS, seed=3)
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for position in range(1600):
        window, _ = order.at(position)
        seen[group_of(window)].append(window)
    for number, windows in seen.items():
        size = len(GROUPS[number])
        epochs = [windows[start : start + size] for start in range(0, len(windows) - size + 1, size)]
        assert epochs and all(sorted(epoch) == list(GROUPS[number]) for epoch in epochs)
        assert size == 700 or epochs[0] != epochs[1]


def test_a_position_needs_nothing_from_those_before() -> None:
    straight = Order(GROUPS, QUOTAS, seed=3)
    expected = [straight.at(position) for position in range(300)]
    jumping = Order(GROUPS, QUOTAS, seed=3)
    for position in np.random.default_rng(0).permutation(300).tolist():
        assert jumping.at(position) == expected[position]
    assert [Order(GROUPS, QUOTAS, seed=4).at(position) for position in range(300)] != expected
    assert len({seed for _, seed in expected}) == 300


@pytest.mark.parametrize(
    "weights, quotas",
    [
        ({"bridge": 0.7, "hands": 0.2, "rt1": 0.1}, [7, 2, 1]),
        ({"*": 5}, [1, 1, 1]),
        ({"hands": 1, "*": 0.25}, [1, 4, 1]),
        ({"bridge": 1e-9, "hands": 1, "rt1": 2}, [1, LARGEST_BLOCK // 3, LARGEST_BLOCK * 2 // 3]),
    ],
)
def test_weights_become_whole_numbers_of_samples(weights: dict[str, float], quotas: list[int]) -> None:
    assert list(shares(MixtureConfig(weights=weights), NAMES * 2).values()) == quotas


def test_shares_follow_weights_of_any_size() -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        weights = {f"task {number}": float(random.uniform(0.001, 1)) for number in range(30)}
        quotas = shares(MixtureConfig(by="task", weights=weights), list(weights))
        total = sum(weights.values())
        assert sum(quotas.values()) == LARGEST_BLOCK
        assert all(abs(quotas[n] / LARGEST_BLOCK - w / total) < 1.5 / LARGEST_BLOCK for n, w in weights.items())


def test_names_that_do_not_fit_are_answered_with_those_that_exist() -> None:
    with pytest.raises(
        UserError, match=r"no training clip has the source 'brigde'; there are 'bridge', 'hands', 'rt1'"
    ):
        shares(MixtureConfig(weights={"brigde": 1, "*": 1}), NAMES)
    with pytest.raises(UserError, match=r"the source 'hands' has no weight; there are .*'\*' for each"):
        shares(MixtureConfig(weights={"bridge": 1, "rt1": 1}), NAMES)
    with pytest.raises(UserError, match="nothing is left"):
        shares(MixtureConfig(weights={"bridge": 0, "*": 1}), ["bridge"])
    with pytest.raises(ValidationError, match="0 or more"):
        MixtureConfig(weights={"bridge": -1, "*": 1})


@pytest.mark.parametrize("by", ["source", "embodiment", "task"])
def test_batches_follow_the_mixture(by: str, make_clip: Callable[..., Clip], tmp_path: Path) -> None:
    """Twelve clips, of which three are of one kind and get two thirds of the samples."""
    clips = []
    for number in range(12):
        kind = "rare" if number % 4 == 0 else "common"
        clip = make_clip(number)
        clips.append(replace(clip, key=f"{kind}-{number}", meta=clip.meta.model_copy(update={by: kind})))
    write_shard(tmp_path / "a.tar", clips)
    mixture = MixtureConfig.model_validate({"by": by, "weights": {"rare": 2, "common": 1}})
    dataset = WindowDataset([tmp_path / "a.tar"], WindowConfig(points=8, image_size=32), mixture=mixture)
    for batch in islice(batches(dataset, 6, seed=0), 5):
        assert Counter(key.split("-")[0] for key in batch["key"]) == {"rare": 4, "common": 2}
    without = mixture.model_copy(update={"weights": {"rare": 0, "*": 1}})
    dataset = WindowDataset([tmp_path / "a.tar"], WindowConfig(points=8, image_size=32), mixture=without)
    assert all(key.startswith("common") for batch in islice(batches(dataset, 6, seed=0), 5) for key in batch["key"])
