"""The published networks that a predictor starts from: where they are, and which bytes they are.

Needs neither torch nor transformers.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from pipeline.weights import Checkpoint, find_weights
from pretrain.config import FROM_SCRATCH, ModelSettings


def sources(settings: ModelSettings) -> dict[str, str]:
    """Part (vision, text, context) -> folder or hub id, of every network that is not made from scratch."""
    if settings.family == "full":
        return {"context": str(settings.context)}
    named = {"vision": settings.vision, "text": settings.text}
    return {part: source for part, source in named.items() if source != FROM_SCRATCH[part]}


def locate(source: str, part: str) -> Checkpoint:
    """The checkpoint that ``pretrain.model.<part>`` names; a hub id may end with @revision. Raises UserError."""
    name, _, revision = source.partition("@")
    if Path(source).expanduser().is_dir():
        name, revision = source, ""
    return find_weights(name, f"pretrain.model.{part}", revision or None)


def pretrained_sha256(settings: ModelSettings) -> dict[str, Any]:
    """By part, the SHA-256 of every weight file used; empty when everything is made from scratch. Raises UserError."""
    found = {part: locate(source, part) for part, source in sources(settings).items()}
    return {part: _sha256(checkpoint, _state(checkpoint)) for part, checkpoint in found.items()}


def _state(checkpoint: Checkpoint) -> tuple[tuple[int, int], ...]:
    states = [path.stat() for path in checkpoint.weights]
    return tuple((state.st_size, state.st_mtime_ns) for state in states)


@cache  # asked several times at a start, and a context is 12 GB
def _sha256(checkpoint: Checkpoint, state: tuple[tuple[int, int], ...]) -> dict[str, str]:
    return checkpoint.sha256
