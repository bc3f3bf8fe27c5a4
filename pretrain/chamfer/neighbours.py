"""Nearest neighbours in both directions between two batches of clouds, by the backend that is fastest for them.

All backends look at true differences. Neighbours never come from a matrix product: |x|^2 + |y|^2 - 2xy picks wrong
ones for a 10 cm cloud at 0.6 m and spoils gradients by up to 18 %.

Shapes: B clouds in the batch, N points in x, M points in y.
"""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache

import torch
from torch import Tensor

from pretrain.chamfer.by_differences import nearest_by_differences
from pretrain.chamfer.by_pytorch3d import nearest_by_pytorch3d
from pretrain.chamfer.by_tree import KIND, nearest_by_tree
from pretrain.chamfer.checks import check_finite_points

BACKENDS = ("auto", "kdtree", "triton", "pytorch3d", "torch")
# Trees cost per point, differences per pair. They cost the same at this many pairs per point (of both clouds), as
# `python -m tests.benchmarks.chamfer --crossover` measures it. Both are shared out among threads, so one number does.
_PAIRS_PER_POINT = {"pykdtree": 280, "scipy": 430}


@cache
def installed(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    return importlib.util.find_spec(package) is not None


@cache
def triton_starts() -> bool:
    """Whether Triton is installed and can start kernels on the GPU here; warns where it is and cannot. What starts them
    is compiled on this machine, which takes a C compiler and Python's headers."""
    if not installed("triton"):
        return False
    try:
        from triton.runtime import driver  # pyright: ignore[reportMissingImports]

        driver.active.utils  # noqa: B018  (compiled when first asked for)
    except Exception as error:  # whatever a compiler or a driver says
        warnings.warn(
            "chamfer: Triton cannot start kernels here, so a slower backend is used. Install a C compiler and Python's "
            f"headers (apt-get install gcc python3-dev). It says: {error}",
            stacklevel=2,
        )
        return False
    return True


def chosen(backend: str, x_BN3: Tensor, y_BM3: Tensor, norm: int) -> str:
    """The backend that ``auto`` stands for, by device, what is installed and the number of points.

    Raises ValueError for an unknown backend and for a norm other than 1 and 2.
    """
    if backend not in BACKENDS:
        raise ValueError(f"chamfer: backend is {backend!r}; use one of {', '.join(BACKENDS)}")
    if norm not in (1, 2):
        raise ValueError(f"chamfer: norm is {norm!r}; use 1 or 2")
    if backend != "auto":
        return backend
    if x_BN3.device.type == "cpu":
        n, m = x_BN3.shape[1], y_BM3.shape[1]
        kind = "scipy" if norm == 1 else KIND  # pykdtree knows the Euclidean norm only
        return "kdtree" if n * m > _PAIRS_PER_POINT[kind] * (n + m) else "torch"
    if x_BN3.device.type == "cuda" and x_BN3.dtype == y_BM3.dtype == torch.float32:
        if triton_starts():
            return "triton"
        if installed("pytorch3d"):
            return "pytorch3d"
    return "torch"


@torch.no_grad()
def nearest_both_ways(
    x_BN3: Tensor,
    y_BM3: Tensor,
    x_mask_BN: Tensor | None = None,
    y_mask_BM: Tensor | None = None,
    backend: str = "auto",
    norm: int = 2,
) -> tuple[Tensor, Tensor]:
    """For each x the index of its nearest y that counts (i64 [B,N]), and the other way round (i64 [B,M]).

    Indices of points that do not count, or that have nothing to find, are valid but meaningless (0 where M or N is 0).
    Of several neighbours at the same distance ``torch`` and ``triton`` give the first. float32 or float64.
    """
    backend = chosen(backend, x_BN3, y_BM3, norm)
    x_BN3, y_BM3 = x_BN3.detach(), y_BM3.detach()
    if x_BN3.shape[1] == 0 or y_BM3.shape[1] == 0:
        return x_BN3.new_zeros(x_BN3.shape[:2], dtype=torch.int64), y_BM3.new_zeros(y_BM3.shape[:2], dtype=torch.int64)
    if backend == "kdtree":  # a tree of points that are no numbers is no tree
        check_finite_points(x_BN3, x_mask_BN, "x")
        check_finite_points(y_BM3, y_mask_BM, "y")
        return nearest_by_tree(x_BN3, y_BM3, x_mask_BN, y_mask_BM, norm)
    if backend == "triton":
        from pretrain.chamfer.by_triton import nearest_by_triton

        return nearest_by_triton(x_BN3, y_BM3, x_mask_BN, y_mask_BM, norm)
    if backend == "pytorch3d":
        return nearest_by_pytorch3d(x_BN3, y_BM3, x_mask_BN, y_mask_BM, norm)
    return nearest_by_differences(x_BN3, y_BM3, x_mask_BN, y_mask_BM, norm)
