"""What a Chamfer distance accepts: shapes, types and points that are numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def check_clouds(
    x_BN3: Tensor,
    y_BM3: Tensor,
    per_point: dict[str, tuple[Tensor | None, Tensor | None]],
) -> None:
    """Raises ValueError unless x and y are batches of clouds in pairs and what comes per point has their shapes.

    per_point: by name, one tensor for x and one for y; ``mask`` must be bool, all others floating point.
    """
    for name, points in (("x", x_BN3), ("y", y_BM3)):
        if points.ndim != 3 or points.shape[-1] != 3:
            raise ValueError(f"chamfer: {name} has shape {tuple(points.shape)}; expected [clouds, points, 3]")
        if not points.is_floating_point():
            raise ValueError(f"chamfer: {name} is {points.dtype}; expected floating point coordinates")
    if x_BN3.shape[0] != y_BM3.shape[0]:
        raise ValueError(f"chamfer: x has {x_BN3.shape[0]} clouds, y has {y_BM3.shape[0]}; they are compared in pairs")
    if x_BN3.device != y_BM3.device:
        raise ValueError(f"chamfer: x is on {x_BN3.device}, y on {y_BM3.device}; move one of them")
    for kind, of_both in per_point.items():
        for name, points, value in zip("xy", (x_BN3, y_BM3), of_both, strict=True):
            if value is None:
                continue
            fits = value.dtype == torch.bool if kind == "mask" else value.is_floating_point()
            if value.shape != points.shape[:2] or not fits:
                wanted = "bool" if kind == "mask" else "floating point"
                raise ValueError(
                    f"chamfer: the {kind} of {name} is {value.dtype} {tuple(value.shape)}; "
                    f"expected {wanted} {tuple(points.shape[:2])}"
                )


def check_finite_points(points_BN3: Tensor, mask_BN: Tensor | None, name: str) -> None:
    """Raises ValueError naming the first cloud in which a point that counts has a coordinate that is no number."""
    bad_BN = ~torch.isfinite(points_BN3).all(-1)
    if mask_BN is not None:
        bad_BN = bad_BN & mask_BN
    bad_B = bad_BN.any(1)
    if bad_B.any():
        cloud = int(bad_B.nonzero()[0])
        raise ValueError(
            f"chamfer: {int(bad_BN[cloud].sum())} points of cloud {cloud} in {name} are not finite; mask them out"
        )


def check_weights(weight_BN: Tensor | None, mask_BN: Tensor | None, name: str) -> None:
    """Raises ValueError unless the weights that count are finite and not negative."""
    if weight_BN is None:
        return
    bad_BN = ~((weight_BN >= 0) & torch.isfinite(weight_BN))
    if mask_BN is not None:
        bad_BN = bad_BN & mask_BN
    if bad_BN.any():
        cloud, point = (int(i) for i in bad_BN.nonzero()[0])
        raise ValueError(
            f"chamfer: the weight of point {point} of cloud {cloud} in {name} is {float(weight_BN[cloud, point])}; "
            "weights are finite and not negative"
        )
