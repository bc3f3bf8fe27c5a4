"""How a model is spread over the ranks of a run: whole on each rank, or in shards.

Whole: DistributedDataParallel. Shards: FSDP2 (``torch.distributed.fsdp.fully_shard``, Zhao et al. 2023), one unit per
transformer block and one for the rest. It is called directly because accelerate's own way to it exists for GPUs only,
while this one is the same on CPUs, where it is tested. Weights stay 32-bit in both; bf16 comes from autocast.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel


def spread(model: nn.Module, device: torch.device, world: int, shards: bool, some_rest: bool) -> nn.Module:
    """The model to call in training, on ``device``; sharding happens in place and replaces the parameters.

    shards: split weights over the ranks. some_rest: some parameters get no gradient from the loss.
    """
    if shards and world > 1:
        mesh = init_device_mesh(device.type, (world,))
        for block in reversed(blocks_of(model)):  # inner ones first
            fully_shard(block, mesh=mesh)
        # the root is given back after every use, too: averaged weights may be put in its place in between
        fully_shard(model, mesh=mesh, reshard_after_forward=True)
        return model
    model.to(device)
    if world == 1:
        return model
    return DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        find_unused_parameters=some_rest,
        forward_sync_buffers=False,  # they are constants, alike on all ranks
        gradient_as_bucket_view=True,
    )


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The big repeated parts, by the class names in ``_no_split_modules`` of the model and of the models inside it."""
    names = {name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    return [module for module in model.modules() if type(module).__name__ in names]


@contextlib.contextmanager
def without_sync(model: nn.Module) -> Any:
    """Gradients of backward passes inside stay on their rank and add up."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            model.set_requires_gradient_sync(True)
    elif isinstance(model, DistributedDataParallel):
        with model.no_sync():
            yield
    else:
        yield


def clip_gradients(parameters: Iterable[nn.Parameter], largest_norm: float) -> Tensor:
    """Scales all gradients together so that their norm is at most ``largest_norm``; returns the norm before, a scalar
    on the device. A norm that is not finite leaves useless gradients: the caller reads it and stops."""
    changed = [p for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in changed if p.grad is not None])
    torch.nn.utils.clip_grads_with_norm_(changed, largest_norm, norm)
    return whole(norm)


def whole(value: Tensor) -> Tensor:
    """The full tensor of a shard; all ranks must call it together. Other tensors are returned as they are."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def own_part(value: Tensor) -> Tensor:
    """The storage that this rank holds of a tensor."""
    return value.to_local() if isinstance(value, DTensor) else value


def split_like(value: Tensor, reference: Tensor) -> Tensor:
    """A copy of a full tensor on the device of ``reference``, split over the ranks as that is. No communication."""
    if isinstance(reference, DTensor):
        on_device = value.to(reference.device_mesh.device_type)
        return distribute_tensor(on_device, reference.device_mesh, reference.placements, src_data_rank=None)
    # cloned: tensors of a mapped file are not aligned like fresh ones, which could change rounding
    return value.clone().to(reference.device)
