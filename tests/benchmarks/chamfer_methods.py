"""Ways to a Chamfer distance for the benchmark: our backends and what one would use instead.

All give the mean over clouds of the squared (or plain) neighbour distances in both directions, differentiable.
Shapes: B clouds in the batch, N points in x, M points in y; masks are bool, the points that count.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from pretrain.chamfer import chamfer

EXACT, DEFAULT = "donot_use_mm_for_euclid_dist", "use_mm_for_euclid_dist_if_necessary"


@dataclass(frozen=True)
class Case:
    """clouds x points, both sides alike; masked: about 9 of 10 points count. squared: of the distance."""

    clouds: int
    points: int
    masked: bool = False
    squared: bool = True

    @property
    def name(self) -> str:
        extra = (", masks" if self.masked else "") + ("" if self.squared else ", not squared")
        return f"{self.clouds} x {self.points}{extra}"

    @property
    def pairs(self) -> int:
        return self.clouds * self.points**2


@dataclass(frozen=True)
class Batch:
    """Clouds of 10 cm at 0.6 m; x wants a gradient."""

    x_BN3: Tensor
    y_BM3: Tensor
    mask_BN: Tensor | None
    squared: bool

    @classmethod
    def of(cls, case: Case, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Batch:
        random = torch.Generator().manual_seed(0)
        offset = torch.tensor([0.1, 0.0, 0.6])
        x, y = (torch.rand(case.clouds, case.points, 3, generator=random) * 0.1 + offset for _ in range(2))
        mask = torch.rand(case.clouds, case.points, generator=random) < 0.9 if case.masked else None
        mask = None if mask is None else mask.to(device)
        return cls(x.to(device, dtype).requires_grad_(), y.to(device, dtype), mask, case.squared)

    def of_cloud(self, b: int) -> Batch:
        """One pair of clouds by itself, x a leaf of its own."""
        mask = None if self.mask_BN is None else self.mask_BN[b : b + 1]
        return Batch(self.x_BN3.detach()[b : b + 1].requires_grad_(), self.y_BM3[b : b + 1], mask, self.squared)


def ours(backend: str, **settings: Any) -> Callable[[Batch], Tensor]:
    def distance(batch: Batch) -> Tensor:
        return chamfer(
            batch.x_BN3, batch.y_BM3, x_mask_BN=batch.mask_BN, y_mask_BM=batch.mask_BN, squared=batch.squared,
            backend=backend, **settings,
        )  # fmt: skip

    return distance


def _from_matrix(distance_BNM: Tensor, mask_BN: Tensor | None, indices: bool) -> Tensor:
    """indices: by min, which differentiates through an index; else by amin, which does through a comparison."""
    if mask_BN is not None:
        distance_BNM = distance_BNM.masked_fill(~(mask_BN[:, :, None] & mask_BN[:, None]), float("inf"))
    there, back = (distance_BNM.min(d).values if indices else distance_BNM.amin(d) for d in (2, 1))
    if mask_BN is None:
        return (there.mean(1) + back.mean(1)).mean()
    count = mask_BN.sum(1)
    there, back = (torch.where(mask_BN, found, 0.0).sum(1) / count for found in (there, back))
    return (there + back).mean()


def by_cdist(mode: str, indices: bool) -> Callable[[Batch], Tensor]:
    def distance(batch: Batch) -> Tensor:
        matrix = torch.cdist(batch.x_BN3, batch.y_BM3, compute_mode=mode)
        return _from_matrix(matrix.square() if batch.squared else matrix, batch.mask_BN, indices)

    return distance


def by_broadcast(batch: Batch) -> Tensor:
    square = (batch.x_BN3[:, :, None] - batch.y_BM3[:, None]).square().sum(-1)
    return _from_matrix(square if batch.squared else square.clamp(min=1e-24).sqrt(), batch.mask_BN, indices=True)


def _from_neighbours(batch: Batch, in_y_BN: Tensor, in_x_BM: Tensor) -> Tensor:
    x, y = batch.x_BN3, batch.y_BM3
    there = (x - y.gather(1, in_y_BN[..., None].expand(-1, -1, 3))).square().sum(-1)
    back = (y - x.gather(1, in_x_BM[..., None].expand(-1, -1, 3))).square().sum(-1)
    if not batch.squared:
        there, back = there.clamp(min=1e-24).sqrt(), back.clamp(min=1e-24).sqrt()
    return (there.mean(1) + back.mean(1)).mean()


def by_scipy(batch: Batch) -> Tensor:
    x, y = batch.x_BN3.detach().cpu().numpy(), batch.y_BM3.cpu().numpy()
    in_y = np.stack([KDTree(q).query(p)[1] for p, q in zip(x, y, strict=True)])
    in_x = np.stack([KDTree(p).query(q)[1] for p, q in zip(x, y, strict=True)])
    return _from_neighbours(batch, torch.from_numpy(in_y), torch.from_numpy(in_x))


def by_keops(batch: Batch) -> Tensor:
    from pykeops.torch import LazyTensor  # pyright: ignore[reportMissingImports]

    x_lazy = LazyTensor(batch.x_BN3.detach()[:, :, None].contiguous())
    y_lazy = LazyTensor(batch.y_BM3[:, None].contiguous())
    square: Any = ((x_lazy - y_lazy) ** 2).sum(-1)
    return _from_neighbours(batch, square.argmin(dim=2)[..., 0], square.argmin(dim=1)[..., 0])


def by_pytorch3d(batch: Batch) -> Tensor:
    from pytorch3d.loss import chamfer_distance  # pyright: ignore[reportMissingImports]

    return chamfer_distance(batch.x_BN3, batch.y_BM3)[0]


def all_at_once(method: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
    """Forward and backward; the value."""
    value = method(batch)
    value.backward()
    return value.detach()


def cloud_by_cloud(method: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
    """The same for methods whose matrices of all clouds together would not fit: one pair of clouds after the other."""
    singles = [batch.of_cloud(b) for b in range(len(batch.x_BN3))]
    value = torch.stack([all_at_once(method, single) for single in singles]).mean()
    batch.x_BN3.grad = torch.cat([s.x_BN3.grad for s in singles if s.x_BN3.grad is not None]) / len(singles)
    return value


@dataclass(frozen=True)
class Method:
    """ours: one of our backends. matrix: holds all pairs in memory. masks, plain: what else than the default it can."""

    name: str
    distance: Callable[[Batch], Tensor]
    ours: bool = False
    matrix: bool = False
    masks: bool = True
    plain: bool = True


def methods(device: str) -> list[Method]:
    """Those that are installed and run on this device; ``auto`` is the first."""
    found = [Method("auto", ours("auto"), ours=True), Method("torch", ours("torch"), ours=True)]
    if device == "cpu":
        found.append(Method("kdtree", ours("kdtree"), ours=True))
        found.append(Method("scipy", by_scipy, masks=False))
    elif importlib.util.find_spec("triton"):
        found.append(Method("triton", ours("triton"), ours=True))
        found.append(Method("triton, unchecked", ours("triton", check_finite=False), ours=True))
    if importlib.util.find_spec("pytorch3d"):
        found.append(Method("pytorch3d", ours("pytorch3d"), ours=True))
        found.append(Method("pytorch3d's own", by_pytorch3d, masks=False, plain=False))
    if importlib.util.find_spec("pykeops"):
        found.append(Method("keops", by_keops, masks=False))
    return [
        *found,
        Method("cdist, amin", by_cdist(EXACT, indices=False), matrix=True),
        Method("cdist, min", by_cdist(EXACT, indices=True), matrix=True),
        Method("cdist inexact, min", by_cdist(DEFAULT, indices=True), matrix=True),
        Method("broadcast", by_broadcast, matrix=True),
    ]
