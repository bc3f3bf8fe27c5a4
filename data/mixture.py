"""Which window stands at which place of the endless training sequence, alike or by the weights of a mixture.

The sequence is cut into blocks. Each block holds an exact number of samples of each group, in an order of its own, and
each group walks through its windows in a fresh permutation per epoch of the group. So the sample at a position is a
function of (seed, position); nothing is drawn with replacement, and no state is kept between positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import gcd, lcm

import numpy as np

from data.config import MixtureConfig
from pipeline.errors import UserError

LARGEST_BLOCK = 4096
OTHERS = "*"


class Order:
    """The endless sequence. Shapes: G groups, L positions per block.

    groups: for each group the numbers of its windows, none empty. quotas: samples of each group per block; with a
    single group blocks play no part.
    """

    def __init__(self, groups: Sequence[np.ndarray | range], quotas: Sequence[int], seed: int):
        self._groups, self._quotas, self.seed = groups, np.asarray(quotas), seed
        self.block = int(self._quotas.sum())
        self._permutation = lru_cache(2 * len(groups))(self._permuted)  # two epochs meet in a block
        self._plan = lru_cache(4)(self._planned)

    def at(self, position: int) -> tuple[int, int]:
        """(window number, seed of the sample) at a position."""
        group, place = 0, position
        if len(self._groups) > 1:
            number, offset = divmod(position, self.block)
            groups_L, earlier_L = self._plan(number)
            group = int(groups_L[offset])
            place = number * int(self._quotas[group]) + int(earlier_L[offset])
        windows = self._groups[group]
        epoch, place = divmod(place, len(windows))
        sample_seed = np.random.SeedSequence([self.seed, position]).generate_state(1, np.uint64)[0] >> 1  # fits an i64
        return int(windows[self._permutation(group, epoch)[place]]), int(sample_seed)

    def _permuted(self, group: int, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch, group]).permutation(len(self._groups[group]))

    def _planned(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """For each position of a block its group, and how many positions before it in the block are of that group."""
        groups_L = np.repeat(np.arange(len(self._quotas)), self._quotas)
        groups_L = np.random.default_rng([self.seed, number, len(self._groups), 1]).permutation(groups_L)
        by_group = np.argsort(groups_L, kind="stable")
        earlier_L = np.empty_like(groups_L)
        earlier_L[by_group] = np.arange(self.block) - np.repeat(np.cumsum(self._quotas) - self._quotas, self._quotas)
        return groups_L, earlier_L


def shares(mixture: MixtureConfig, names: Sequence[str]) -> dict[str, int]:
    """Samples per block for each of ``names`` that has a weight: in lowest terms, or rounded to a block of 4096.

    Raises UserError when a weight names what is not there, or when one of ``names`` is left without a weight.
    """
    absent = sorted(set(mixture.weights) - set(names) - {OTHERS})
    unnamed = sorted(set(names) - set(mixture.weights))
    present = ", ".join(f"'{name}'" for name in sorted(set(names)))
    if absent:
        raise UserError(f"mixture.weights: no training clip has the {mixture.by} '{absent[0]}'; there are {present}.")
    if unnamed and OTHERS not in mixture.weights:
        raise UserError(
            f"mixture.weights: the {mixture.by} '{unnamed[0]}' has no weight; there are {present}. Give each a weight, "
            f"0 to leave it out, or '{OTHERS}' for each that is not named."
        )
    # as decimal numbers, the way they were written: 0.1 is a tenth
    weights = {name: Fraction(str(mixture.weights.get(name, mixture.weights.get(OTHERS, 0)))) for name in names}
    weights = {name: weight for name, weight in sorted(weights.items()) if weight > 0}
    if not weights:
        raise UserError(f"mixture.weights: nothing is left to train on; there are {present}.")
    common = lcm(*(weight.denominator for weight in weights.values()))
    whole = {name: int(weight * common) for name, weight in weights.items()}
    divisor = gcd(*whole.values())
    if sum(whole.values()) // divisor <= LARGEST_BLOCK:
        return {name: value // divisor for name, value in whole.items()}
    return _rounded(weights)


def _rounded(weights: dict[str, Fraction]) -> dict[str, int]:
    """Largest remainders; at least one sample each."""
    total = sum(weights.values())
    exact = {name: weight / total * LARGEST_BLOCK for name, weight in weights.items()}
    quotas = {name: max(1, int(value)) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (quotas[name] - exact[name], name))
    for name in by_remainder[: max(0, LARGEST_BLOCK - sum(quotas.values()))]:
        quotas[name] += 1
    return quotas
