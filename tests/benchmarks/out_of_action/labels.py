"""The rule of the benchmark, checked on the very clips that are learnt from: no action of a video-only task is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from data.archive import all_files
from data.clips import Shard
from data.schema import FIELDS
from pipeline.errors import UserError

_FILES = {f"{spec.name}.npy" for spec in FIELDS if spec.labelled_only}


def check_labels(shards: Iterable[Path], allowed: Mapping[str, int]) -> dict[str, int]:
    """Number of labelled episodes by task.

    allowed: the most by task; a task that is not there may have none. A clip counts as labelled when it holds actions
    or proprioception, or says what they mean. Raises UserError naming shard, clip and task of one too many.
    """
    episodes: dict[str, set[str]] = defaultdict(set)
    for path in shards:
        with_arrays = {file.key for file in all_files(path)[0] if file.field in _FILES}
        shard = Shard(path)
        for key in shard.keys:
            meta = shard.meta(key)
            if meta.action_spec is None and key not in with_arrays:
                continue
            task = meta.task or ""
            episodes[task].add(meta.episode_id)
            if len(episodes[task]) > allowed.get(task, 0):
                raise UserError(
                    f"{path}: clip {key}: an action of '{task}' could be read: {len(episodes[task])} labelled "
                    f"episodes, {allowed.get(task, 0)} are allowed. Remove the folder of these shards and run again."
                )
    return {task: len(found) for task, found in sorted(episodes.items())}
