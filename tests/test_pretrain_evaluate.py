"""The evaluation reads what it says it reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from data.clips import Clip, write_shard
from data.config import WindowConfig
from data.loader import WindowDataset
from pretrain.evaluate import clip_windows


def test_clip_windows_cover_everything_once_and_never_mix_clips(make_clip: Callable[..., Clip], tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [make_clip(number, frames=12 + 20 * number) for number in range(3)])
    dataset = WindowDataset([tmp_path / "a.tar"], WindowConfig(points=16, image_size=64), all_points=True)
    read = []
    for clip, batch in clip_windows(dataset, stride=1):
        assert set(batch["key"]) == {clip.key}
        read += [(key, time) for key, time in zip(batch["key"], batch["time"].tolist(), strict=True)]
    assert len(read) == len(set(read)) == len(dataset)
