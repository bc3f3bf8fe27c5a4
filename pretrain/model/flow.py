"""Flow matching between noise and displacements, with the path of MotoVLA and pi0.

With noise eps ~ N(0, 1), data x and time tau in [0, 1): x_tau = (1 - (1 - s) tau) eps + tau x, whose velocity is
u = x - (1 - s) eps; s is small. A network that knows x_tau and tau learns E[u]; integrating it from noise samples x.
(Lipman et al. 2023, "Flow matching for generative modeling".)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

S = 0.001


def path(clean: Tensor, noise: Tensor, tau_B: Tensor) -> tuple[Tensor, Tensor]:
    """x_tau and its velocity u; clean and noise [B, ...], tau [B]."""
    tau = beside(tau_B, clean)
    return (1 - (1 - S) * tau) * noise + tau * clean, clean - (1 - S) * noise


def arrival(noised: Tensor, velocity: Tensor, tau_B: Tensor) -> Tensor:
    """Where the path ends if the velocity stays: the estimate of x that a velocity implies (off by s eps)."""
    return noised + (1 - beside(tau_B, noised)) * velocity


def training_time(beta_B: Tensor) -> Tensor:
    """tau = (1 - s)(1 - z) for z ~ Beta(1.5, 1): early times, where most is undecided, are trained more often."""
    return (1 - S) * (1 - beta_B)


def shrinkage(noised: Tensor, tau_B: Tensor) -> Tensor:
    """The best linear guess of u from x_tau alone for data of unit variance, which the network need not learn:
    x_tau (2 tau - 1) / (tau^2 + (1 - tau)^2)."""
    tau = beside(tau_B, noised)
    return noised * (2 * tau - 1) / (tau**2 + (1 - tau) ** 2)


def integrate(velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
    """Euler's method from tau 0 to 1 in equal steps; ``velocity`` takes x_tau and tau [B]."""
    x = noise
    for step in range(steps):
        tau_B = torch.full((len(x),), step / steps, device=x.device, dtype=x.dtype)
        x = x + velocity(x, tau_B) / steps
    return x


def beside(tau_B: Tensor, x: Tensor) -> Tensor:
    """tau [B] with as many dimensions as x."""
    return tau_B.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
