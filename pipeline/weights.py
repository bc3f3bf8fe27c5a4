"""Trained networks on the Hugging Face hub or in a folder: found, hashed, loaded whole. Safetensors only, no pickle.

Importing this needs neither torch nor transformers, so that a stage can tell what it is made from before it starts.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.fingerprint import file_sha256

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
NEEDED = ["*.json", "*.txt", "model*.safetensors"]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine. weights: its safetensors files."""

    folder: Path
    weights: tuple[Path, ...]

    @cached_property
    def sha256(self) -> dict[str, str]:
        """By ``model type/file``, of every weight file: the same on every machine, wherever the folder lies."""
        return {f"{self.model_type}/{path.name}": file_sha256(path) for path in self.weights}

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json."""
        return read_object(self.folder / "config.json")

    @property
    def model_type(self) -> str:
        """The architecture that config.json names."""
        return str(self.config.get("model_type"))

    def image_processing(self) -> dict[str, Any]:
        """How its pictures are to be prepared (image_mean, image_std, size ...); empty when it does not say."""
        for name, inside in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
            path = self.folder / name
            if path.exists():
                return read_object(path).get(inside, {}) if inside else read_object(path)
        return {}


def find_weights(source: str, field: str, revision: str | None = None) -> Checkpoint:
    """The checkpoint in a folder or of an id on the hub (owner/name), downloaded once into the hub's cache.

    field: the setting that names it, for messages. revision: commit, tag or branch on the hub.
    Raises UserError when it is neither there nor to be had, or has no safetensors weights.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if not HUB_ID.fullmatch(source):
            raise UserError(
                f"{field}: {source} is neither a folder nor an id on the hub (owner/name). Name a folder with "
                f"config.json and {WEIGHTS}."
            )
        folder = _downloaded(source, revision, field)
    if not (folder / "config.json").exists():
        raise UserError(f"{field}: {folder} has no config.json. Name a folder written by save_pretrained.")
    return Checkpoint(folder, _weight_files(folder, field))


def load_network(
    model_class: Any,
    checkpoint: Checkpoint,
    field: str,
    dtype: str = "float32",
    config: Any = None,
    may_lack: str = "(?!)",
    may_hold: str = ".*",
) -> Any:
    """A transformers model of ``model_class`` with the checkpoint's weights, in evaluation mode, on the CPU.

    Every parameter must be in the file, but for names that match ``may_lack``: a network that is partly random would
    look like one that works. Everything in the file must be a parameter, but for names that match ``may_hold``.
    field: the setting that named it, for messages. Raises UserError.
    """
    import torch
    from safetensors import SafetensorError

    options = {} if config is None else {"config": config}
    try:
        with _quiet():
            model, report = model_class.from_pretrained(
                checkpoint.folder,
                local_files_only=True,
                use_safetensors=True,
                dtype=getattr(torch, dtype),
                output_loading_info=True,
                **options,
            )
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{field}: {checkpoint.folder} cannot be loaded as {model_class.__name__}: {error}. "
            "Download it again, or name another."
        ) from None
    lacking = [name for name in sorted(report["missing_keys"]) if not re.search(may_lack, name)]
    lacking += sorted(str(key) for key in report["mismatched_keys"])
    if lacking:
        raise UserError(
            f"{field}: {checkpoint.folder}: {len(lacking)} parameters of {model_class.__name__} are not in its "
            f"weights or have another shape (first: {lacking[0]}). Name a checkpoint of this very architecture."
        )
    added = [name for name in sorted(report["unexpected_keys"]) if not re.search(may_hold, name)]
    if added:
        raise UserError(
            f"{field}: {checkpoint.folder}: {len(added)} tensors in its weights are no parameters of "
            f"{model_class.__name__} (first: {added[0]}). Name a checkpoint of this very architecture."
        )
    return model.eval()


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


def _downloaded(source: str, revision: str | None, field: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=NEEDED))
    except Exception as error:  # the hub, the proxy, the network, the disk: whatever it is, the remedy is the same
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"{field}: {source} (revision {revision or 'main'}) is not in the hub's cache and could not be "
            f"downloaded ({type(error).__name__}: {reason}). On a connected machine run `hf download {source}"
            f"{' --revision ' + revision if revision else ''} --local-dir FOLDER`, copy FOLDER here and name its "
            "path instead."
        ) from None


def _weight_files(folder: Path, field: str) -> tuple[Path, ...]:
    index = folder / INDEX
    if index.exists():
        files = tuple(folder / name for name in sorted(set(read_object(index).get("weight_map", {}).values())))
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


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint. Raises UserError when it is none."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"checkpoint: {path} cannot be read as JSON ({error}). Download the folder again.") from None
    if not isinstance(content, dict):
        raise UserError(f"checkpoint: {path} holds {type(content).__name__}, not an object. Download the folder again.")
    return content
