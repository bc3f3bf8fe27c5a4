"""The labelled clips of a run: what their actions mean, and the statistics that the policy stores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.clips import Shard
from data.schema import ActionSpec, ClipMeta
from pipeline.errors import UserError

QUANTILES = (0.01, 0.99)
_RATE_TOLERANCE = 0.02


@dataclass(frozen=True)
class LabelledSet:
    """All labelled training clips together.

    quantiles: 1 % and 99 % of each dimension, f64 [2,A] and [2,Q]. mean_action_A: over all frames.
    task_mean_actions: the same by task, [A] each. metas: of the clips, in order. only_seen: tasks of clips without
    labels alone.
    """

    spec: ActionSpec
    action_quantiles: np.ndarray
    proprio_quantiles: np.ndarray
    mean_action_A: np.ndarray
    task_mean_actions: dict[str, np.ndarray]
    metas: tuple[ClipMeta, ...]
    only_seen: frozenset[str]
    frames: int

    def summary(self) -> dict[str, Any]:
        """What was labelled, as JSON values."""
        return {
            "clips": len(self.metas),
            "frames": self.frames,
            "groups": len({meta.group for meta in self.metas}),
            "tasks": sorted({task_of(meta) for meta in self.metas}),
            "instructions": sorted({meta.instruction for meta in self.metas}),
            "embodiments": sorted({meta.embodiment for meta in self.metas}),
            "extractor": self.metas[0].extractor,
            "simulated": all(meta.simulated for meta in self.metas),
            "mean_action": self.mean_action_A.tolist(),
            "task_mean_actions": {task: mean.tolist() for task, mean in self.task_mean_actions.items()},
        }


def task_of(meta: ClipMeta) -> str:
    """Its short name, or in words where the source has none."""
    return meta.task or meta.instruction


def labelled_set(shards: list[Path]) -> LabelledSet:
    """Reads the labels of all shards.

    Raises UserError when there are none, when clips disagree on what actions are, or when frames and actions do not
    have the same rate (one action is executed from a frame until the next).
    """
    actions: list[np.ndarray] = []
    proprio: list[np.ndarray] = []
    by_task: dict[str, list[np.ndarray]] = {}
    metas: list[ClipMeta] = []
    seen: set[str] = set()
    for where, shard, key, meta in _clips(shards):
        if meta.action_spec is None:
            seen.add(task_of(meta))
            continue
        first = metas[0].action_spec if metas else meta.action_spec
        if meta.action_spec != first:
            raise UserError(
                f"{where}: meta.action_spec differs from that of the labelled clips before it: {meta.action_spec} v "
                f"{first}. One policy has one action space: label one kind per run."
            )
        _require_rate(where, shard.array(key, "timestamps"), meta.action_spec.rate_hz)
        actions.append(shard.array(key, "actions"))
        proprio.append(shard.array(key, "proprio"))
        by_task.setdefault(task_of(meta), []).append(actions[-1])
        metas.append(meta)
    if not metas:
        raise UserError(
            f"{shards[0].parent if shards else 'no shards'}: no training clip is labelled, so there is nothing to "
            "align with. A sidecar with `labelled: true` and arrays `actions`, `proprio` makes an episode labelled."
        )
    everything = np.concatenate(actions).astype(np.float64)
    assert metas[0].action_spec is not None
    return LabelledSet(
        spec=metas[0].action_spec,
        action_quantiles=np.quantile(everything, QUANTILES, axis=0),
        proprio_quantiles=np.quantile(np.concatenate(proprio).astype(np.float64), QUANTILES, axis=0),
        mean_action_A=everything.mean(0),
        task_mean_actions={task: np.concatenate(rows).mean(0, np.float64) for task, rows in sorted(by_task.items())},
        metas=tuple(metas),
        only_seen=frozenset(seen - by_task.keys()),
        frames=len(everything),
    )


def _clips(shards: list[Path]) -> Iterator[tuple[str, Shard, str, ClipMeta]]:
    for path in shards:
        shard = Shard(path)
        for key in shard.keys:
            yield f"{path}: clip {key}", shard, key, shard.meta(key)


def _require_rate(where: str, timestamps: np.ndarray, rate_hz: float) -> None:
    found = 1 / float(np.median(np.diff(timestamps)))
    if abs(found / rate_hz - 1) > _RATE_TOLERANCE:
        raise UserError(
            f"{where}: frames come at {found:.2f} Hz, but actions at {rate_hz:g} Hz (meta.action_spec.rate_hz). "
            f"Extract with extract.rate_hz={rate_hz:g}."
        )
