"""Linear maps in closed form, which read that part of the features, and with that ridge, that serve windows best that
they were not fitted to.

Shapes: W windows, F features, V numbers to tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

RIDGES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # times the windows; motion counts in units of 0.1 m


@dataclass(frozen=True)
class Linear:
    """map_FV; reading_V, ridge_V: the chosen ones. errors_V: mean absolute error where the map was not fitted."""

    map_FV: Tensor
    reading_V: list[str]
    ridge_V: list[float]
    errors_V: Tensor


def fitted(X_WF: Tensor, Y_WV: Tensor, readings: Mapping[str, Tensor], folds: Sequence[Tensor]) -> Linear:
    """For each number the map that tells windows best which it was not fitted to. readings: bool [F] by name, parts of
    the features that may be read alone. folds: windows that are left out together, bool [W]
    each."""
    X, Y = X_WF.double(), Y_WV.double()
    parts = {name: X * reading_F for name, reading_F in readings.items()}  # what is not read has no weight
    options = list(product(readings, RIDGES))
    off_OWV = (_left_out(parts[reading], Y, folds, ridge) - Y for reading, ridge in options)
    squares, sizes = zip(*((off_WV.square().mean(0), off_WV.abs().mean(0)) for off_WV in off_OWV), strict=True)
    best_V = torch.stack(squares).argmin(0)
    chosen = [options[number] for number in best_V.tolist()]
    map_FV = torch.cat([_ridge(parts[name], Y[:, [v]], ridge) for v, (name, ridge) in enumerate(chosen)], 1)
    names, ridges = (list(each) for each in zip(*chosen, strict=True))
    return Linear(map_FV.float(), names, ridges, torch.stack(sizes).gather(0, best_V[None])[0])


def _ridge(X: Tensor, Y: Tensor, ridge: float) -> Tensor:
    """[W,F], [W,V] -> [F,V]."""
    return torch.linalg.solve(X.T @ X + ridge * len(X) * torch.eye(X.shape[1], dtype=X.dtype), X.T @ Y)


def _left_out(X: Tensor, Y: Tensor, folds: Sequence[Tensor], ridge: float) -> Tensor:
    """What windows are told by a map that was fitted to the other folds; with one fold alone, to itself."""
    answer = torch.zeros_like(Y)
    for own in folds:
        others = ~own if len(folds) > 1 else own
        answer[own] = X[own] @ _ridge(X[others], Y[others], ridge)
    return answer
