"""The Chamfer distance from found pairs of neighbours, and its gradient in closed form: one graph node.

With share s_i = weight_i / sum of weights, n(i) the neighbour of point i and d the distance,
    D = sum_i s_i d(x_i - y_n(i)) + sum_j s_j d(y_j - x_n(j)),
    dD/dx_i = s_i d'(x_i - y_n(i)) - sum over the j with n(j) = i of s_j d'(y_j - x_i), and the same for y.
The neighbours are piecewise constant in the points, so they have no gradient of their own. Small clouds are a matter of
the number of operations: the points of x and y stand in one tensor, so that each operation serves both directions.

Shapes: B pairs of clouds, N points in x, M points in y, K = N + M points of both, x first.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pretrain.chamfer.neighbours import nearest_both_ways
from pretrain.chamfer.threads import alone


class PairedChamfer(torch.autograd.Function):
    """x, y, their masks, their weights, norm, squared, backend -> distance [B]; and bool [B], where it is defined.

    The second is None where there are no masks and no weights. Clouds must not be empty tensors. Backends: all that
    `nearest_both_ways` knows.
    """

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
        backend: str,
    ) -> tuple[Tensor, Tensor | None]:
        if x_mask_BN is not None:  # 0 instead of what may be no number: share 0 alone does not silence NaN
            x_BN3 = x_BN3.masked_fill(~x_mask_BN[..., None], 0)
        if y_mask_BM is not None:
            y_BM3 = y_BM3.masked_fill(~y_mask_BM[..., None], 0)
        in_y_BN, in_x_BM = nearest_both_ways(x_BN3, y_BM3, x_mask_BN, y_mask_BM, backend, norm)
        with alone() if x_BN3.device.type == "cpu" else contextlib.nullcontext():
            points_BK3 = torch.cat((x_BN3, y_BM3), 1)
            nearest_BK = torch.cat((in_y_BN + x_BN3.shape[1], in_x_BM), 1)
            (B, K), points = nearest_BK.shape, points_BK3.view(-1, 3)
            nearest = nearest_BK.add_(torch.arange(0, B * K, K, device=points.device)[:, None]).view(-1)
            apart_BK3 = points.index_select(0, nearest).sub_(points).neg_().view(B, K, 3)
            length_BK = _length(apart_BK3, norm, squared)
            share_BK, defined_B = _shares(x_BN3, y_BM3, x_mask_BN, y_mask_BM, x_weight_BN, y_weight_BM)
            if defined_B is not None:
                ctx.mark_non_differentiable(defined_B)
            ctx.points_of_x, ctx.norm, ctx.squared = x_BN3.shape[1], norm, squared
            ctx.save_for_backward(apart_BK3, length_BK, nearest, share_BK)
            return (length_BK * share_BK).sum(1), defined_B

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        apart_BK3, length_BK, nearest, share_BK = ctx.saved_tensors
        with alone() if apart_BK3.device.type == "cpu" else contextlib.nullcontext():
            push_BK3 = _push(apart_BK3, length_BK, share_BK * -gradients[0][:, None], ctx.norm, ctx.squared)
            gradient_BK3 = push_BK3.neg()
            gradient_BK3.view(-1, 3).index_add_(0, nearest, push_BK3.view(-1, 3))
        x_gradient_BN3, y_gradient_BM3 = gradient_BK3[:, : ctx.points_of_x], gradient_BK3[:, ctx.points_of_x :]
        needs_x, needs_y = ctx.needs_input_grad[:2]
        return x_gradient_BN3 if needs_x else None, y_gradient_BM3 if needs_y else None, *(None,) * 7


def _length(apart_BK3: Tensor, norm: int, squared: bool) -> Tensor:
    x, y, z = apart_BK3.unbind(-1)
    if norm == 1:
        length_BK = x.abs() + y.abs() + z.abs()
        return length_BK.square_() if squared else length_BK
    square_BK = (x * x).addcmul_(y, y).addcmul_(z, z)
    return square_BK if squared else square_BK.sqrt_()


def _push(apart_BK3: Tensor, length_BK: Tensor, scale_BK: Tensor, norm: int, squared: bool) -> Tensor:
    """scale times the gradient of the length with respect to the vector; 0 where a pair coincides."""
    if norm == 1:
        slope_BK = 2 * scale_BK * length_BK.sqrt() if squared else scale_BK
        return apart_BK3.sign() * slope_BK[..., None]
    slope_BK = 2 * scale_BK if squared else scale_BK / length_BK.clamp(min=torch.finfo(length_BK.dtype).tiny)
    return apart_BK3 * slope_BK[..., None]


def _shares(
    x_BN3: Tensor,
    y_BM3: Tensor,
    x_mask_BN: Tensor | None,
    y_mask_BM: Tensor | None,
    x_weight_BN: Tensor | None,
    y_weight_BM: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Of every point its part in the mean of its cloud, 0 all over where a pair has no distance; and where it has one.

    Without masks and weights: one row for all pairs, and None.
    """
    N, M = x_BN3.shape[1], y_BM3.shape[1]
    if x_mask_BN is None and y_mask_BM is None and x_weight_BN is None and y_weight_BM is None:
        share_1K = x_BN3.new_full((1, N + M), 1 / N)
        if N != M:
            share_1K[:, N:] = 1 / M
        return share_1K, None
    x_weight_BN, y_weight_BM = _weight(x_BN3, x_mask_BN, x_weight_BN), _weight(y_BM3, y_mask_BM, y_weight_BM)
    x_total_B1, y_total_B1 = x_weight_BN.sum(1, keepdim=True), y_weight_BM.sum(1, keepdim=True)
    defined_B1 = (x_total_B1 > 0) & (y_total_B1 > 0)
    x_part_B1, y_part_B1 = (torch.where(defined_B1, total.reciprocal(), 0.0) for total in (x_total_B1, y_total_B1))
    return torch.cat((x_weight_BN * x_part_B1, y_weight_BM * y_part_B1), 1), defined_B1[:, 0]


def _weight(points_BN3: Tensor, mask_BN: Tensor | None, weight_BN: Tensor | None) -> Tensor:
    if weight_BN is None:
        return points_BN3.new_ones(points_BN3.shape[:2]) if mask_BN is None else mask_BN.to(points_BN3.dtype)
    weight_BN = weight_BN.detach().to(points_BN3.dtype)
    return weight_BN if mask_BN is None else weight_BN.masked_fill(~mask_BN, 0)
