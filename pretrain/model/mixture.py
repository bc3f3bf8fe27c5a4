"""The mixture trunk: PaliGemma as context, its expert as predictor, both of transformers' PI0Model."""

from __future__ import annotations

from .configuration_kinecloud import KinecloudConfig
from .trunk import Trunk


class MixtureTrunk(Trunk):
    """See ``Trunk``."""

    def __init__(self, config: KinecloudConfig):
        super().__init__()
        raise NotImplementedError
