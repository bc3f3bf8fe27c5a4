"""Neighbours by k-d trees on the CPU: exact, and the fastest from some hundred points per cloud.

pykdtree where it is installed (it knows the Euclidean norm), scipy otherwise and for norm 1. Both let go of the
interpreter lock, so the clouds are shared out among as many threads as torch may use. pykdtree's own threads stay off:
a team of them inside each of ours would be the square of what was asked for.

Shapes: B clouds in the batch, N points in x, M points in y.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from scipy.spatial import KDTree as _ScipyTree
from torch import Tensor

from pretrain.chamfer.threads import share_out, stretches


def _fast_tree() -> Any:
    """pykdtree's class, or None. Its wheels bring an OpenMP of their own, which reads its environment when loaded."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        from pykdtree.kdtree import KDTree
    except ImportError:  # an optional accelerator; scipy gives the same neighbours
        return None
    finally:
        del os.environ["OMP_NUM_THREADS"]
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
    return KDTree


_FastTree = _fast_tree()

KIND = "scipy" if _FastTree is None else "pykdtree"


def nearest_by_tree(
    x_BN3: Tensor, y_BM3: Tensor, x_mask_BN: Tensor | None, y_mask_BM: Tensor | None, norm: int
) -> tuple[Tensor, Tensor]:
    """As `nearest_both_ways`, for finite points. From other devices the points are copied to the CPU and back."""
    device = x_BN3.device
    x, y = x_BN3.cpu().contiguous().numpy(), y_BM3.cpu().contiguous().numpy()
    x_mask, y_mask = (None if mask is None else mask.cpu().numpy() for mask in (x_mask_BN, y_mask_BM))
    in_y, in_x = np.zeros(x.shape[:2], np.int64), np.zeros(y.shape[:2], np.int64)
    query = _query_fast if norm == 2 and _FastTree is not None else _query_scipy

    def search(b: int) -> None:
        if x_mask is None and y_mask is None:
            in_y[b], in_x[b] = query(y[b], x[b], norm), query(x[b], y[b], norm)
            return
        x_of = np.arange(x.shape[1]) if x_mask is None else x_mask[b].nonzero()[0]
        y_of = np.arange(y.shape[1]) if y_mask is None else y_mask[b].nonzero()[0]
        if len(x_of) and len(y_of):
            x_seen, y_seen = x[b][x_of], y[b][y_of]
            in_y[b, x_of] = y_of[query(y_seen, x_seen, norm)]
            in_x[b, y_of] = x_of[query(x_seen, y_seen, norm)]

    parts = stretches(len(x))

    def work(part: int) -> None:
        for b in range(parts[part].start, parts[part].stop):
            search(b)

    share_out(work, len(parts))
    return torch.from_numpy(in_y).to(device), torch.from_numpy(in_x).to(device)


def _query_fast(among: np.ndarray, points: np.ndarray, norm: int) -> np.ndarray:
    assert _FastTree is not None and norm == 2
    return _FastTree(among).query(points, k=1, sqr_dists=True)[1].astype(np.int64)


def _query_scipy(among: np.ndarray, points: np.ndarray, norm: int) -> np.ndarray:
    return np.asarray(_ScipyTree(among).query(points, k=1, p=norm)[1], np.int64)
