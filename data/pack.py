"""Packing: clips of all finished units filtered, split by group, globally shuffled, and written in equal shards."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np

from data.archive import File
from data.clips import parse_array, parse_meta, write_samples
from data.config import PackConfig
from data.rows import OpenShards
from data.schema import SCHEMA_VERSION
from data.split import validation_groups
from pipeline.atomic import publishing_dir, write_json
from pipeline.errors import UserError
from pipeline.fingerprint import mark_done
from pipeline.units import finished_shards

SPLITS = ("train", "val")
STAGE_VERSION = 1


@dataclass(frozen=True, slots=True)
class Candidate:
    """A clip that may be packed: where it lies, and what decides where it goes and is counted.

    Some 300 bytes, as there may be millions. shard: number of its shard. header: offset of its first file there.
    """

    shard: int
    header: int
    source: str
    task: str
    instruction: str
    group: str
    embodiment: str
    frames: int
    labelled: bool


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
    shards = OpenShards([path for path, _ in finished_shards(extract_folder)])
    candidates, left_out = select(settings, shards, set(episode_ids))
    held_out = validation_groups(candidates, settings.val_fraction, seed)
    split: dict[str, list[Candidate]] = {name: [] for name in SPLITS}
    for candidate in candidates:
        split["val" if candidate.group in held_out else "train"].append(candidate)
    if not split["train"]:
        raise UserError(
            f"{extract_folder}: no clip is left for training; left out: {dict(left_out)}. "
            "Look at the rejections in the report, or relax pack.min_frames and pack.min_visible."
        )
    summary: dict[str, Any] = {"left_out": dict(sorted(left_out.items())), "splits": {}}
    with publishing_dir(out) as temporary:
        for name in SPLITS:
            summary["splits"][name] = _write_split(name, shards, split[name], settings.clips_per_shard, seed, temporary)
        write_json(temporary / "summary.json", summary)
        mark_done(temporary, document)
    return summary


def packed(folder: Path, split: str) -> list[Path]:
    """The shards of one split, in order."""
    return sorted(folder.glob(f"{split}-*.tar"))


def select(settings: PackConfig, shards: OpenShards, wanted: set[str]) -> tuple[list[Candidate], Counter[str]]:
    """Clips that may be packed, in order, and how many may not, by reason. wanted: episodes."""
    chosen: list[Candidate] = []
    left_out: Counter[str] = Counter()
    for number, path in enumerate(shards.paths):
        for key, files in shards.clips(number):
            meta = parse_meta(_content(shards, number, key, files, "meta.json"), path, key)
            visible = parse_array(_content(shards, number, key, files, "visible.npy"), path, key, "visible")
            if meta.episode_id not in wanted:
                left_out["no longer in the index"] += 1
            elif len(visible) < settings.min_frames:
                left_out[f"fewer than {settings.min_frames} frames"] += 1
            elif visible.mean() < settings.min_visible:
                left_out[f"less than {settings.min_visible:g} of the points visible"] += 1
            else:
                chosen.append(
                    Candidate(
                        shard=number,
                        header=files[0].header,
                        source=intern(meta.source),
                        task=intern(meta.task or ""),
                        instruction=intern(meta.instruction),
                        group=intern(meta.group),
                        embodiment=intern(meta.embodiment),
                        frames=len(meta.source_frames),
                        labelled=meta.action_spec is not None,
                    )
                )
    return chosen, left_out


def _content(shards: OpenShards, shard: int, key: str, files: list[File], name: str) -> bytes:
    file = next((file for file in files if file.field == name), None)
    if file is None:
        raise UserError(f"{shards.paths[shard]}: clip {key} has no {name}.")
    return shards.read(shard, file.content, file.length)


def _sample(shards: OpenShards, clip: Candidate) -> dict[str, bytes | str]:
    """The clip's files as they are."""
    key, files = shards.files(clip.shard, clip.header)
    contents = {file.field: shards.read(clip.shard, file.content, file.length) for file in files}
    return {"__key__": key, **contents}


def _write_split(
    name: str, shards: OpenShards, clips: list[Candidate], per_shard: int, seed: int, folder: Path
) -> dict[str, Any]:
    """Shuffles and writes one split in shards whose sizes differ by one clip at most."""
    order = np.random.default_rng([seed, SPLITS.index(name)]).permutation(len(clips))
    parts = [part for part in np.array_split(order, max(1, math.ceil(len(clips) / per_shard))) if len(part)]
    for number, part in enumerate(parts):
        write_samples(folder / f"{name}-{number:05d}.tar", (_sample(shards, clips[place]) for place in part))
    embodiments = Counter(clip.embodiment for clip in clips)
    return {
        "clips": len(clips),
        "shards": len(parts),
        "groups": len({clip.group for clip in clips}),
        "frames": sum(clip.frames for clip in clips),
        "labelled": sum(clip.labelled for clip in clips),
        "embodiments": dict(sorted(embodiments.items())),
    }
