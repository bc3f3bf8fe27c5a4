"""Point tracks by RAFT optical flow (Teed and Deng, 2020), chained over time; the network is torchvision's (BSD-3).

torchvision is not installed by default, since its build must fit that of torch: for torch 2.13 that is
``pip install torchvision==0.28.0`` from the index that torch came from. Weights: any state dict of ``raft_large`` or
``raft_small``, for example https://download.pytorch.org/models/raft_large_C_T_SKHT_V2-ff5fadd5.pth.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from extract.models import device_of
from extract.steps import Shot, Tracks
from extract.track.dense import DenseChain
from pipeline.config import Settings
from pipeline.errors import UserError


class RaftConfig(Settings):
    """RAFT optical flow, chained."""

    name: Literal["raft"] = "raft"
    checkpoint: Path = Field(description="State dict of torchvision's RAFT: .safetensors, or .pth (weights only).")
    size: Literal["large", "small"] = Field(default="large", description="Which of torchvision's two networks it is.")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto = cuda where there is one.")
    side_px: int = Field(
        default=384, ge=128, multiple_of=8, description="The effector's surroundings are scaled to it."
    )
    updates: int = Field(default=12, ge=1, description="Refinements of the flow.")
    batch: int = Field(default=4, ge=1, description="Pairs of pictures at a time.")
    max_error_px: float = Field(
        default=1.5, gt=0, description="A point is lost where forward and backward differ by more, scaled pixels."
    )


class RaftChain:
    """A ``Tracker``. Raises UserError for a checkpoint that cannot be had or a torchvision that does not fit."""

    name = "raft-chain/1"

    def __init__(self, config: RaftConfig):
        self.config = config
        network, device = _network(config), device_of(config.device, "track: device")
        self.weights_sha256 = {config.checkpoint.name: hashlib.sha256(config.checkpoint.read_bytes()).hexdigest()}
        flow = RaftFlow(network.to(device).eval(), device, config.updates)
        self._chain = DenseChain(flow, config.side_px, config.max_error_px, config.batch)

    def __call__(self, shot: Shot, masks: Sequence[np.ndarray | None], count: int) -> Tracks:
        return self._chain(shot, masks, count)


class RaftFlow:
    """A ``DenseFlow``. network: torchvision's RAFT in evaluation mode."""

    def __init__(self, network: Any, device: Any, updates: int):
        self.network, self.device, self.updates = network, device, updates

    def __call__(self, first_BHW3: np.ndarray, second_BHW3: np.ndarray) -> np.ndarray:
        import torch

        def prepared(pictures: np.ndarray) -> Any:
            return torch.from_numpy(pictures).permute(0, 3, 1, 2).to(self.device, torch.float32) / 127.5 - 1

        with torch.inference_mode():
            flow = self.network(prepared(first_BHW3), prepared(second_BHW3), num_flow_updates=self.updates)[-1]
        return flow.permute(0, 2, 3, 1).float().cpu().numpy()


def read_weights(path: Path) -> dict[str, Any]:
    """A state dict from a file, without unpickling anything but tensors. Raises UserError."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except OSError as error:
        raise UserError(
            f"track: checkpoint: {path}: cannot be read ({error.strerror}). Name an existing file."
        ) from None
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(
            f"track: checkpoint: {path}: holds more than tensors, or is broken: {error}. Download it again, or save "
            "its state dict as .safetensors."
        ) from None
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise UserError(f"track: checkpoint: {path}: is no state dict. Save model.state_dict() and name that file.")
    return weights


def _network(config: RaftConfig) -> Any:
    weights = read_weights(config.checkpoint)
    try:
        from torchvision.models import optical_flow  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError) as error:  # a torchvision that was built for another torch fails with the latter
        raise UserError(
            f"track: raft needs a torchvision that fits torch ({error}). For torch 2.13: pip install "
            "torchvision==0.28.0 from the index that torch came from, or choose the tracker lucas-kanade."
        ) from None
    network = {"large": optical_flow.raft_large, "small": optical_flow.raft_small}[config.size]()
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"track: checkpoint: {config.checkpoint}: no weights of torchvision's raft_{config.size}: {error}. Set "
            "size to the other one, or name another file."
        ) from None
    return network
