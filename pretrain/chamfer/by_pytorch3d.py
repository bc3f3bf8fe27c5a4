"""Neighbours by pytorch3d, where it is installed.

Shapes: B clouds in the batch, N points in x, M points in y.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def nearest_by_pytorch3d(
    x_BN3: Tensor, y_BM3: Tensor, x_mask_BN: Tensor | None, y_mask_BM: Tensor | None, norm: int
) -> tuple[Tensor, Tensor]:
    """As `nearest_both_ways`. Raises ValueError with the command to install it when it is not there."""
    try:
        from pytorch3d.ops import knn_points  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            "chamfer: backend 'pytorch3d' is not installed; build it with "
            "pip install --no-build-isolation 'git+https://github.com/facebookresearch/pytorch3d.git@stable', "
            "or use backend 'auto'"
        ) from error
    x_packed, x_order, x_length = _packed(x_BN3, x_mask_BN)
    y_packed, y_order, y_length = _packed(y_BM3, y_mask_BM)
    there: Any = knn_points(x_packed, y_packed, lengths1=x_length, lengths2=y_length, norm=norm, K=1)
    back: Any = knn_points(y_packed, x_packed, lengths1=y_length, lengths2=x_length, norm=norm, K=1)
    return _unpacked(there.idx[..., 0], x_order, y_order), _unpacked(back.idx[..., 0], y_order, x_order)


def _packed(points_BN3: Tensor, mask_BN: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """pytorch3d takes lengths instead of masks: the points that count come first. Also their order and number."""
    if mask_BN is None:
        return points_BN3.contiguous(), None, None
    order_BN = torch.argsort((~mask_BN).to(torch.uint8), dim=1, stable=True)
    return points_BN3.gather(1, order_BN[..., None].expand(-1, -1, 3)), order_BN, mask_BN.sum(1)


def _unpacked(nearest_BN: Tensor, from_order_BN: Tensor | None, to_order_BM: Tensor | None) -> Tensor:
    if to_order_BM is not None:
        nearest_BN = to_order_BM.gather(1, nearest_BN)
    if from_order_BN is not None:
        nearest_BN = torch.empty_like(from_order_BN).scatter_(1, from_order_BN, nearest_BN)
    return nearest_BN
