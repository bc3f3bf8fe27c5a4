"""Neighbours by all differences, a block that stays in the cache at a time: exact, any device, fast for small clouds.

argmin is a slow reduction (0.9 ns per pair against 0.07 for amin, one thread), so the index comes from two fast ones:
the least distance, then the first position at which it stands, as amax over (distance == least) * rank with the ranks
descending. Comparisons go to a float buffer: writing bool is as slow as argmin.

Shapes: B clouds in the batch, b clouds in a block, N points in x, n in a block, M points in y.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.chamfer.threads import share_out, stretches

# Pairs per block. CPU: two float32 buffers of 2 MB. GPU: few launches, 256 MB a buffer.
_BLOCK = {"cpu": 2**19, "cuda": 2**26}
_STRETCH = 2**20  # fewer pairs, about 1 ms, are not worth a thread
_POINTS = 2**24  # ranks are float32, exact up to here


def nearest_by_differences(
    x_BN3: Tensor, y_BM3: Tensor, x_mask_BN: Tensor | None, y_mask_BM: Tensor | None, norm: int
) -> tuple[Tensor, Tensor]:
    """As `nearest_both_ways`. Raises ValueError for clouds of more than 2^24 points."""
    (B, N), M = x_BN3.shape[:2], y_BM3.shape[1]
    if max(N, M) > _POINTS:
        raise ValueError(
            f"chamfer: clouds of {N} and {M} points; backend 'torch' takes {_POINTS} at most, use 'kdtree'"
        )
    x_planes, y_planes = _planes(x_BN3, x_mask_BN), _planes(y_BM3, y_mask_BM)
    in_y_BN, in_x_BM = x_planes[0].new_empty(B, N), x_planes[0].new_empty(B, M)
    on_cpu = x_BN3.device.type == "cpu"
    parts = stretches(B, least=_STRETCH // (N * M)) if on_cpu else [slice(0, B)]
    room = min(_BLOCK["cpu" if on_cpu else "cuda"], -(-B // len(parts)) * N * M)
    spare = in_y_BN.new_empty(len(parts), 2, max(room, M))  # by this thread: others give memory back every time

    def search(part: int) -> None:
        of = parts[part]
        planes = [p[of] for p in x_planes], [p[of] for p in y_planes]
        _ranks(*planes, norm, spare[part], in_y_BN[of], in_x_BM[of])

    if on_cpu:
        share_out(search, len(parts))
    else:
        search(0)
    return _index(in_y_BN, M), _index(in_x_BM, N)


def _ranks(
    x_planes: list[Tensor], y_planes: list[Tensor], norm: int, spare_2S: Tensor, in_y_BN: Tensor, in_x_BM: Tensor
) -> None:
    """Into the last two: N or M less the index of the nearest point, 0 if there is none. S: room for a block."""
    (B, N), M, room = in_y_BN.shape, in_x_BM.shape[1], spare_2S.shape[1]
    n, b = min(N, room // M), max(1, room // (N * M))
    square, spare = spare_2S
    rank_N1, rank_M = (torch.arange(k, 0, -1, dtype=square.dtype, device=square.device) for k in (N, M))
    rank_N1 = rank_N1[:, None]
    for first in range(0, B, b):
        of = slice(first, min(first + b, B))
        best_BM = None
        for row in range(0, N, n):
            rows = slice(row, min(row + n, N))
            shape = (of.stop - first, rows.stop - row, M)
            size = shape[0] * shape[1] * M
            distance, work = square[:size].view(shape), spare[:size].view(shape)
            _distances([p[of, rows, None] for p in x_planes], [p[of, None] for p in y_planes], norm, distance, work)
            torch.eq(distance, distance.amin(2, keepdim=True), out=work)
            torch.amax(work.mul_(rank_M), 2, out=in_y_BN[of, rows])
            least = distance.amin(1, keepdim=True)
            torch.eq(distance, least, out=work)
            found = work.mul_(rank_N1[rows]).amax(1)
            if best_BM is not None:  # rows of one cloud in several blocks: an earlier row wins a tie
                found = torch.where(least[:, 0] < best_BM[:, 0], found, in_x_BM[of])
                least = torch.minimum(best_BM, least)
            best_BM, in_x_BM[of] = least, found


def _planes(points_BN3: Tensor, mask_BN: Tensor | None) -> list[Tensor]:
    """The coordinates one by one, [B,N] each; infinitely far where a point does not count, so that none finds it."""
    if mask_BN is not None:
        points_BN3 = points_BN3.masked_fill(~mask_BN[..., None], float("inf"))
    return list(points_BN3.permute(2, 0, 1).contiguous())


def _distances(x: list[Tensor], y: list[Tensor], norm: int, distance: Tensor, work: Tensor) -> None:
    """Into ``distance``: the sum of squared (norm 2) or absolute (norm 1) differences."""
    torch.sub(x[0], y[0], out=distance)
    distance.mul_(distance) if norm == 2 else distance.abs_()
    for p, q in zip(x[1:], y[1:], strict=True):
        torch.sub(p, q, out=work)
        distance.addcmul_(work, work) if norm == 2 else distance.add_(work.abs_())


def _index(rank_BN: Tensor, count: int) -> Tensor:
    """From a rank to an index; rank 0, where nothing compared equal (no numbers there), to a valid one."""
    return rank_BN.clamp_(min=1).neg_().add_(count).long()
