"""The Chamfer distance of batches of point clouds: the one function that others call.

Neighbours are found outside the autograd graph; the distance comes from the gathered pairs, and so does its gradient,
in closed form (`pairs.py`; on a GPU one kernel each way, `by_triton.py`).

Shapes: B clouds in the batch, N points in x, M points in y.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pretrain.chamfer.checks import check_clouds, check_finite_points, check_weights
from pretrain.chamfer.neighbours import chosen
from pretrain.chamfer.pairs import PairedChamfer


def chamfer(
    x_BN3: Tensor,
    y_BM3: Tensor,
    *,
    x_mask_BN: Tensor | None = None,
    y_mask_BM: Tensor | None = None,
    x_weight_BN: Tensor | None = None,
    y_weight_BM: Tensor | None = None,
    norm: int = 2,
    squared: bool = True,
    reduction: str = "mean",
    backend: str = "auto",
    check_finite: bool = True,
) -> Tensor:
    """Mean distance from x to its neighbours in y plus mean distance from y to its neighbours in x.

    x_BN3, y_BM3: floating point, any length unit; 16 bit types are computed in float32. Differentiable once.
    x_mask_BN, y_mask_BM: bool, the points that count (default: all); what stands at others is ignored, NaN included.
    x_weight_BN, y_weight_BM: weights of the points in the two means (default: 1), not negative, no gradient. A point of
    weight 0 is still there to be found as a neighbour; a masked one is not.
    norm: 2 Euclidean, 1 sum of absolute differences. squared: the square of that distance (unit^2; with norm 2 as in
    Fan et al. 2017 and pytorch3d) or the distance itself (unit; with norm 1 as in pytorch3d). Where two points coincide
    the gradient of their distance is 0, which is one of its subgradients.
    reduction: ``none`` gives [B], ``mean`` a scalar. A pair of clouds of which one has no point that counts (or no
    weight) has no distance: it is 0 in [B], carries no gradient and is left out of the mean.
    backend: ``auto``, ``kdtree`` (CPU), ``triton`` (CUDA), ``pytorch3d`` (when installed) or ``torch`` (any device, the
    oracle). All are exact. On the CPU and with triton, results do not depend on the order in which threads run; with
    torch and pytorch3d on a GPU the gradient does in the last bits, unless torch.use_deterministic_algorithms is on.
    check_finite: look at the result and raise for points that are not finite; on a GPU this waits for it. Without, the
    distance of such a cloud is not finite; except that ``kdtree`` raises always.

    Raises ValueError for shapes that do not fit, an unknown backend, norm or reduction, and (check_finite) points that
    count but are not finite and weights that are negative or not finite.
    """
    check_clouds(x_BN3, y_BM3, {"mask": (x_mask_BN, y_mask_BM), "weight": (x_weight_BN, y_weight_BM)})
    if reduction not in ("mean", "none"):
        raise ValueError(f"chamfer: reduction is {reduction!r}; use 'mean' or 'none'")
    if check_finite:
        check_weights(x_weight_BN, x_mask_BN, "x")
        check_weights(y_weight_BM, y_mask_BM, "y")
    dtype = torch.promote_types(torch.promote_types(x_BN3.dtype, y_BM3.dtype), torch.float32)
    x_BN3, y_BM3 = x_BN3.to(dtype), y_BM3.to(dtype)
    backend = chosen(backend, x_BN3, y_BM3, norm)
    if 0 in (x_BN3.shape[0], x_BN3.shape[1], y_BM3.shape[1]):
        distance_B = x_BN3[:, :0].sum((1, 2)) + y_BM3[:, :0].sum((1, 2))  # 0, and in the graph
        return distance_B if reduction == "none" else distance_B.sum()
    of_points = (x_mask_BN, y_mask_BM, x_weight_BN, y_weight_BM)
    if backend == "triton":
        from pretrain.chamfer.by_triton import FusedChamfer

        distance_B, defined_B = FusedChamfer.apply(x_BN3, y_BM3, *of_points, norm, squared)
    else:
        distance_B, defined_B = PairedChamfer.apply(x_BN3, y_BM3, *of_points, norm, squared, backend)
    if check_finite and not math.isfinite(float(distance_B.detach().sum())):
        check_finite_points(x_BN3, x_mask_BN, "x")
        check_finite_points(y_BM3, y_mask_BM, "y")
    if reduction == "none":
        return distance_B
    return distance_B.mean() if defined_B is None else distance_B.sum() / defined_B.sum().clamp(min=1)
