"""The kernels of the Chamfer distance on a GPU: neighbours with their distances, the means, the gradient.

`search` holds a block of points in registers and walks over the other cloud, so distances never reach memory. It takes
true differences in float32, no matrix product; of several neighbours at the same distance it takes the first.
`gradient` turns the scatter around: each point walks over the other cloud and adds up the pulls of those that found it.
That costs about as much as a search and needs no atomics, so the result is the same bytes every time.

Shapes: B pairs of clouds; N, M points of x and y; P points that ask, Q points among which they search; everything
contiguous, points, weights and lengths float32, masks uint8, neighbours int32. BLOCK points p times ACROSS points q are
compared at once. A pull is the gradient of the distance of a pair with respect to the point that asks.
"""

from __future__ import annotations

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]


@triton.jit
def _length(dx, dy, dz, NORM: tl.constexpr, SQUARED: tl.constexpr):
    """Length of difference vectors."""
    if NORM == 1:
        length = tl.abs(dx) + tl.abs(dy) + tl.abs(dz)
        if SQUARED:
            length = length * length
    else:
        length = tl.fma(dz, dz, tl.fma(dy, dy, dx * dx))
        if not SQUARED:
            length = tl.sqrt(length)
    return length


@triton.jit
def _slope(dx, dy, dz, NORM: tl.constexpr, SQUARED: tl.constexpr):
    """Gradient of `_length` with respect to the vector, 0 for the vector 0."""
    if NORM == 1:
        factor = 1.0
        if SQUARED:
            factor = 2 * (tl.abs(dx) + tl.abs(dy) + tl.abs(dz))
        sx = tl.where(dx > 0, 1.0, 0.0) - tl.where(dx < 0, 1.0, 0.0)
        sy = tl.where(dy > 0, 1.0, 0.0) - tl.where(dy < 0, 1.0, 0.0)
        sz = tl.where(dz > 0, 1.0, 0.0) - tl.where(dz < 0, 1.0, 0.0)
        return sx * factor, sy * factor, sz * factor
    else:
        if SQUARED:
            return 2 * dx, 2 * dy, 2 * dz
        else:
            length = tl.sqrt(tl.fma(dz, dz, tl.fma(dy, dy, dx * dx)))
            factor = tl.where(length > 0, 1 / tl.where(length > 0, length, 1.0), 0.0)
            return dx * factor, dy * factor, dz * factor


@triton.jit
def _points(points, first, at, inside, other):
    """Coordinates of the points ``first + at``, ``other`` where not inside."""
    place = points + (first + at) * 3
    x = tl.load(place, mask=inside, other=other)
    y = tl.load(place + 1, mask=inside, other=other)
    z = tl.load(place + 2, mask=inside, other=other)
    return x, y, z


@triton.jit
def _search_block(
    p_points, q_points, q_mask, p_nearest, p_length, p_pull, b, block, P, Q,
    MASKED: tl.constexpr, NORM: tl.constexpr, SQUARED: tl.constexpr, BLOCK: tl.constexpr, ACROSS: tl.constexpr,
):  # fmt: skip
    """Writes index and distance of the nearest q that counts for BLOCK points p of cloud b."""
    p = block * BLOCK + tl.arange(0, BLOCK)
    p_inside = p < P
    px, py, pz = _points(p_points, b * P, p, p_inside, 0.0)
    best = tl.full((BLOCK, ACROSS), float("inf"), tl.float32)
    best_at = tl.zeros((BLOCK, ACROSS), tl.int32)
    for start in range(0, Q, ACROSS):
        q = start + tl.arange(0, ACROSS)
        counts = q < Q
        if MASKED:
            counts = counts & (tl.load(q_mask + b * Q + q, mask=counts, other=0) != 0)
        qx, qy, qz = _points(q_points, b * Q, q, counts, float("inf"))
        dx, dy, dz = px[:, None] - qx[None, :], py[:, None] - qy[None, :], pz[:, None] - qz[None, :]
        length = _length(dx, dy, dz, NORM, NORM == 2)
        closer = length < best
        best = tl.where(closer, length, best)
        best_at = tl.where(closer, q[None, :], best_at)
    least = tl.min(best, axis=1)
    nearest = tl.min(tl.where(best == least[:, None], best_at, Q), axis=1)
    nearest = tl.where(nearest < Q, nearest, 0)
    qx, qy, qz = _points(q_points, b * Q, nearest, p_inside, 0.0)
    tl.store(p_nearest + b * P + p, nearest, mask=p_inside)
    dx, dy, dz = px - qx, py - qy, pz - qz
    tl.store(p_length + b * P + p, _length(dx, dy, dz, NORM, SQUARED), mask=p_inside)
    sx, sy, sz = _slope(dx, dy, dz, NORM, SQUARED)
    place = p_pull + (b * P + p) * 3
    tl.store(place, sx, mask=p_inside)
    tl.store(place + 1, sy, mask=p_inside)
    tl.store(place + 2, sz, mask=p_inside)


@triton.jit
def search(
    x_points, y_points, x_mask, y_mask, x_nearest, y_nearest, x_length, y_length, x_pull, y_pull, N, M,
    MASKED: tl.constexpr, NORM: tl.constexpr, SQUARED: tl.constexpr, BLOCK: tl.constexpr, ACROSS: tl.constexpr,
):  # fmt: skip
    """Grid: clouds, blocks of x and then of y."""
    b = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    x_blocks = tl.cdiv(N, BLOCK)
    if block < x_blocks:
        _search_block(
            x_points, y_points, y_mask, x_nearest, x_length, x_pull, b, block, N, M,
            MASKED, NORM, SQUARED, BLOCK, ACROSS,
        )  # fmt: skip
    else:
        _search_block(
            y_points, x_points, x_mask, y_nearest, y_length, y_pull, b, block - x_blocks, M, N,
            MASKED, NORM, SQUARED, BLOCK, ACROSS,
        )  # fmt: skip


@triton.jit
def _weights(mask, weight, first, at, inside, MASKED: tl.constexpr, WEIGHTED: tl.constexpr):
    """Weights of the points ``first + at``: 0 for those that do not count, which are not read."""
    value = tl.where(inside, 1.0, 0.0)
    if MASKED:
        inside = inside & (tl.load(mask + first + at, mask=inside, other=0) != 0)
        value = tl.where(inside, 1.0, 0.0)
    if WEIGHTED:
        value = tl.load(weight + first + at, mask=inside, other=0.0)
    return value


@triton.jit
def _sums(length, mask, weight, b, P, MASKED: tl.constexpr, WEIGHTED: tl.constexpr, REDUCE: tl.constexpr):
    """Sum of weights and of weighted lengths of cloud b, in a fixed order."""
    total = tl.zeros((REDUCE,), tl.float32)
    lengths = tl.zeros((REDUCE,), tl.float32)
    for start in range(0, P, REDUCE):
        p = start + tl.arange(0, REDUCE)
        value = _weights(mask, weight, b * P, p, p < P, MASKED, WEIGHTED)
        total += value
        found = tl.load(length + b * P + p, mask=p < P, other=0.0)
        lengths += tl.where(value > 0, value * found, 0.0)
    return tl.sum(total, axis=0), tl.sum(lengths, axis=0)


@triton.jit
def means(
    x_length, y_length, x_mask, y_mask, x_weight, y_weight, distance, part, N, M,
    MASKED: tl.constexpr, WEIGHTED: tl.constexpr, REDUCE: tl.constexpr,
):  # fmt: skip
    """Distance [B] and, for x and y, what a weight is multiplied with to make a share, [B,2]; grid: clouds."""
    b = tl.program_id(0).to(tl.int64)
    x_total, x_sum = _sums(x_length, x_mask, x_weight, b, N, MASKED, WEIGHTED, REDUCE)
    y_total, y_sum = _sums(y_length, y_mask, y_weight, b, M, MASKED, WEIGHTED, REDUCE)
    defined = (x_total > 0) & (y_total > 0)
    x_part = tl.where(defined, 1 / tl.where(defined, x_total, 1.0), 0.0)
    y_part = tl.where(defined, 1 / tl.where(defined, y_total, 1.0), 0.0)
    tl.store(distance + b, tl.where(defined, x_sum * x_part + y_sum * y_part, 0.0))
    tl.store(part + b * 2, x_part)
    tl.store(part + b * 2 + 1, y_part)


@triton.jit
def _gradient_block(
    p_pull, q_pull, p_mask, q_mask, p_weight, q_weight, q_nearest, p_gradient, p_part, q_part, b, block, P, Q,
    MASKED: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr, ACROSS: tl.constexpr,
):  # fmt: skip
    """Writes the gradient for BLOCK points p of cloud b: their own pull less those of the q that found them."""
    p = block * BLOCK + tl.arange(0, BLOCK)
    share = _weights(p_mask, p_weight, b * P, p, p < P, MASKED, WEIGHTED) * p_part
    own_x, own_y, own_z = _points(p_pull, b * P, p, share != 0, 0.0)
    ax = tl.zeros((BLOCK, ACROSS), tl.float32)
    ay = tl.zeros((BLOCK, ACROSS), tl.float32)
    az = tl.zeros((BLOCK, ACROSS), tl.float32)
    for start in range(0, Q, ACROSS):
        q = start + tl.arange(0, ACROSS)
        q_share = _weights(q_mask, q_weight, b * Q, q, q < Q, MASKED, WEIGHTED) * q_part
        found = tl.load(q_nearest + b * Q + q, mask=q_share != 0, other=-1)
        qx, qy, qz = _points(q_pull, b * Q, q, q_share != 0, 0.0)
        hit = found[None, :] == p[:, None]
        ax += tl.where(hit, (qx * q_share)[None, :], 0.0)
        ay += tl.where(hit, (qy * q_share)[None, :], 0.0)
        az += tl.where(hit, (qz * q_share)[None, :], 0.0)
    place = p_gradient + (b * P + p) * 3
    tl.store(place, own_x * share - tl.sum(ax, axis=1), mask=p < P)
    tl.store(place + 1, own_y * share - tl.sum(ay, axis=1), mask=p < P)
    tl.store(place + 2, own_z * share - tl.sum(az, axis=1), mask=p < P)


@triton.jit
def gradient(
    x_pull, y_pull, x_mask, y_mask, x_weight, y_weight, x_nearest, y_nearest, x_gradient, y_gradient, part, scale,
    first_block, N, M, MASKED: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr, ACROSS: tl.constexpr,
):  # fmt: skip
    """Gradients of the sum over clouds of scale * distance. Grid: clouds, blocks of x, y from ``first_block`` on."""
    b = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1) + first_block
    x_blocks = tl.cdiv(N, BLOCK)
    of_cloud = tl.load(scale + b)
    x_part = tl.load(part + b * 2) * of_cloud
    y_part = tl.load(part + b * 2 + 1) * of_cloud
    if block < x_blocks:
        _gradient_block(
            x_pull, y_pull, x_mask, y_mask, x_weight, y_weight, y_nearest, x_gradient, x_part, y_part, b, block, N, M,
            MASKED, WEIGHTED, BLOCK, ACROSS,
        )  # fmt: skip
    else:
        _gradient_block(
            y_pull, x_pull, y_mask, x_mask, y_weight, x_weight, x_nearest, y_gradient, y_part, x_part, b,
            block - x_blocks, M, N, MASKED, WEIGHTED, BLOCK, ACROSS,
        )  # fmt: skip
