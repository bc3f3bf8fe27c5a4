"""The Chamfer distance against a naive loop in float64, and what masks, weights, empty clouds and bad points do.

Each property is asked of every backend that runs here: on the GPU where there is one, and of the Triton kernels on the
CPU when they are interpreted (TRITON_INTERPRET=1, see test_pretrain_chamfer_triton.py).
"""

from __future__ import annotations

import importlib.util
import itertools
import multiprocessing
import os
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pretrain.chamfer import by_differences, by_tree, chamfer, nearest_both_ways, neighbours
from pretrain.chamfer.threads import share_out

PLACES = [("torch", "cpu"), ("kdtree", "cpu"), ("auto", "cpu")]
if torch.cuda.is_available():
    PLACES += [("torch", "cuda"), ("auto", "cuda")]
if importlib.util.find_spec("triton") and (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"):
    PLACES += [("triton", "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")]
if importlib.util.find_spec("pytorch3d"):
    PLACES += [("pytorch3d", "cpu")]
everywhere = pytest.mark.parametrize(("backend", "device"), PLACES)
SIZES = (3, 17, 14)


def hand_sized_clouds(clouds: int, n: int, m: int, seed: int, device: str = "cpu"):
    """Clouds of 10 cm extent at 0.6 m, where neighbours by matrix product go wrong; 7 of 10 points count."""
    random = torch.Generator().manual_seed(seed)
    offset = torch.tensor([0.1, -0.05, 0.6])
    x = torch.rand(clouds, n, 3, generator=random) * 0.1 + offset
    y = torch.rand(clouds, m, 3, generator=random) * 0.1 + offset + 0.02
    x_mask, y_mask = torch.rand(clouds, n, generator=random) < 0.7, torch.rand(clouds, m, generator=random) < 0.7
    return [t.to(device) for t in (x, y, x_mask, y_mask)]


def weights(device: str = "cpu"):
    random = torch.Generator().manual_seed(9)
    return [torch.rand(SIZES[0], n, generator=random).to(device) for n in SIZES[1:]]


@cache
def by_definition(norm: int, squared: bool, weighted: bool):
    """Value and gradients, one pair of points at a time, in float64."""
    x, y, x_mask, y_mask = hand_sized_clouds(*SIZES, seed=1)
    x, y = x.double().requires_grad_(), y.double().requires_grad_()
    x_weight, y_weight = weights() if weighted else (torch.ones(SIZES[0], SIZES[1]), torch.ones(SIZES[0], SIZES[2]))

    def length(apart):
        value = apart.abs().sum() if norm == 1 else apart.square().sum().sqrt()
        return value.square() if squared else value

    values = []
    for b in range(len(x)):
        xs, ys = x_mask[b].nonzero()[:, 0].tolist(), y_mask[b].nonzero()[:, 0].tolist()
        apart = {(i, j): length(x[b, i] - y[b, j]) for i, j in itertools.product(xs, ys)}
        there = [x_weight[b, i] * min((apart[i, j] for j in ys), key=lambda d: float(d.detach())) for i in xs]
        back = [y_weight[b, j] * min((apart[i, j] for i in xs), key=lambda d: float(d.detach())) for j in ys]
        values.append(sum(there) / x_weight[b, xs].sum() + sum(back) / y_weight[b, ys].sum())
    value = torch.stack(values).mean()
    value.backward()
    return float(value.detach()), x.grad, y.grad


@everywhere
@pytest.mark.parametrize(
    ("norm", "squared", "weighted"),
    [(2, True, False), (2, False, False), (1, True, True), (1, False, False), (2, False, True)],
)
def test_value_and_gradient_agree_with_the_definition(backend, device, norm, squared, weighted):
    x, y, x_mask, y_mask = hand_sized_clouds(*SIZES, seed=1, device=device)
    x, y = x.requires_grad_(), y.requires_grad_()
    x_weight, y_weight = weights(device) if weighted else (None, None)
    value = chamfer(
        x, y, x_mask_BN=x_mask, y_mask_BM=y_mask, x_weight_BN=x_weight, y_weight_BM=y_weight,
        norm=norm, squared=squared, backend=backend,
    )  # fmt: skip
    value.backward()
    expected, *gradients = by_definition(norm, squared, weighted)
    assert float(value.detach()) == pytest.approx(expected, rel=1e-6)
    for points, want in zip((x, y), gradients, strict=True):
        assert points.grad is not None and want is not None
        assert torch.linalg.norm(points.grad.cpu().double() - want) <= 1e-4 * torch.linalg.norm(want)


@everywhere
@pytest.mark.parametrize("needs", ["x", "y"])
def test_a_gradient_asked_of_one_side_is_the_same_as_asked_of_both(backend, device, needs):
    x, y, _, _ = hand_sized_clouds(2, 40, 25, seed=2, device=device)
    both = x.clone().requires_grad_(), y.clone().requires_grad_()
    chamfer(*both, backend=backend).backward()
    one = x.clone().requires_grad_(needs == "x"), y.clone().requires_grad_(needs == "y")
    chamfer(*one, backend=backend).backward()
    side = "xy".index(needs)
    torch.testing.assert_close(one[side].grad, both[side].grad, rtol=1e-6, atol=1e-9)
    assert one[1 - side].grad is None


@everywhere
@pytest.mark.parametrize("norm", [1, 2])
def test_neighbours_are_the_nearest_points_that_count(backend, device, norm):
    x, y, x_mask, y_mask = hand_sized_clouds(3, 130, 150, seed=3, device=device)
    in_y, in_x = nearest_both_ways(x, y, x_mask, y_mask, backend=backend, norm=norm)
    apart = torch.linalg.vector_norm(x[:, :, None].double() - y[:, None].double(), ord=norm, dim=-1)
    apart[~(x_mask[:, :, None] & y_mask[:, None])] = float("inf")
    for nearest, table, mask in ((in_y, apart, x_mask), (in_x, apart.transpose(1, 2), y_mask)):
        found = table.gather(2, nearest[..., None])[..., 0]
        assert (found[mask] <= table.amin(2)[mask] * (1 + 1e-6)).all()


@everywhere
def test_masked_points_are_as_good_as_absent_even_when_not_finite(backend, device):
    x, y, x_mask, y_mask = hand_sized_clouds(1, 30, 20, seed=4, device=device)
    absent = chamfer(x[:, x_mask[0]], y[:, y_mask[0]], backend=backend)
    x[~x_mask], y[~y_mask] = float("nan"), float("inf")
    x.requires_grad_()
    masked = chamfer(x, y, x_mask_BN=x_mask, y_mask_BM=y_mask, backend=backend)
    masked.backward()
    assert torch.allclose(masked, absent, rtol=1e-6)
    assert x.grad is not None and torch.isfinite(x.grad).all() and (x.grad[~x_mask] == 0).all()
    only_x = chamfer(x, torch.nan_to_num(y, posinf=0.5), x_mask_BN=x_mask, backend=backend)
    assert torch.allclose(only_x, chamfer(x[:, x_mask[0]], torch.nan_to_num(y, posinf=0.5), backend=backend), rtol=1e-6)


@everywhere
def test_a_weight_counts_as_often_as_a_point_repeated(backend, device):
    x, y, _, _ = hand_sized_clouds(1, 12, 15, seed=5, device=device)
    times = torch.arange(12, device=device) % 3 + 1
    repeated = chamfer(x.repeat_interleave(times, 1), y, backend=backend, squared=False)
    weighted = chamfer(x, y, x_weight_BN=times[None].float(), backend=backend, squared=False)
    torch.testing.assert_close(weighted, repeated, rtol=1e-6, atol=0)


@everywhere
def test_a_point_without_weight_is_still_found(backend, device):
    x = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]], device=device)
    y = torch.tensor([[[1.0, 0, 0]]], device=device)
    weight = torch.tensor([[1.0, 0]], device=device)
    assert chamfer(x, y, x_weight_BN=weight, backend=backend) == 1
    assert chamfer(x, y, x_mask_BN=weight > 0, backend=backend) == 2


@everywhere
def test_an_empty_cloud_counts_as_nothing(backend, device):
    x, y, x_mask, y_mask = hand_sized_clouds(3, 30, 20, seed=6, device=device)
    y_mask[1] = False
    x.requires_grad_()
    of = {"x_mask_BN": x_mask, "y_mask_BM": y_mask, "squared": False, "backend": backend}
    each, mean = chamfer(x, y, reduction="none", **of), chamfer(x, y, **of)
    assert each[1] == 0 and torch.allclose(mean, each[[0, 2]].mean())
    mean.backward()
    assert x.grad is not None and (x.grad[1] == 0).all() and (x.grad[0] != 0).any()
    nothing = torch.zeros(2, 0, 3, device=device, requires_grad=True)
    none = chamfer(nothing, y[:2], backend=backend)
    none.backward()
    assert none == 0 and nothing.grad is not None
    weightless = chamfer(x, y, x_weight_BN=torch.zeros_like(x[..., 0]), backend=backend)
    assert weightless == 0


@everywhere
@pytest.mark.parametrize("norm", [1, 2])
def test_coinciding_clouds_have_distance_zero_and_a_zero_gradient(backend, device, norm):
    x = hand_sized_clouds(2, 25, 1, seed=7, device=device)[0].requires_grad_()
    value = chamfer(x, x.detach().flip(1), norm=norm, squared=False, backend=backend)
    value.backward()
    assert x.grad is not None and value == 0 and (x.grad == 0).all()


@everywhere
def test_a_point_that_is_not_finite_is_named(backend, device):
    x, y, x_mask, y_mask = hand_sized_clouds(3, 30, 20, seed=8, device=device)
    y[2, 4], y_mask[2, 4] = float("nan"), True
    for masks in ((None, None), (x_mask, y_mask)):
        with pytest.raises(ValueError, match="1 points of cloud 2 in y are not finite"):
            chamfer(x, y, backend=backend, x_mask_BN=masks[0], y_mask_BM=masks[1])
    if backend in ("torch", "triton"):
        each = chamfer(x, y, backend=backend, reduction="none", check_finite=False)
        assert torch.isfinite(each).tolist() == [True, True, False]


@everywhere
def test_types_of_16_bit_are_computed_in_32(backend, device):
    x, y, _, _ = hand_sized_clouds(2, 40, 30, seed=10, device=device)
    x, y = x.bfloat16().requires_grad_(), y.bfloat16()
    value = chamfer(x, y, backend=backend, squared=False)
    value.backward()
    assert value.dtype == torch.float32 and x.grad is not None and x.grad.dtype == torch.bfloat16
    assert torch.equal(value, chamfer(x.float(), y.float(), backend=backend, squared=False))


@everywhere
def test_twice_the_same_is_the_same_bytes(backend, device):
    x, y, x_mask, y_mask = hand_sized_clouds(4, 150, 200, seed=11, device=device)
    if (backend, device) == ("torch", "cuda"):
        pytest.skip("adds up gradients with atomics unless torch.use_deterministic_algorithms is on")
    gradients = []
    for _ in range(2):
        x.grad = None
        chamfer(x.requires_grad_(), y, x_mask_BN=x_mask, y_mask_BM=y_mask, backend=backend).backward()
        assert x.grad is not None
        gradients.append(x.grad.clone())
    assert torch.equal(*gradients)


def test_scipy_gives_the_neighbours_of_pykdtree(monkeypatch):
    x, y, x_mask, y_mask = hand_sized_clouds(2, 300, 200, seed=12)
    first = nearest_both_ways(x, y, x_mask, y_mask, backend="kdtree")
    monkeypatch.setattr(by_tree, "_FastTree", None)
    second = nearest_both_ways(x, y, x_mask, y_mask, backend="kdtree")
    assert torch.equal(first[0][x_mask], second[0][x_mask]) and torch.equal(first[1][y_mask], second[1][y_mask])


@pytest.fixture
def three_threads(monkeypatch):
    """Torch may use three threads, and a stretch of one cloud is worth one."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    monkeypatch.setattr(by_differences, "_STRETCH", 1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("backend", ["torch", "kdtree"])
def test_threads_do_not_change_the_neighbours(three_threads, backend):
    x, y, x_mask, y_mask = hand_sized_clouds(5, 60, 70, seed=13)
    many = nearest_both_ways(x, y, x_mask, y_mask, backend)
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)
    one = nearest_both_ways(x, y, x_mask, y_mask, backend)
    assert torch.equal(one[0][x_mask], many[0][x_mask]) and torch.equal(one[1][y_mask], many[1][y_mask])


def test_torch_runs_alone_in_each_thread_and_as_before_outside(three_threads):
    seen = []
    for parts in (1, 3):
        share_out(lambda part: seen.append((torch.get_num_threads(), torch.is_grad_enabled())), parts)
    assert seen == [(1, False)] * 4
    assert torch.get_num_threads() == 3 and torch.is_grad_enabled()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_threads_of_its_own(three_threads, monkeypatch):
    x, y, _, _ = hand_sized_clouds(4, 60, 70, seed=17)
    monkeypatch.setattr(by_tree, "_FastTree", None)  # its OpenMP does not survive a fork, which is not ours to mend
    here = nearest_both_ways(x, y, backend="kdtree")
    with multiprocessing.get_context("fork").Pool(1) as processes:
        there = processes.apply_async(nearest_indices_of, (x.numpy(), y.numpy())).get(timeout=60)
    assert (there == here[0].numpy()).all()


def nearest_indices_of(x, y):
    return nearest_both_ways(torch.from_numpy(x), torch.from_numpy(y), backend="kdtree")[0].numpy()


@pytest.mark.parametrize("block", [1, 500, 60 * 70 * 2])
def test_blocks_do_not_change_the_result(monkeypatch, block):
    x, y, x_mask, y_mask = hand_sized_clouds(5, 60, 70, seed=14)
    x[:, 30:] = x[:, :30]  # ties across blocks
    whole = nearest_both_ways(x, y, x_mask, y_mask, backend="torch")
    monkeypatch.setitem(by_differences._BLOCK, "cpu", block)
    parts = nearest_both_ways(x, y, x_mask, y_mask, backend="torch")
    assert torch.equal(whole[0][x_mask], parts[0][x_mask]) and torch.equal(whole[1][y_mask], parts[1][y_mask])


def test_auto_takes_trees_for_large_clouds_and_differences_for_small_ones(monkeypatch):
    asked = []
    monkeypatch.setattr("pretrain.chamfer.neighbours.nearest_by_tree", lambda x, y, *_: asked.append("tree") or (x, y))
    monkeypatch.setattr(
        "pretrain.chamfer.neighbours.nearest_by_differences", lambda x, y, *_: asked.append("all") or (x, y)
    )
    for n, m in ((64, 64), (4096, 4096), (4096, 8)):
        nearest_both_ways(torch.zeros(1, n, 3), torch.zeros(1, m, 3))
    assert asked == ["all", "tree", "all"]


def test_on_a_gpu_where_triton_cannot_start_auto_takes_another_backend(monkeypatch):
    cloud: Any = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)  # what the choice looks at
    monkeypatch.setattr(neighbours, "triton_starts", lambda: False)
    monkeypatch.setattr(neighbours, "installed", lambda package: False)
    assert neighbours.chosen("auto", cloud, cloud, 2) == "torch"
    monkeypatch.setattr(neighbours, "installed", lambda package: package == "pytorch3d")
    assert neighbours.chosen("auto", cloud, cloud, 2) == "pytorch3d"
    monkeypatch.setattr(neighbours, "triton_starts", lambda: True)
    assert neighbours.chosen("auto", cloud, cloud, 2) == "triton"


def test_what_does_not_fit_is_refused():
    x, y, x_mask, _ = hand_sized_clouds(2, 5, 4, seed=15)
    cases: list[tuple[str, tuple[Any, Any], dict[str, Any]]] = [
        ("y has shape", (x, y[..., :2]), {}),
        ("x is torch.int64", (x.long(), y), {}),
        ("compared in pairs", (x, y[:1]), {}),
        ("mask of y is torch.bool", (x, y), {"y_mask_BM": x_mask}),
        ("weight of x is torch.bool", (x, y), {"x_weight_BN": x_mask}),
        ("weight of point 0 of cloud 0 in x is -1.0", (x, y), {"x_weight_BN": -torch.ones(2, 5)}),
        ("backend is 'tree'", (x, y), {"backend": "tree"}),
        ("norm is 3", (x, y), {"norm": 3}),
        ("reduction is 'sum'", (x, y), {"reduction": "sum"}),
    ]
    for message, arguments, settings in cases:
        with pytest.raises(ValueError, match=message):
            chamfer(*arguments, **settings)


@pytest.mark.parametrize("backend", ["triton", "pytorch3d"])
def test_a_backend_that_is_not_installed_says_how_to_get_it(backend):
    if importlib.util.find_spec(backend):
        pytest.skip(f"{backend} is installed")
    with pytest.raises(ValueError, match="pip install"):
        chamfer(torch.rand(1, 4, 3), torch.rand(1, 4, 3), backend=backend)


def test_parity_with_pytorch3d_where_it_is_installed():
    loss = pytest.importorskip("pytorch3d.loss")
    x, y, _, _ = hand_sized_clouds(4, 60, 50, seed=16)
    torch.testing.assert_close(chamfer(x, y), loss.chamfer_distance(x, y)[0], rtol=1e-5, atol=0)
    absolute = loss.chamfer_distance(x, y, norm=1)[0]
    torch.testing.assert_close(chamfer(x, y, norm=1, squared=False), absolute, rtol=1e-5, atol=0)
