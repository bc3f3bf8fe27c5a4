"""The running average of a model's weights, which is what gets validated and published when it is on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pretrain.ranks import own_part


class Average:
    """Exponential moving average of the weights that learn, kept where they are: of sharded weights, a sharded average.

    values: by name; they may be replaced from outside.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """step: 1-based."""
        decay = min(self.decay, (1 + step) / (10 + step))  # a short memory at first, so that the start is forgotten
        kept, new = self._pairs(model)
        torch._foreach_lerp_(kept, new, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]  (one kernel for all)

    @contextlib.contextmanager
    def in_place_of(self, model: nn.Module) -> Iterator[None]:
        """The model has the averaged weights inside, its own again afterwards; no third copy is made."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        for kept, value in zip(*self._pairs(model), strict=True):
            once = kept.clone()
            kept.copy_(value)
            value.copy_(once)

    def _pairs(self, model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        weights = dict(model.named_parameters())
        new = [own_part(weights[name].detach()) for name in self.values]
        return [own_part(value) for value in self.values.values()], new
