"""Random numbers of a training step, drawn window by window.

Each window of a batch brings its own seed, so what happens to it depends neither on the batch it came in, nor on the
number of ranks, nor on how often gradients are accumulated.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


class WindowRandom:
    """A stream of random numbers for each of B windows.

    seed_B: integers [B], such as ``window["seed"]``. purpose: whoever makes a second stream from the same seeds gives
    it a name of its own, else both draw the same numbers. The draws of a window are a function of its seed, the purpose
    and the order of draws. All results are CPU tensors.
    """

    def __init__(self, seed_B: Tensor, purpose: str = "training step"):
        word = zlib.crc32(purpose.encode())
        self._generators = [np.random.default_rng([seed, word]) for seed in seed_B.tolist()]

    def __len__(self) -> int:
        return len(self._generators)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """f32 [B,*shape], each value in low..high."""
        return self._draw(lambda generator: generator.random(shape, np.float32)).mul_(high - low).add_(low)

    def normal(self, *shape: int) -> Tensor:
        """f32 [B,*shape] with mean 0 and standard deviation 1."""
        return self._draw(lambda generator: generator.standard_normal(shape, np.float32))

    def beta(self, a: float, b: float) -> Tensor:
        """f32 [B], Beta(a, b)."""
        return self._draw(lambda generator: generator.beta(a, b))

    def _draw(self, one: Callable[[np.random.Generator], np.ndarray | float]) -> Tensor:
        return torch.from_numpy(np.array([one(generator) for generator in self._generators], np.float32))
