"""Trained networks from the Hugging Face hub or a folder: found, checked, loaded. Safetensors only, no pickle."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline.config import Settings
from pipeline.errors import UserError
from pipeline.weights import Checkpoint, find_weights, load_network

if TYPE_CHECKING:
    import torch


class ModelSettings(Settings):
    """Where a network's weights come from and where it runs."""

    checkpoint: str = Field(
        description="Folder with config.json and model.safetensors, or an id on the hub (owner/name)."
    )
    revision: str | None = Field(
        default=None, description="Commit, tag or branch on the hub; null = main. Name a commit to pin the weights."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto = cuda where there is one.")
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="bfloat16 halves the memory on a GPU; results differ slightly."
    )


def find_checkpoint(settings: ModelSettings) -> Checkpoint:
    """The checkpoint that the settings name, downloaded once into the hub's cache if it is not a folder.

    Raises UserError when it is neither there nor to be had, or has no safetensors weights.
    """
    return find_weights(settings.checkpoint, f"{getattr(settings, 'name', 'model')}: checkpoint", settings.revision)


def load_model(model_class: Any, checkpoint: Checkpoint, settings: ModelSettings) -> Any:
    """A transformers model of ``model_class`` with the checkpoint's weights, in evaluation mode, on its device.

    Every parameter must be in the file: a network that is partly random would look like one that works.
    Raises UserError for another kind of model, missing or broken weights, or a device that is not there.
    """
    field = f"{getattr(settings, 'name', 'model')}: checkpoint"
    device = device_of(settings.device)
    found, wanted = checkpoint.model_type, model_class.config_class.model_type
    if found != wanted:
        raise UserError(
            f"{field}: {checkpoint.folder / 'config.json'}: model_type is {found!r}, this step needs {wanted!r}. "
            "Name a checkpoint of that kind."
        )
    return load_network(model_class, checkpoint, field, settings.dtype).to(device)


@contextlib.contextmanager
def exact_inference() -> Iterator[None]:
    """No gradients, and the same result in every process: one CPU thread, deterministic kernels, no TF32 rounding.

    Threads split sums differently and change their last bits; extraction runs one worker per core instead.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            yield
    finally:
        torch.set_num_threads(threads)


def device_of(wanted: str, where: str = "device") -> torch.device:
    """Where this process computes; processes are dealt out to the GPUs there are. Raises UserError naming ``where``."""
    import torch

    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise UserError(f"{where}: cuda was asked for, but torch finds no GPU here. Set device to auto or cpu.")
    if wanted == "cpu" or not there:
        return torch.device("cpu")
    return torch.device("cuda", os.getpid() % torch.cuda.device_count())
