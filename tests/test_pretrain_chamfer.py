"""The Chamfer distance against a naive loop in float64, and what masks, empty clouds and bad points do."""

from __future__ import annotations

import itertools

import pytest
import torch

from pretrain import chamfer as chamfer_module
from pretrain.chamfer import chamfer


def float_of(value) -> float:
    return float(value.detach())


def naive_chamfer(x, y, x_mask, y_mask, squared: bool):
    """The definition, one pair of points at a time, in float64 and differentiable."""
    values = []
    for b in range(len(x)):
        xs = [x[b, n] for n in range(x.shape[1]) if x_mask[b, n]]
        ys = [y[b, m] for m in range(y.shape[1]) if y_mask[b, m]]
        if not xs or not ys:
            continue
        length = (lambda d: d.square().sum()) if squared else (lambda d: d.square().sum().sqrt())
        there = sum(min((length(p - q) for q in ys), key=float_of) for p in xs) / len(xs)
        back = sum(min((length(q - p) for p in xs), key=float_of) for q in ys) / len(ys)
        values.append(there + back)
    return torch.stack(values).mean()


def hand_sized_clouds(clouds: int, n: int, m: int, seed: int):
    """Clouds of 10 cm extent at 0.6 m, where neighbours by matrix product go wrong."""
    random = torch.Generator().manual_seed(seed)
    offset = torch.tensor([0.1, -0.05, 0.6])
    x = torch.rand(clouds, n, 3, generator=random) * 0.1 + offset
    y = torch.rand(clouds, m, 3, generator=random) * 0.1 + offset + 0.02
    x_mask, y_mask = torch.rand(clouds, n, generator=random) < 0.7, torch.rand(clouds, m, generator=random) < 0.7
    return x, y, x_mask, y_mask


@pytest.mark.parametrize(("backend", "squared"), list(itertools.product(["torch", "kdtree", "auto"], [True, False])))
def test_value_and_gradient_agree_with_the_definition(backend, squared):
    x, y, x_mask, y_mask = hand_sized_clouds(3, 40, 33, seed=1)
    for points in (x, y):
        points.requires_grad_()
    value = chamfer(x, y, x_mask_BN=x_mask, y_mask_BM=y_mask, squared=squared, backend=backend)
    value.backward()
    x64, y64 = x.detach().double().requires_grad_(), y.detach().double().requires_grad_()
    expected = naive_chamfer(x64, y64, x_mask, y_mask, squared)
    expected.backward()
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    for got, want in ((x.grad, x64.grad), (y.grad, y64.grad)):
        assert got is not None and want is not None
        assert torch.linalg.norm(got.double() - want) <= 1e-4 * torch.linalg.norm(want)


def test_scipy_gives_the_neighbours_of_pykdtree(monkeypatch):
    from scipy.spatial import KDTree

    x, y, x_mask, y_mask = hand_sized_clouds(2, 300, 200, seed=2)
    first = chamfer(x, y, x_mask_BN=x_mask, y_mask_BM=y_mask, backend="kdtree", reduction="none")
    monkeypatch.setattr(chamfer_module, "_KDTree", KDTree)
    second = chamfer(x, y, x_mask_BN=x_mask, y_mask_BM=y_mask, backend="kdtree", reduction="none")
    torch.testing.assert_close(first, second, rtol=1e-6, atol=0)


def test_chunks_do_not_change_the_result(monkeypatch):
    x, y, x_mask, y_mask = hand_sized_clouds(5, 70, 50, seed=3)
    whole = chamfer(x, y, x_mask_BN=x_mask, y_mask_BM=y_mask, backend="torch", reduction="none")
    monkeypatch.setattr(chamfer_module, "_CHUNK_ELEMENTS", 500)
    chunked = chamfer(x, y, x_mask_BN=x_mask, y_mask_BM=y_mask, backend="torch", reduction="none")
    assert torch.equal(whole, chunked)


def test_masked_points_are_as_good_as_absent_even_when_not_finite():
    x, y, x_mask, y_mask = hand_sized_clouds(1, 30, 20, seed=4)
    absent = chamfer(x[:, x_mask[0]], y[:, y_mask[0]])
    x[~x_mask], y[~y_mask] = float("nan"), float("inf")
    x.requires_grad_()
    for backend in ("torch", "kdtree"):
        x.grad = None
        masked = chamfer(x, y, x_mask_BN=x_mask, y_mask_BM=y_mask, backend=backend)
        masked.backward()
        assert torch.allclose(masked, absent, rtol=1e-6)
        assert x.grad is not None and torch.isfinite(x.grad).all() and (x.grad[~x_mask] == 0).all()


def test_an_empty_cloud_counts_as_nothing():
    x, y, x_mask, y_mask = hand_sized_clouds(3, 30, 20, seed=5)
    y_mask[1] = False
    x.requires_grad_()
    each = chamfer(x, y, x_mask_BN=x_mask, y_mask_BM=y_mask, reduction="none", squared=False)
    mean = chamfer(x, y, x_mask_BN=x_mask, y_mask_BM=y_mask, squared=False)
    assert each[1] == 0 and torch.allclose(mean, each[[0, 2]].mean())
    mean.backward()
    assert x.grad is not None and (x.grad[1] == 0).all() and (x.grad[0] != 0).any()
    assert chamfer(torch.zeros(2, 0, 3), torch.zeros(2, 4, 3)) == 0


def test_coinciding_clouds_have_distance_zero_and_a_finite_gradient():
    x = torch.rand(2, 25, 3).requires_grad_()
    value = chamfer(x, x.detach().flip(1), squared=False)
    value.backward()
    assert x.grad is not None
    assert float(value.detach()) < 1e-9 and torch.isfinite(x.grad).all()


def test_a_point_that_is_not_finite_is_named():
    x, y, _, _ = hand_sized_clouds(3, 30, 20, seed=6)
    y[2, 4] = float("nan")
    with pytest.raises(ValueError, match="1 points of cloud 2 in y are not finite"):
        chamfer(x, y)


def test_parity_with_pytorch3d_where_it_is_installed():
    if not chamfer_module.importlib.util.find_spec("pytorch3d"):
        with pytest.raises(ValueError, match="pip install"):
            chamfer(torch.rand(1, 4, 3), torch.rand(1, 4, 3), backend="pytorch3d")
        return
    from pytorch3d.loss import chamfer_distance  # pyright: ignore[reportMissingImports]

    x, y, x_mask, y_mask = hand_sized_clouds(4, 60, 50, seed=7)
    torch.testing.assert_close(chamfer(x, y), chamfer_distance(x, y)[0], rtol=1e-5, atol=0)
    ours = chamfer(x, y, x_mask_BN=x_mask, y_mask_BM=y_mask, backend="pytorch3d")
    torch.testing.assert_close(ours, chamfer(x, y, x_mask_BN=x_mask, y_mask_BM=y_mask), rtol=1e-5, atol=0)
