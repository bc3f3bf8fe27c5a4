"""What ONNX has no operator for, in operators that it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def solved(matrix_B33: Tensor, right_B3K: Tensor) -> Tensor:
    """torch.linalg.solve of symmetric positive definite 3 x 3 matrices, as inertia is: by L D L^T, which needs no
    pivoting (Golub and Van Loan, "Matrix Computations", 4.1). In 64 bits: without pivoting, 32 are too few."""
    dtype, matrix_B33, right_B3K = right_B3K.dtype, matrix_B33.double(), right_B3K.double()
    if matrix_B33.shape[-2:] != (3, 3):
        raise NotImplementedError(f"torch.linalg.solve of {list(matrix_B33.shape)}; only 3 x 3 is written out")
    a, b, c = matrix_B33[..., 0, 0, None], matrix_B33[..., 1, 0, None], matrix_B33[..., 2, 0, None]
    d, e, f = matrix_B33[..., 1, 1, None], matrix_B33[..., 2, 1, None], matrix_B33[..., 2, 2, None]
    below_10, below_20 = b / a, c / a
    pivot_1 = d - below_10 * b
    rest_21 = e - below_20 * b
    below_21 = rest_21 / pivot_1
    pivot_2 = f - below_20 * c - below_21 * rest_21
    x, y, z = right_B3K.unbind(-2)
    y = y - below_10 * x
    z = (z - below_20 * x - below_21 * y) / pivot_2
    y = y / pivot_1 - below_21 * z
    x = x / a - below_10 * y - below_20 * z
    return torch.stack([x, y, z], -2).to(dtype)


TABLE: dict[Any, Callable[..., Any]] = {torch.ops.aten.linalg_solve.default: solved}
