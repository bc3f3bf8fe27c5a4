"""Fits the nearest-neighbour baseline: reads training windows and chooses how to compare them, on training data alone.

The choice is by leave-one-episode-out: training windows are predicted from those of all other episodes, and what has
the least average displacement error (mean over episodes) is taken. Weights are searched one kind after the other.

Shapes: Q windows asked about, C candidates, H horizons, n points, K neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from data.loader import WindowDataset
from pretrain.metrics import average_over_time, measured
from pretrain.neighbour import (
    MAX_CANDIDATES,
    Choices,
    Motion,
    NearestNeighbour,
    features_of,
    mean_motion,
    motion_of,
)
from pretrain.reading import in_batches, spread

QUESTIONS = 256  # training windows that are predicted from the others
_POINTS = 16  # of each of them
_NEIGHBOURS = (1, 2, 4, 8, 16, 32)
_WEIGHTS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_ROUNDS = 2


def fitted(
    dataset: WindowDataset, max_candidates: int = MAX_CANDIDATES, choices: Choices | None = None
) -> NearestNeighbour | None:
    """The baseline on the windows of ``dataset`` (training data, all points); None when there are none.

    Reads at most ``max_candidates`` windows, evenly spread; those whose future is known to the last horizon are looked
    up, or all when no clip is that long. choices: given, nothing is searched. Deterministic.
    """
    features: dict[str, list[Tensor]] = {}
    motions, questions, complete, groups = [], [], [], []
    for numbers, window in in_batches(dataset, spread(len(dataset), max_candidates)):
        for kind, values in features_of(window).items():
            features.setdefault(kind, []).append(values)
        motions.append(motion_of(window))
        questions.append(_question(window))
        complete.append(window["future_valid"][:, -1])
        groups += [dataset.meta_of(number).group for number in numbers]
    if not groups:
        return None
    kept_C = torch.cat(complete).nonzero()[:, 0]
    if len(kept_C) == 0:
        kept_C = torch.arange(len(groups))
    motion = Motion(*(torch.cat([getattr(m, part.name) for m in motions])[kept_C] for part in fields(Motion)))
    joined = {kind: torch.cat(values)[kept_C] for kind, values in features.items()}
    groups = [groups[number] for number in kept_C.tolist()]
    found = NearestNeighbour(joined, motion, groups, choices or Choices())
    if choices is not None or len(set(groups)) < 2:
        return found
    asked_Q = torch.tensor(spread(len(groups), QUESTIONS))
    truth = tuple(torch.cat(part)[kept_C[asked_Q]] for part in zip(*questions, strict=True))
    search = _Search(found, joined, groups, asked_Q, truth, dataset.config.horizons_s)
    return NearestNeighbour(joined, motion, groups, search.best())


def _question(window: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Present cloud [B,n,3], future [B,H,n,3] and what of it counts [B,H,n], of 16 points (repeated if there are
    fewer), about the centroid of the whole cloud."""
    chosen = torch.linspace(0, window["past"].shape[2] - 1, _POINTS).long()
    centre_B13 = window["past"][:, -1].mean(1, keepdim=True)
    now_BN3 = window["past"][:, -1, chosen] - centre_B13
    return now_BN3, window["future"][:, :, chosen] - centre_B13[:, None], measured(window)[:, :, chosen]


class _Search:
    """Coordinate search over the weights, then over neighbours and rotation, by leave-one-episode-out error."""

    def __init__(
        self,
        found: NearestNeighbour,
        features: dict[str, Tensor],
        groups: Sequence[str],
        asked_Q: Tensor,
        truth: tuple[Tensor, ...],
        horizons: Sequence[float],
    ):
        """features: by kind [C,D]. groups: of the candidates. asked_Q: which candidates are asked about. truth: as of
        ``_question``."""
        self._motion, self._start, self._horizons = found.motion, found.choices, horizons
        self._now_QN3, self._future_QHN3, self._mask_QHN = truth
        names = {name: number for number, name in enumerate(dict.fromkeys(groups))}
        group_C = torch.tensor([names[name] for name in groups])
        self._group_Q = group_C[asked_Q]
        self._own_QC = self._group_Q[:, None] == group_C
        self._squares: dict[str, Tensor] = {}
        for kind, values in features.items():
            if found.scales[kind] > 0:  # what never varies cannot tell windows apart
                scaled = values * found.scales[kind]
                far_QC = torch.cdist(scaled[asked_Q], scaled, compute_mode="donot_use_mm_for_euclid_dist")
                self._squares[kind] = far_QC.square()

    def best(self) -> Choices:
        """The choices with the least error; where equal, those tried first."""
        weights = dict(self._start.weights)
        least = min(self._errors(weights).values())
        for _ in range(_ROUNDS):
            before = dict(weights)
            for kind in self._squares:
                for weight in _WEIGHTS:
                    tried = weights | {kind: weight}
                    if tried != weights and (error := min(self._errors(tried).values())) < least:
                        least, weights = error, tried
            if weights == before:
                break
        errors = {(k, rotate): e for rotate in (False, True) for k, e in self._errors(weights, rotate).items()}
        neighbours, rotate = min(errors, key=lambda choice: errors[choice])
        return Choices(neighbours, rotate, weights)

    def _errors(self, weights: dict[str, float], rotate: bool = False) -> dict[int, float]:
        """Error by number of neighbours."""
        square_QC = torch.zeros(self._own_QC.shape)
        for kind, part_QC in self._squares.items():
            square_QC += weights[kind] * part_QC
        square_QC.masked_fill_(self._own_QC, float("inf"))
        others = int((~self._own_QC).sum(1).min())
        nearest_QK = square_QC.topk(min(max(_NEIGHBOURS), others), dim=1, largest=False).indices
        return {k: self._error(nearest_QK[:, :k], rotate) for k in _NEIGHBOURS if k == 1 or k <= others}

    def _error(self, nearest_QK: Tensor, rotate: bool) -> float:
        """Average displacement error in metres: mean over episodes of the mean over their windows."""
        motion = mean_motion(self._motion, nearest_QK, rotate)
        points_QHN3 = self._now_QN3[:, None] @ motion.turn_CH33.transpose(-1, -2) + motion.shift_CH3[:, :, None]
        distance_QHN = (points_QHN3 - self._future_QHN3).norm(dim=-1)
        displacement_QH = (distance_QHN * self._mask_QHN).sum(-1) / self._mask_QHN.sum(-1)
        average_Q = average_over_time(displacement_QH, self._horizons)[:, -1]
        known_Q = torch.isfinite(average_Q)
        episodes, number_Q = self._group_Q[known_Q].unique(return_inverse=True)
        if len(episodes) == 0:
            return float("inf")
        sums = torch.zeros(len(episodes)).index_add_(0, number_Q, average_Q[known_Q])
        return float((sums / torch.bincount(number_Q)).mean())
