"""Neighbours by k-d trees on the CPU: exact, and the fastest from some hundred points per cloud.

pykdtree where it is installed (it knows the Euclidean norm), scipy otherwise and for norm 1. Both let go of the
interpreter lock, so large batches are shared out among as many threads as torch may use. pykdtree's own threads stay
off: a team of them inside each of ours would be the square of what was asked for.

Shapes: B clouds in the batch, N points in x, M points in y.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from scipy.spatial import KDTree as _ScipyTree
from torch import Tensor

from pretrain.chamfer.threads import share_out


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
_THREADS_FROM = 2**15  # points of all clouds, about 9 ms: a thread costs some tenths
KIND = "scipy" if _FastTree is None else "pykdtree"


def nearest_by_tree(
    x_BN3: Tensor, y_BM3: Tensor, x_mask_BN: Tensor | None, y_mask_BM: Tensor | None, norm: int
) -> tuple[Tensor, Tensor]:
    """As `nearest_both_ways`, for finite points. From other devices the points are copied to the CPU and back."""
    device = x_BN3.device
    x, y = x_BN3.cpu().contiguous().numpy(), y_BM3.cpu().contiguous().numpy()
    x_mask, y_mask = (None if mask is None else mask.cpu().numpy() for mask in (x_mask_BN, y_mask_BM))
    query = _query_fast if norm == 2 and _FastTree is not None else _query_scipy

    def nearest(points: np.ndarray, among: np.ndarray, counts: Any, findable: Any) -> np.ndarray:
        if counts is None and findable is None:
            return query(among, points, norm)
        of = np.arange(len(points)) if counts is None else counts.nonzero()[0]
        to = np.arange(len(among)) if findable is None else findable.nonzero()[0]
        found = np.zeros(len(points), np.int64)
        if len(of) and len(to):
            found[of] = to[query(among[to], points[of], norm)]
        return found

    def search(part: int, _thread: int) -> np.ndarray:
        b, back = divmod(part, 2)
        of_x, of_y = (None if mask is None else mask[b] for mask in (x_mask, y_mask))
        return nearest(y[b], x[b], of_y, of_x) if back else nearest(x[b], y[b], of_x, of_y)

    in_threads = len(x) * (x.shape[1] + y.shape[1]) >= _THREADS_FROM
    found = share_out(search, 2 * len(x), torch.get_num_threads() if in_threads else 1)
    return torch.from_numpy(np.stack(found[::2])).to(device), torch.from_numpy(np.stack(found[1::2])).to(device)


def _query_fast(among: np.ndarray, points: np.ndarray, norm: int) -> np.ndarray:
    assert _FastTree is not None and norm == 2
    return _FastTree(among).query(points, k=1, sqr_dists=True)[1].astype(np.int64)


def _query_scipy(among: np.ndarray, points: np.ndarray, norm: int) -> np.ndarray:
    return np.asarray(_ScipyTree(among).query(points, k=1, p=norm)[1], np.int64)
