"""The running average of a model's weights, which is what gets validated and published when it is on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pretrain.ranks import own_part


def distinct_state(model: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers by name, on their rank, tied weights under their first name only."""
    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            state[name] = value.detach()
    return state


class Average:
    """Exponential moving average of the weights, kept where they are: of sharded weights, a sharded average.

    values: by name, the same tensors all the time; they may be set from outside.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.values = {name: value.clone() for name, value in distinct_state(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """step: 1-based."""
        decay = min(self.decay, (1 + step) / (10 + step))  # a short memory at first, so that the start is forgotten
        kept, new = self._pairs(model)
        floating = [place for place, value in enumerate(kept) if value.is_floating_point()]
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]  (one kernel for all)
            [kept[p] for p in floating], [new[p] for p in floating], 1 - decay
        )
        for place in set(range(len(kept))) - set(floating):
            kept[place].copy_(new[place])

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
        state = distinct_state(model)
        return [own_part(value) for value in self.values.values()], [own_part(state[name]) for name in self.values]
