"""Teaching the network with lessons that are never the same."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from extract.gripper.learned.lessons import Book, Lessons
from extract.gripper.learned.network import GripperNet, Seen
from extract.gripper.learned.settings import LearnedSettings

WARM_UP = 0.05  # share of the steps in which the learning rate rises
WEIGHT_DECAY = 0.02
LARGEST_GRADIENT = 5.0
PLACES, BEHIND, OPENING, PRESENT = 10.0, 10.0, 5.0, 1.0  # weights beside the two likelihoods


def taught(
    book: Book, settings: LearnedSettings, seed: int, told: Callable[[int, float], None] = lambda step, loss: None
) -> GripperNet:
    """A network, in evaluation mode. The same book, settings, seed and number of threads give the same network.

    told: is called after every step with its number and loss.
    """
    random = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = GripperNet(len(book.keypoints_K3)).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    decay = [weight for weight in network.parameters() if weight.ndim > 1]
    plain = [weight for weight in network.parameters() if weight.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay}, {"params": plain, "weight_decay": 0.0}], weight_decay=WEIGHT_DECAY
    )
    network.train()
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate(step, settings.steps)
        lessons = book.lessons(settings.batch_size, random)
        loss = error(network(as_input(lessons.crops_BSS3)), lessons)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        told(step, float(loss.detach()))
    return network.eval()


def rate(step: int, steps: int) -> float:
    """0..1: rises linearly, then falls as a cosine to 0."""
    warm = max(1.0, WARM_UP * steps)
    if step < warm:
        return (step + 1) / warm
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm) / max(1.0, steps - warm))


def as_input(crops_BSS3: np.ndarray) -> Tensor:
    """f32 [B,3,S,S] of u8 crops."""
    return torch.from_numpy(crops_BSS3).permute(0, 3, 1, 2).float()


def error(seen: Seen, lessons: Lessons) -> Tensor:
    """Cross entropy of being there; where it is: likelihood of the first keypoint's place and of the distance under

    Laplace's distribution with the spread that the network names, and mean absolute errors of the rest.
    """
    present = torch.from_numpy(lessons.present_B)
    there = functional.binary_cross_entropy_with_logits(seen.present_B, present.float())
    if not present.any():
        return PRESENT * there
    places, behind, further, opening = (
        torch.from_numpy(values[lessons.present_B].astype(np.float32))
        for values in (lessons.places_BK2, lessons.behind_BK, lessons.further_B, lessons.opening_B)
    )
    across = (seen.places_BK2[present] - places).abs().mean(-1)
    along = (seen.further_B[present] - further).abs()
    likelihood = across[:, 0] * torch.exp(-seen.across_B[present]) + seen.across_B[present]
    likelihood = likelihood + along * torch.exp(-seen.along_B[present]) + seen.along_B[present]
    rest = PLACES * across.mean(1) + BEHIND * (seen.behind_BK[present] - behind).abs().mean(1)
    rest = rest + OPENING * (seen.opening_B[present] - opening).abs()
    return PRESENT * there + (likelihood + rest).mean()
