"""Trained networks from the Hugging Face hub or a folder: found, checked, loaded. Safetensors only, no pickle."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline.config import Settings
from pipeline.errors import UserError

if TYPE_CHECKING:
    import torch

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
NEEDED = ["*.json", "*.txt", "model*.safetensors"]


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


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine. weights: its safetensors files."""

    folder: Path
    weights: tuple[Path, ...]

    @cached_property
    def sha256(self) -> dict[str, str]:
        """By ``model type/file``, of every weight file: the same on every machine, wherever the folder lies."""
        return {f"{self.model_type}/{path.name}": _sha256(path) for path in self.weights}

    @property
    def model_type(self) -> str:
        """The architecture that config.json names."""
        return str(_json(self.folder / "config.json").get("model_type"))

    def image_processing(self) -> dict[str, Any]:
        """How its pictures are to be prepared (image_mean, image_std, size ...); empty when it does not say."""
        for name, inside in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
            path = self.folder / name
            if path.exists():
                return _json(path).get(inside, {}) if inside else _json(path)
        return {}


def find_checkpoint(settings: ModelSettings) -> Checkpoint:
    """The checkpoint that the settings name, downloaded once into the hub's cache if it is not a folder.

    Raises UserError when it is neither there nor to be had, or has no safetensors weights.
    """
    source, field = settings.checkpoint, f"{getattr(settings, 'name', 'model')}: checkpoint"
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if not HUB_ID.fullmatch(source):
            raise UserError(
                f"{field}: {source} is neither a folder nor an id on the hub (owner/name). Name a folder with "
                f"config.json and {WEIGHTS}."
            )
        folder = _downloaded(source, settings.revision, field)
    if not (folder / "config.json").exists():
        raise UserError(f"{field}: {folder} has no config.json. Name a folder written by save_pretrained.")
    return Checkpoint(folder, _weight_files(folder, field))


def load_model(model_class: Any, checkpoint: Checkpoint, settings: ModelSettings) -> Any:
    """A transformers model of ``model_class`` with the checkpoint's weights, in evaluation mode, on its device.

    Every parameter must be in the file: a network that is partly random would look like one that works.
    Raises UserError for another kind of model, missing or broken weights, or a device that is not there.
    """
    import torch
    from safetensors import SafetensorError

    field = f"{getattr(settings, 'name', 'model')}: checkpoint"
    device = _device(settings.device)
    found, wanted = checkpoint.model_type, model_class.config_class.model_type
    if found != wanted:
        raise UserError(
            f"{field}: {checkpoint.folder / 'config.json'}: model_type is {found!r}, this step needs {wanted!r}. "
            "Name a checkpoint of that kind."
        )
    try:
        with _quiet():
            model, report = model_class.from_pretrained(
                checkpoint.folder,
                local_files_only=True,
                use_safetensors=True,
                dtype=getattr(torch, settings.dtype),
                output_loading_info=True,
            )
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{field}: {checkpoint.folder} cannot be loaded as {model_class.__name__}: {error}. "
            "Download it again, or name another."
        ) from None
    lacking = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if lacking:
        raise UserError(
            f"{field}: {checkpoint.folder}: {len(lacking)} parameters of {model_class.__name__} are not in its "
            f"weights or have another shape (first: {lacking[0]}). Name a checkpoint of this very architecture."
        )
    return model.eval().to(device)


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


def _downloaded(source: str, revision: str | None, field: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=NEEDED))
    except Exception as error:  # the hub, the proxy, the network, the disk: whatever it is, the remedy is the same
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"{field}: {source} (revision {revision or 'main'}) is not in the hub's cache and could not be "
            f"downloaded ({type(error).__name__}: {reason}). On a connected machine run `hf download {source}"
            f"{' --revision ' + revision if revision else ''} --local-dir FOLDER`, copy FOLDER here and set "
            "checkpoint to its path."
        ) from None


def _weight_files(folder: Path, field: str) -> tuple[Path, ...]:
    index = folder / INDEX
    if index.exists():
        files = tuple(folder / name for name in sorted(set(_json(index).get("weight_map", {}).values())))
        absent = [path.name for path in files if not path.exists()]
        if absent:
            raise UserError(f"{field}: {index} names {absent[0]}, which is not there. Download the folder again.")
        return files
    if (folder / WEIGHTS).exists():
        return (folder / WEIGHTS,)
    others = sorted(path.name for path in folder.iterdir() if path.suffix in {".bin", ".pt", ".pth", ".ckpt"})
    raise UserError(
        f"{field}: {folder} has no {WEIGHTS}"
        + (f", only {', '.join(others)}. Pickled weights can run code and are never read: " if others else ". ")
        + "convert it with save_pretrained, or name a revision that has safetensors."
    )


def _device(wanted: str) -> torch.device:
    import torch

    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise UserError("device: cuda was asked for, but torch finds none here. Set device to auto or cpu.")
    return torch.device("cuda" if there and wanted != "cpu" else "cpu")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers' progress bars and load report off the terminal; the caller checks what matters in it."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"checkpoint: {path} cannot be read as JSON ({error}). Download the folder again.") from None
    if not isinstance(content, dict):
        raise UserError(f"checkpoint: {path} holds {type(content).__name__}, not an object. Download the folder again.")
    return content


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
