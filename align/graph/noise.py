"""Standard normal noise as torch.randn draws it on a CPU, with numpy alone: a graph starts where its policy would."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_GROUP = 16  # numbers that torch makes at a time: 8 radii with 8 angles


def normal(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """f32, what torch.randn(shape) gives after manual_seed(seed), up to rounding. seed: 0 to 2^32 - 1.

    Both draw from a Mersenne twister and turn pairs of uniform numbers into normal ones (Box and Muller 1958).
    """
    count, draws = math.prod(shape), np.random.RandomState(seed)
    if count < _GROUP:
        return _few(draws, count).reshape(shape)
    uniform = _uniform(draws, count)
    whole = count // _GROUP * _GROUP
    made = _boxed(uniform[:whole])
    if whole < count:  # the last group is drawn anew
        made = np.concatenate([made, uniform[whole:]])
        made[-_GROUP:] = _boxed(_uniform(draws, _GROUP))
    return made.reshape(shape)


def _words(draws: np.random.RandomState, count: int) -> np.ndarray:
    return draws.randint(0, 2**32, count, dtype=np.uint32)


def _uniform(draws: np.random.RandomState, count: int) -> np.ndarray:
    return ((_words(draws, count) & (2**24 - 1)) * np.float32(2**-24)).astype(np.float32)


def _boxed(uniform: np.ndarray) -> np.ndarray:
    first, second = uniform.reshape(-1, 2, _GROUP // 2).transpose(1, 0, 2).astype(np.float64)
    radius, angle = np.sqrt(-2 * np.log(1 - first)), 2 * np.pi * second
    both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return both.reshape(-1).astype(np.float32)


def _few(draws: np.random.RandomState, count: int) -> np.ndarray:
    """Fewer than a group are drawn in pairs, from 53 bits each."""
    pairs = -(-count // 2)
    high, low = _words(draws, 4 * pairs).reshape(-1, 2).astype(np.uint64).T
    uniform = (((high << np.uint64(32)) | low) & np.uint64(2**53 - 1)) * 2.0**-53
    angle, radius = 2 * np.pi * uniform[::2], np.sqrt(-2 * np.log1p(-uniform[1::2]))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(-1)[:count].astype(np.float32)
