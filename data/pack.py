"""Packing: clips of all finished units filtered, split by group, globally shuffled, and written in equal shards."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.clips import Shard, write_samples
from data.config import PackConfig
from data.schema import SCHEMA_VERSION, ClipMeta
from pipeline.atomic import publishing_dir, write_json
from pipeline.errors import UserError
from pipeline.fingerprint import mark_done
from pipeline.units import finished_shards

SPLITS = ("train", "val")
STAGE_VERSION = 1


@dataclass(frozen=True)
class Candidate:
    """A clip that may be packed."""

    shard: Shard
    key: str
    meta: ClipMeta


def made_from(settings: PackConfig, seed: int, extract_folder: Path, episode_ids: list[str]) -> dict[str, Any]:
    """Everything that decides the packed bytes."""
    units = {sidecar["unit"]: sidecar["sha256"] for _, sidecar in finished_shards(extract_folder)}
    return {
        "stage": "pack",
        "stage_version": STAGE_VERSION,
        "schema_version": SCHEMA_VERSION,
        "seed": seed,
        "config": settings.model_dump(mode="json"),
        "units": units,
        "episodes": hashlib.sha256("\n".join(sorted(episode_ids)).encode()).hexdigest(),
    }


def pack(
    settings: PackConfig, seed: int, extract_folder: Path, episode_ids: list[str], out: Path, document: dict[str, Any]
) -> dict[str, Any]:
    """Writes ``out/train-*.tar``, ``out/val-*.tar``, ``out/summary.json`` and the completion mark; returns the summary.

    Raises UserError when no clip is left for training.
    """
    candidates, left_out = _select(settings, extract_folder, set(episode_ids))
    held_out = validation_groups([candidate.meta for candidate in candidates], settings.val_fraction, seed)
    split: dict[str, list[Candidate]] = {name: [] for name in SPLITS}
    for candidate in candidates:
        split["val" if candidate.meta.group in held_out else "train"].append(candidate)
    if not split["train"]:
        raise UserError(
            f"{extract_folder}: no clip is left for training; left out: {dict(left_out)}. "
            "Look at the rejections in the report, or relax pack.min_frames and pack.min_visible."
        )
    summary: dict[str, Any] = {"left_out": dict(sorted(left_out.items())), "splits": {}}
    with publishing_dir(out) as temporary:
        for name in SPLITS:
            summary["splits"][name] = _write_split(name, split[name], settings.clips_per_shard, seed, temporary)
        write_json(temporary / "summary.json", summary)
        mark_done(temporary, document)
    return summary


def packed(folder: Path, split: str) -> list[Path]:
    """The shards of one split, in order."""
    return sorted(folder.glob(f"{split}-*.tar"))


def validation_groups(metas: list[ClipMeta], fraction: float, seed: int) -> set[str]:
    """Groups held out: in every stratum (source, task or instruction) about ``fraction`` of them, by hash order.

    A group is never split. A stratum with a single group stays in training.
    """
    strata: dict[tuple[str, str], set[str]] = defaultdict(set)
    for meta in metas:
        strata[(meta.source, meta.task or meta.instruction)].add(meta.group)
    held_out: set[str] = set()
    for groups in strata.values():
        order = sorted(groups, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).hexdigest())
        count = min(math.ceil(fraction * len(groups)), len(groups) - 1)
        held_out |= set(order[:count])
    return held_out


def _select(settings: PackConfig, extract_folder: Path, wanted: set[str]) -> tuple[list[Candidate], Counter[str]]:
    chosen: list[Candidate] = []
    left_out: Counter[str] = Counter()
    for path, _ in finished_shards(extract_folder):
        shard = Shard(path)
        for key in shard.keys:
            meta = shard.meta(key)
            visible = shard.array(key, "visible")
            if meta.episode_id not in wanted:
                left_out["no longer in the index"] += 1
            elif len(visible) < settings.min_frames:
                left_out[f"fewer than {settings.min_frames} frames"] += 1
            elif visible.mean() < settings.min_visible:
                left_out[f"less than {settings.min_visible:g} of the points visible"] += 1
            else:
                chosen.append(Candidate(shard, key, meta))
    return chosen, left_out


def _write_split(name: str, clips: list[Candidate], per_shard: int, seed: int, folder: Path) -> dict[str, Any]:
    """Shuffles and writes one split in shards whose sizes differ by one clip at most."""
    order = np.random.default_rng([seed, SPLITS.index(name)]).permutation(len(clips))
    shards = [part for part in np.array_split(order, max(1, math.ceil(len(clips) / per_shard))) if len(part)]
    for number, part in enumerate(shards):
        samples = (clips[place].shard.raw(clips[place].key) for place in part)
        write_samples(folder / f"{name}-{number:05d}.tar", samples)
    embodiments = Counter(clip.meta.embodiment for clip in clips)
    return {
        "clips": len(clips),
        "shards": len(shards),
        "groups": len({clip.meta.group for clip in clips}),
        "frames": sum(len(clip.meta.source_frames) for clip in clips),
        "labelled": sum(clip.meta.action_spec is not None for clip in clips),
        "embodiments": dict(sorted(embodiments.items())),
    }
