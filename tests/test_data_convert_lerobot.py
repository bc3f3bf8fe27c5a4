"""What ``data convert`` writes is opened by lerobot itself, and every item of every data set is what the clip holds."""

from __future__ import annotations

import io
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.clips import Clip, Shard, decode_image
from data.convert.to_lerobot import to_lerobot
from data.convert.write import Limits
from tests.convert_clips import Make, assorted, write_shards

ROOT = Path(__file__).resolve().parent.parent
LEROBOT = "KINECLOUD_LEROBOT"


def known(clips: list[Clip]) -> dict[str, Any]:
    """What lerobot should find, as tests/lerobot_reads.py takes it."""
    found: dict[str, Any] = {}
    for clip in clips:
        found |= {f"{clip.key}/{name}": array for name, array in clip.arrays.items()}
        found[f"{clip.key}/instruction"] = np.array(clip.meta.instruction)
        for name in ("images", "scenes"):
            if contents := getattr(clip, name):
                found[f"{clip.key}/{name}"] = np.stack([decode_image(content) for content in contents])
        if clip.depths:
            opened = [np.asarray(Image.open(io.BytesIO(content))) for content in clip.depths]
            found[f"{clip.key}/depths"] = np.stack(opened).astype(np.float32)
    return found


def test_lerobot_reads_every_item_as_the_clip_holds_it(make_clip: Make, tmp_path: Path) -> None:
    """KINECLOUD_LEROBOT names a Python that lerobot is installed for."""
    python = os.environ.get(LEROBOT)
    if not python:
        pytest.skip(f"{LEROBOT} names no Python that lerobot is installed for")
    clips = assorted(make_clip)
    paths = write_shards(tmp_path / "shards", clips)
    to_lerobot(paths, tmp_path / "sets", Limits(30_000, 2))

    def read(expected: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        np.savez(tmp_path / "clips.npz", **expected)
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
        script = ROOT / "tests" / "lerobot_reads.py"
        return subprocess.run(
            [python, script, tmp_path / "sets", tmp_path / "clips.npz"], env=environment, capture_output=True, text=True
        )

    wanted = known([clip for path in paths for clip in Shard(path).clips()])
    done = read(wanted)
    assert done.returncode == 0, done.stderr
    told = re.search(r"(\d+) data sets, (\d+) episodes, (\d+) items, (\d+) values", done.stdout)
    assert told is not None, done.stdout
    sets, episodes, items, values = map(int, told.groups())
    assert (episodes, items) == (len(clips), sum(clip.frames for clip in clips)) and sets > 5
    fields = sum(clip.frames * (len(clip.arrays) + 1 + bool(clip.scenes) + bool(clip.depths)) for clip in clips)
    assert values == fields

    name = next(name for name in wanted if name.endswith("/points"))
    wanted[name] = wanted[name] + np.float32(1e-3)
    other = read(wanted)
    assert other.returncode != 0 and "AssertionError" in other.stderr, "the comparison finds no difference"
