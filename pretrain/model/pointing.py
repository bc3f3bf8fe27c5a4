"""Places in the picture that a token points at, in three dimensions.

Shapes: B batch, Q tokens that point, C image features, L = h x w places in the picture, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_kinecloud import KinecloudConfig
from .geometry import CloudGeometry
from .layers import waves, zero

_PLACE = 3 + 3 * 8
_SIGHT = 3
_OFFSET = 0.3  # of a place, in length units, per unit of the network's output


class Pointing(nn.Module):
    """Attention over the places of a picture whose result is a place: the mean of what is looked at.

    Places are offsets from the grasp point, so whatever is found moves along with what the picture shows. Where no
    depth was measured, it is estimated from the features, beginning with the effector's own.
    """

    def __init__(self, config: KinecloudConfig, width: int, channels: int):
        super().__init__()
        inner = 64
        self.query = nn.Linear(width, inner)
        self.key = nn.Linear(channels + _PLACE, inner)
        self.offset = nn.Linear(channels, 3)
        self.depth = nn.Sequential(nn.Linear(channels + _SIGHT, 32), nn.GELU(), zero(nn.Linear(32, 1)))
        self.value = nn.Linear(channels, width)
        self.two = config.dimensions == 2

    def forward(
        self, queries_BQD: Tensor, features_BCHW: Tensor, present_B: Tensor, geometry: CloudGeometry, size: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Offsets from the grasp point in length units [B,Q,3], what is seen there [B,Q,D], and the logarithm of how
        much of the look goes where [B,Q,h,w].

        present_B: where false, nothing is found and nothing seen. size: side of the image, pixels.
        """
        features_BLC = features_BCHW.flatten(2).transpose(1, 2)
        rows, columns = features_BCHW.shape[2:]
        deeper_BL1 = None
        if not self.two:
            sight_BLS = geometry.sights(rows, columns, size)
            deeper_BL1 = self.depth(torch.cat([features_BLC, sight_BLS], -1)).clamp(-2, 2).exp()
        place_BL3 = geometry.places(rows, columns, size, deeper_BL1)
        key_BLK = self.key(torch.cat([features_BLC, place_BL3 / 4, waves(place_BL3 / 4)], -1))
        score_BQL = self.query(queries_BQD) @ key_BLK.transpose(1, 2) / key_BLK.shape[-1] ** 0.5
        look_BQL = F.log_softmax(score_BQL * present_B[:, None, None], -1)
        weight_BQL = look_BQL.exp() * present_B[:, None, None]
        found_BQ3 = weight_BQL @ (place_BL3 + _OFFSET * self.offset(features_BLC))
        return found_BQ3, self.value(weight_BQL @ features_BLC), look_BQL.unflatten(-1, (rows, columns))
