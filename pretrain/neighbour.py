"""The nearest-neighbour baseline: look up the training window most like this one and replay its motion.

Windows are compared by what they show up to the present, never by their future: where the effector is, how large its
cloud is, the path it came, its opening, the instruction, the embodiment, the picture and the picture around the
effector. Every kind of feature is scaled so that two training windows differ by 1 on average (root mean square); the
weights of the kinds, the number of neighbours and whether their rotation is replayed are chosen on the training data by
leaving out one episode after the other (``pretrain.neighbour_choice``), so that the baseline gets an honest effort.

The motion of a neighbour is rigid and relative to its centroid: it is applied to the present cloud, whatever that is.

Shapes: B windows asked about, C candidates, D features, P past clouds, H horizons, N points, S image side.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

NAME = "nearest neighbour"
MAX_CANDIDATES = 4000  # training windows to choose from, evenly spread
THUMBNAIL = 8  # pixels a side
_OPENING_UNIT_M = 0.05
_TEXT_BUCKETS = 64
_FIT_POINTS = 128  # points used to fit the motion of a candidate
_STRETCH = 0.35  # the picture around the effector: side as a share of the whole picture


@dataclass(frozen=True)
class Choices:
    """How neighbours are found and used. weights: by kind of feature, of squared differences."""

    neighbours: int = 1
    rotate: bool = False
    weights: dict[str, float] = field(
        default_factory=lambda: {
            "place": 1.0, "extent": 0.25, "path": 4.0, "opening": 1.0, "text": 4.0, "embodiment": 1.0, "image": 1.0,
            "surroundings": 1.0,
        }
    )  # fmt: skip


def features_of(window: dict[str, Any]) -> dict[str, Tensor]:
    """What is compared, by kind, f32 [B,D] each; reads nothing later than the present."""
    now_BN3, valid_BP = window["past"][:, -1], window["past_valid"]
    centre_B3 = now_BN3.mean(1)
    path_BP3 = (window["past"][:, :-1].mean(2) - centre_B3[:, None]) * valid_BP[:, :-1, None]
    opening_BP = window["past_opening"]
    known_B = torch.isfinite(opening_BP[:, -1])
    change_B = torch.nan_to_num(opening_BP[:, -1] - opening_BP[:, 0]) * valid_BP[:, 0]
    image_B3SS = window["image"].float() / 255
    return {
        "place": centre_B3,
        "extent": now_BN3.std(1, correction=0),
        "path": path_BP3.flatten(1),
        "opening": torch.stack(
            [torch.nan_to_num(opening_BP[:, -1]) / _OPENING_UNIT_M, change_B / _OPENING_UNIT_M, known_B.float()], 1
        ),
        "text": torch.stack([_hashed_text(text) for text in window["text"]]),
        "embodiment": torch.stack([_hashed_name(name) for name in window["embodiment"]]),
        "image": F.adaptive_avg_pool2d(image_B3SS, THUMBNAIL).flatten(1),
        "surroundings": _around(image_B3SS, window["intrinsics"], centre_B3).flatten(1),
    }


def _hashed_text(text: str) -> Tensor:
    """Counts of the text's letter triples in 64 buckets, length 1; equal texts are equal, similar ones similar."""
    padded = f"  {' '.join(text.lower().split())} "
    counts = torch.zeros(_TEXT_BUCKETS)
    for start in range(len(padded) - 2):
        counts[zlib.crc32(padded[start : start + 3].encode()) % _TEXT_BUCKETS] += 1
    return counts / counts.norm().clamp(min=1)


def _hashed_name(name: str) -> Tensor:
    """A unit vector per name, so that two names are equal or about sqrt(2) apart."""
    random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return F.normalize(torch.randn(_TEXT_BUCKETS, generator=random), dim=0)


def _around(image_B3SS: Tensor, intrinsics_B33: Tensor, centre_B3: Tensor) -> Tensor:
    """Thumbnails of the picture around the effector, f32 [B,3,8,8]; black outside the picture."""
    size = image_B3SS.shape[-1]
    uvw_B3 = torch.einsum("bij,bj->bi", intrinsics_B33, centre_B3)
    place_B2 = 2 * uvw_B3[:, :2] / uvw_B3[:, 2:].clamp(min=1e-3) / size - 1
    along = ((torch.arange(2 * THUMBNAIL) + 0.5) / THUMBNAIL - 1) * _STRETCH
    rows, columns = torch.meshgrid(along, along, indexing="ij")
    grid_BSS2 = torch.stack([columns, rows], -1) + place_B2[:, None, None]
    return F.avg_pool2d(F.grid_sample(image_B3SS, grid_BSS2, padding_mode="zeros", align_corners=False), 2)


@dataclass(frozen=True)
class Motion:
    """Rigid motion of clouds about their centroid, and what their opening did.

    shift_CH3: metres. turn_CH33: rotation matrices. opening_CH: change in metres, 0 where unknown.
    """

    shift_CH3: Tensor
    turn_CH33: Tensor
    opening_CH: Tensor


def motion_of(window: dict[str, Any]) -> Motion:
    """The motion in the window's future (Kabsch 1976, on the points measured now and then; all if fewer than 3).

    Beyond the end of its clip the loader holds the last cloud, and so does the motion.
    """
    step = max(1, -(-window["past"].shape[2] // _FIT_POINTS))
    now_B1N3, future_BHN3 = window["past"][:, -1:, ::step], window["future"][:, :, ::step]
    both_BHN = (window["past_visible"][:, -1:] & window["future_visible"])[:, :, ::step]
    both_BHN = both_BHN | (both_BHN.sum(-1, keepdim=True) < 3)
    weight_BHN1 = (both_BHN / both_BHN.sum(-1, keepdim=True))[..., None]
    from_BH13 = (weight_BHN1 * now_B1N3).sum(2, keepdim=True)
    to_BH13 = (weight_BHN1 * future_BHN3).sum(2, keepdim=True)
    covariance_BH33 = (weight_BHN1 * (future_BHN3 - to_BH13)).transpose(-1, -2) @ (now_B1N3 - from_BH13)
    turn_BH33 = nearest_rotation(covariance_BH33)
    centre_B13 = window["past"][:, -1].mean(1, keepdim=True)
    shift_BH3 = to_BH13[:, :, 0] - centre_B13 + _turned(turn_BH33, centre_B13 - from_BH13[:, :, 0])
    opening_BH = torch.nan_to_num(window["future_opening"] - window["past_opening"][:, -1:])
    return Motion(shift_BH3, turn_BH33, opening_BH)


def nearest_rotation(matrix_33: Tensor) -> Tensor:
    """The rotation R with the largest trace of R^T M, for each of these matrices M [...,3,3]."""
    u, _, vh = torch.linalg.svd(matrix_33)
    flip = torch.ones(u.shape[:-1], dtype=u.dtype)
    flip[..., 2] = torch.linalg.det(u @ vh).sign()
    return (u * flip[..., None, :]) @ vh


def _turned(turn_33: Tensor, vector_3: Tensor) -> Tensor:
    return (turn_33 @ vector_3[..., None])[..., 0]


def moved(now_BN3: Tensor, shift_BH3: Tensor, turn_BH33: Tensor) -> Tensor:
    """Clouds rotated about their centroid and shifted, [B,H,N,3]."""
    centre_B13 = now_BN3.mean(1, keepdim=True)
    return (now_BN3 - centre_B13)[:, None] @ turn_BH33.transpose(-1, -2) + (centre_B13 + shift_BH3)[:, :, None]


def mean_motion(motion: Motion, nearest_BK: Tensor, rotate: bool) -> Motion:
    """The mean motion of some candidates for each window; rotations are averaged as matrices and made orthogonal."""
    shift_BH3, opening_BH = motion.shift_CH3[nearest_BK].mean(1), motion.opening_CH[nearest_BK].mean(1)
    if rotate:
        turn_BH33 = nearest_rotation(motion.turn_CH33[nearest_BK].mean(1))
    else:
        turn_BH33 = torch.eye(3).expand(*shift_BH3.shape[:2], 3, 3)
    return Motion(shift_BH3, turn_BH33, opening_BH)


class NearestNeighbour:
    """Training windows to look up; see ``pretrain.neighbour_choice.fitted`` for making one.

    features: by kind [C,D]. groups: the source episode of every candidate.
    """

    def __init__(self, features: dict[str, Tensor], motion: Motion, groups: Sequence[str], choices: Choices):
        self.motion, self.choices = motion, choices
        self._groups = {name: number for number, name in enumerate(dict.fromkeys(groups))}
        self._group_C = torch.tensor([self._groups[name] for name in groups])
        self.scales = {kind: _scale(values) for kind, values in features.items()}
        self._table_CD = self._joined(features)

    def _joined(self, features: dict[str, Tensor]) -> Tensor:
        weights = self.choices.weights
        return torch.cat([values * (self.scales[kind] * weights[kind] ** 0.5) for kind, values in features.items()], 1)

    def nearest(self, window: dict[str, Any], groups: Sequence[str] | None = None) -> Tensor:
        """Candidates most like each window, nearest first, i64 [B,k].

        groups: the windows' own source episodes, none of which is looked up for its window.
        """
        far_BC = torch.cdist(
            self._joined(features_of(window)), self._table_CD, compute_mode="donot_use_mm_for_euclid_dist"
        )
        if groups is not None:
            own_B = torch.tensor([self._groups.get(name, -1) for name in groups])
            far_BC = far_BC.masked_fill(own_B[:, None] == self._group_C, float("inf"))
        return torch.sort(far_BC, dim=1, stable=True).indices[:, : self.choices.neighbours]

    def predict(self, window: dict[str, Any], groups: Sequence[str] | None = None) -> tuple[Tensor, Tensor]:
        """Clouds [B,H,N,3] and openings [B,H] in metres (NaN where the present opening is unknown)."""
        motion = mean_motion(self.motion, self.nearest(window, groups), self.choices.rotate)
        opening_BH = (window["past_opening"][:, -1:] + motion.opening_CH).clamp(min=0)
        return moved(window["past"][:, -1], motion.shift_CH3, motion.turn_CH33), opening_BH

    def describe(self) -> dict[str, Any]:
        """What was chosen, as JSON values."""
        return {"windows": len(self._group_C), "episodes": len(self._groups), **asdict(self.choices)}


def _scale(values_CD: Tensor) -> float:
    """What makes the root-mean-square difference of two candidates 1; 0 for what never varies and so says nothing."""
    spread = (2 * values_CD.double().var(0, correction=0).sum()).sqrt()
    return float(1 / spread) if spread > 1e-9 else 0.0
