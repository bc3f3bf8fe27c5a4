"""Which shards a run trains and evaluates on, and what a result is made from. Needs neither torch nor transformers."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from data.pack import packed
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.fingerprint import file_sha256, is_done, read_done, require_done
from pretrain.config import STAGE_VERSION, PretrainConfig, TrainingSettings
from pretrain.sources import pretrained_sha256


def shards_of(config: Config, settings: TrainingSettings, split: str, stage: str) -> list[Path]:
    """The shards of ``train`` or ``val``: as configured, else those that the run has packed.

    Raises UserError when a file is missing, when packing has not finished, or when there is nothing to train on.
    """
    named = settings.train_shards if split == "train" else settings.val_shards
    if named is None:
        pack = config.folder("pack")
        require_done(pack, "pack")
        shards = packed(pack, split)
    else:
        shards = list(named)
        for number, path in enumerate(shards):
            if not path.is_file():
                raise UserError(f"{config.path}: {stage}.{split}_shards[{number}]: {path} is not a file.")
    if split == "train" and not shards:
        raise UserError(f"{config.folder('pack')}: no training shards. Look at the report of the stages before.")
    return shards


def identities(shards: list[Path]) -> dict[str, str]:
    """SHA-256 by file name, from the sidecar JSON where the shard has one, else computed. Of files of the same name, as
    those of two packs have, the second is told as ``NAME (2)``."""
    found: dict[str, str] = {}
    met: Counter[str] = Counter()
    for path in shards:
        met[path.name] += 1
        name = path.name if met[path.name] == 1 else f"{path.name} ({met[path.name]})"
        found[name] = _recorded(path) or file_sha256(path)
    return found


def _recorded(shard: Path) -> str | None:
    sidecar = shard.with_suffix(".json")
    if not sidecar.exists():
        return None
    return json.loads(sidecar.read_text()).get("sha256")


def made_from(config: Config, settings: PretrainConfig) -> dict[str, Any]:
    """Everything that decides the result of pretraining, one JSON document."""
    pretrained = pretrained_sha256(settings.model)
    more = {"pretrained_sha256": pretrained} if pretrained else {}
    return training_identity(config, "pretrain", STAGE_VERSION, settings, **more)


def training_identity(
    config: Config, stage: str, stage_version: int, settings: TrainingSettings, **more: Any
) -> dict[str, Any]:
    """Everything that decides the result of training: settings, seed, data, and the number of ranks, which share out
    the batches. more: what else a stage starts from. One JSON document."""
    document = {
        "stage": stage,
        "stage_version": stage_version,
        "settings": settings.identity(),
        "seed": config.run.seed,
        "ranks": int(os.environ.get("WORLD_SIZE") or 1),
        "train_shards": identities(shards_of(config, settings, "train", stage)),
        "val_shards": identities(shards_of(config, settings, "val", stage)),
        **more,
    }
    return json.loads(json.dumps(document))


_SHARES = ("batch_size", "gradient_accumulation")


def shared_out(made_from: dict[str, Any]) -> dict[str, Any]:
    """The part of a training identity that says how the windows of a step are shared out: ranks and batches."""
    return {"ranks": made_from["ranks"], **{name: made_from["settings"][name] for name in _SHARES}}


def without_shared_out(made_from: dict[str, Any]) -> dict[str, Any]:
    """The rest of a training identity."""
    settings = {name: value for name, value in made_from["settings"].items() if name not in _SHARES}
    return {name: value for name, value in made_from.items() if name != "ranks"} | {"settings": settings}


def is_trained(folder: Path, made_from: dict[str, Any]) -> bool:
    """Whether a training is finished. On how many ranks it ran does not matter to those who find it finished.

    Raises Refused when it was made from something else.
    """
    mark = read_done(folder)
    stored = made_from if mark is None else mark["made_from"]
    return is_done(folder, made_from | {"ranks": stored.get("ranks", made_from["ranks"])})
