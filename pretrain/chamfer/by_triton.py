"""The Chamfer distance by the Triton kernels: two launches forward, one backward, no [N,M] matrix, no atomics.

Imported only when asked for, because torch for the CPU comes without triton. With TRITON_INTERPRET=1 in the environment
(before triton is first imported) the kernels run on CPU tensors, which is how their arithmetic is tested without a GPU.

Shapes: B pairs of clouds, N points in x, M points in y.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

try:
    from pretrain.chamfer import triton_kernels
except ImportError as error:
    raise ValueError(
        "chamfer: backend 'triton' is not installed; it comes with torch for CUDA (pip install triton), "
        "or use backend 'auto'"
    ) from error

kernels: Any = triton_kernels  # what a kernel is called with (grid, constants) is beyond type checkers
# Points per program and points of the other cloud looked at together. Compiled for sm_90, 64 x 32 takes 119 registers
# for the search and 95 for the gradient, so four blocks share a processor; 64 x 64 takes 221, 128 x 64 spills.
ACROSS = 32
REDUCE = 256
_ENOUGH_PROGRAMS = 512  # fewer leave processors of a large card idle: smaller blocks make more programs


class _Cloud(NamedTuple):
    points: Tensor
    mask: Tensor
    weight: Tensor
    nearest: Tensor
    length: Tensor
    pull: Tensor


def block_of(clouds: int, points: int) -> int:
    """Points that one program answers for, given the number of points of x and y together."""
    return 64 if clouds * points >= 64 * _ENOUGH_PROGRAMS else 16


class FusedChamfer(torch.autograd.Function):
    """x, y, their masks, their weights, norm, squared -> distance [B]; and bool [B], where it is defined, or None."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BN3: Tensor,
        y_BM3: Tensor,
        x_mask_BN: Tensor | None,
        y_mask_BM: Tensor | None,
        x_weight_BN: Tensor | None,
        y_weight_BM: Tensor | None,
        norm: int,
        squared: bool,
    ) -> tuple[Tensor, Tensor | None]:
        masked, weighted = _any(x_mask_BN, y_mask_BM), _any(x_weight_BN, y_weight_BM)
        x = _cloud(x_BN3, x_mask_BN, x_weight_BN, masked, weighted)
        y = _cloud(y_BM3, y_mask_BM, y_weight_BM, masked, weighted)
        _search(x, y, masked, norm, squared)
        distance_B, part_B2 = x.length.new_empty(len(x.points)), x.length.new_empty(len(x.points), 2)
        with _device_of(x_BN3):
            kernels.means[(len(x.points),)](
                x.length, y.length, x.mask, y.mask, x.weight, y.weight, distance_B, part_B2,
                x_BN3.shape[1], y_BM3.shape[1], MASKED=masked, WEIGHTED=weighted, REDUCE=REDUCE,
            )  # fmt: skip
        ctx.masked, ctx.weighted = masked, weighted
        ctx.save_for_backward(x.pull, y.pull, x.mask, y.mask, x.weight, y.weight, x.nearest, y.nearest, part_B2)
        defined_B = None
        if masked or weighted:
            defined_B = part_B2[:, 0] > 0
            ctx.mark_non_differentiable(defined_B)
        return distance_B, defined_B

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_pull, y_pull, *of_points, part_B2 = ctx.saved_tensors
        (B, N, _), M = x_pull.shape, y_pull.shape[1]
        needs_x, needs_y = ctx.needs_input_grad[:2]
        x_gradient = torch.empty_like(x_pull) if needs_x else None
        y_gradient = torch.empty_like(y_pull) if needs_y else None
        block = block_of(B, N + M)
        x_blocks, y_blocks = -(-N // block), -(-M // block)
        first = 0 if needs_x else x_blocks
        grid = (B, (x_blocks if needs_x else 0) + (y_blocks if needs_y else 0))
        with _device_of(x_pull):
            kernels.gradient[grid](
                x_pull, y_pull, *of_points, x_pull if x_gradient is None else x_gradient,
                y_pull if y_gradient is None else y_gradient, part_B2, gradients[0].contiguous(), first, N, M,
                MASKED=ctx.masked, WEIGHTED=ctx.weighted, BLOCK=block, ACROSS=ACROSS,
            )  # fmt: skip
        return x_gradient, y_gradient, *(None,) * 6


def nearest_by_triton(
    x_BN3: Tensor, y_BM3: Tensor, x_mask_BN: Tensor | None, y_mask_BM: Tensor | None, norm: int
) -> tuple[Tensor, Tensor]:
    """As `nearest_both_ways`."""
    masked = _any(x_mask_BN, y_mask_BM)
    x, y = _cloud(x_BN3, x_mask_BN, None, masked, False), _cloud(y_BM3, y_mask_BM, None, masked, False)
    _search(x, y, masked, norm, True)
    return x.nearest.long(), y.nearest.long()


def _any(x: Tensor | None, y: Tensor | None) -> bool:
    return x is not None or y is not None


def _cloud(
    points_BN3: Tensor, mask_BN: Tensor | None, weight_BN: Tensor | None, masked: bool, weighted: bool
) -> _Cloud:
    """What the kernels read and write of one side; a mask or weight that is not used stands in as any tensor."""
    points_BN3 = points_BN3.detach().contiguous()
    if points_BN3.dtype != torch.float32:
        raise ValueError(f"chamfer: backend 'triton' computes in float32, not {points_BN3.dtype}; use backend 'torch'")
    if points_BN3.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(f"chamfer: backend 'triton' needs CUDA tensors, not {points_BN3.device}; use backend 'auto'")
    shape = points_BN3.shape[:2]
    if masked:
        mask_BN = (
            points_BN3.new_ones(shape, dtype=torch.uint8) if mask_BN is None else mask_BN.contiguous().view(torch.uint8)
        )
    if weighted:
        weight_BN = points_BN3.new_ones(shape) if weight_BN is None else weight_BN.detach().float().contiguous()
    return _Cloud(
        points_BN3,
        points_BN3 if mask_BN is None else mask_BN,
        points_BN3 if weight_BN is None else weight_BN,
        points_BN3.new_empty(shape, dtype=torch.int32),
        points_BN3.new_empty(shape),
        torch.empty_like(points_BN3),
    )


def _search(x: _Cloud, y: _Cloud, masked: bool, norm: int, squared: bool) -> None:
    (B, N, _), M = x.points.shape, y.points.shape[1]
    block = block_of(B, N + M)
    with _device_of(x.points):
        kernels.search[(B, -(-N // block) - (-M // block))](
            x.points, y.points, x.mask, y.mask, x.nearest, y.nearest, x.length, y.length, x.pull, y.pull, N, M,
            MASKED=masked, NORM=norm, SQUARED=squared, BLOCK=block, ACROSS=ACROSS,
        )  # fmt: skip


def _device_of(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else contextlib.nullcontext()
