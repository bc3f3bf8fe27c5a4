"""What makes a step faster or smaller without changing what is learned, each by its setting."""

from __future__ import annotations

import importlib.util
import os
import shutil

import torch
from transformers import PreTrainedModel

from pipeline.errors import UserError
from pretrain.ranks import blocks_of
from pretrain.run import TrainingRun


def accelerate_model(run: TrainingRun, model: PreTrainedModel) -> None:
    """Applies ``tf32``, ``gradient_checkpointing`` and ``compile``, in place and before the model is spread over ranks.

    Blocks are compiled where they stand (``nn.Module.compile``), so no name in the state dict changes. Only blocks:
    they are most of the time and alike, so one compilation serves all of them, and words stay outside of graphs.
    Raises UserError for what this model or machine cannot do.
    """
    settings, device = run.settings, run.accelerator.device
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if settings.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = settings.tf32  # of convolutions; torch allows it unless told
        torch.backends.cudnn.benchmark = True  # images of a run are of one size
    where = f"{run.config.path}: {run.stage}"
    if settings.gradient_checkpointing:
        try:
            model.activation_checkpointing_enable({"use_reentrant": False})
        except ValueError as error:
            raise UserError(f"{where}.gradient_checkpointing: {error} Set it to false.") from error
    if settings.compile:
        _require_compiler(device, f"{where}.compile")
        blocks = blocks_of(model)
        if not blocks:
            raise UserError(f"{where}.compile: this model names no blocks to compile; set it to false.")
        for block in blocks:
            block.compile()


def _require_compiler(device: torch.device, where: str) -> None:
    compilers = [os.environ.get("CXX") or "g++", "clang++"]
    if not any(shutil.which(name) for name in compilers):
        raise UserError(
            f"{where}: torch.compile needs a C++ compiler, and neither of {', '.join(compilers)} is on the PATH. "
            "Install one (apt-get install g++), or set it to false."
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise UserError(f"{where}: torch.compile on a GPU needs the package triton; install it, or set it to false.")
