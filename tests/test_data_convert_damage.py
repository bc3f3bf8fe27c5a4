"""Conversion to and from LeRobot: killed and gone on with, memory, and data sets that are damaged on the way back."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.clips import Clip, encode_image, write_shard
from data.convert.to_lerobot import to_lerobot
from data.convert.write import Limits
from pipeline.errors import UserError
from tests.convert_clips import ROOMY, Make, back, tree, uneven, write_shards

ROOT = Path(__file__).resolve().parent.parent
SMALL = Limits(40_000, 3)  # a few clips to a file
KILLED = """
import os, signal, sys
from pathlib import Path
from data.convert.from_lerobot import from_lerobot
from data.convert.stored import open_sets
from data.convert.to_lerobot import to_lerobot
from data.convert.write import Limits
way, source, out, after = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
seen = 0
def advance(clips):
    global seen
    seen += clips
    if seen >= after:
        os.kill(os.getpid(), signal.SIGKILL)
if way == "to":
    to_lerobot(sorted(source.glob("*.tar")), out, Limits(40_000, 3), advance)
else:
    from_lerobot(open_sets(source), out, advance)
"""
MEASURED = """
import sys
from pathlib import Path
from data.convert.from_lerobot import from_lerobot
from data.convert.stored import open_sets
from data.convert.to_lerobot import to_lerobot
from data.convert.write import Limits
def most_held():  # ru_maxrss would be that of pytest
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
source, folder = sorted(Path(sys.argv[1]).glob("*.tar")), Path(sys.argv[2])
to_lerobot(source, folder / "sets", Limits(8 << 20, 1000))
there = most_held()
from_lerobot(open_sets(folder / "sets"), folder / "back")
print(there, most_held())
"""


def run(script: str, *arguments: str | Path | int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )


def test_killed_and_gone_on_with_the_bytes_are_the_same(make_clip: Make, tmp_path: Path) -> None:
    clips = [make_clip(number, frames=10, labelled=number % 4 == 0) for number in range(0, 24, 2)]
    clips[3].images[2] = b"no picture"
    paths = write_shards(tmp_path / "shards", clips)
    to_lerobot(paths, tmp_path / "whole", SMALL)
    for after in (4, 9):
        killed = run(KILLED, "to", tmp_path / "shards", tmp_path / "sets", after)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        with pytest.raises(UserError, match="has not finished"):
            back(tmp_path / "sets", tmp_path / "early")
    to_lerobot(paths, tmp_path / "sets", SMALL)
    assert len(list((tmp_path / "whole").glob("*/data/*/*"))) > 4
    assert tree(tmp_path / "sets") == tree(tmp_path / "whole")

    back(tmp_path / "whole", tmp_path / "back-whole")
    killed = run(KILLED, "from", tmp_path / "whole", tmp_path / "back", 6)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list((tmp_path / "back").glob("*.tar"))) == 1 and not (tmp_path / "back/done.json").exists()
    back(tmp_path / "whole", tmp_path / "back")
    assert tree(tmp_path / "back") == tree(tmp_path / "back-whole")
    assert len(list((tmp_path / "back").glob("*.tar"))) == len(paths)


def test_a_kill_leaves_work_that_is_not_repeated(make_clip: Make, tmp_path: Path) -> None:
    paths = write_shards(tmp_path / "shards", [make_clip(number, frames=10) for number in range(0, 20, 2)])
    assert run(KILLED, "to", tmp_path / "shards", tmp_path / "sets", 8).returncode == -signal.SIGKILL
    (first,) = (tmp_path / "sets").glob("*/data/chunk-000/file-000.parquet")
    before = first.stat().st_ino
    steps: list[int] = []
    to_lerobot(paths, tmp_path / "sets", SMALL, steps.append)
    assert first.stat().st_ino == before and steps[0] > 0 and sum(steps) == 10


def test_a_file_that_lost_its_end_before_the_work_was_done_is_made_again(make_clip: Make, tmp_path: Path) -> None:
    paths = write_shards(tmp_path / "shards", [make_clip(number, frames=10) for number in range(0, 20, 2)])
    to_lerobot(paths, tmp_path / "whole", SMALL)
    run(KILLED, "to", tmp_path / "shards", tmp_path / "sets", 9)
    (first,) = (tmp_path / "sets").glob("*/data/chunk-000/file-000.parquet")
    first.write_bytes(first.read_bytes()[:-100])
    to_lerobot(paths, tmp_path / "sets", SMALL)
    assert tree(tmp_path / "sets") == tree(tmp_path / "whole")


def test_memory_does_not_grow_with_the_number_of_clips(make_clip: Make, tmp_path: Path) -> None:
    """Eight times as many clips, 55 MB more, in at most 20 MB more of memory either way."""
    noise = encode_image(np.random.default_rng(0).integers(0, 255, (240, 160, 3), dtype=np.uint8))

    def large(number: int) -> Clip:
        clip = make_clip(number, frames=20)
        clip.images[:] = [noise] * 20
        clip.arrays["intrinsics"] *= 2
        clip.arrays["intrinsics"][2, 2] = 1
        meta = clip.meta.model_copy(update={"image_size": (160, 240)})
        return Clip(clip.key, clip.arrays, clip.images, meta)

    peaks = []
    for name, count in (("few", 12), ("many", 96)):
        (tmp_path / name).mkdir()
        for start in range(0, count, 12):
            path = tmp_path / name / f"train-{start:05d}.tar"
            write_shard(path, (large(2 * number) for number in range(start, start + 12)))
        size = sum(path.stat().st_size for path in (tmp_path / name).glob("*.tar"))
        measured = run(MEASURED, tmp_path / name, tmp_path / f"{name}-out")
        assert measured.returncode == 0, measured.stderr
        peaks.append((size / 2**20, *map(float, measured.stdout.split())))
    few, many = peaks
    assert many[0] - few[0] > 55
    assert many[1] - few[1] < 20 and many[2] - few[2] < 20, peaks


def edit_json(path: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        content = json.loads((root / path).read_text())
        change(content)
        (root / path).write_text(json.dumps(content))

    return edit


def edit_table(path: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        file = root / path
        pq.write_table(change(pq.read_table(file)), file)

    return edit


def with_column(name: str, change: Callable[[list[Any]], list[Any]], kind: Any = None) -> Callable[[Any], Any]:
    """Other values in one column; kind: in another type."""

    def edit(table: Any) -> Any:
        place = table.schema.get_field_index(name)
        values = pa.array(change(table[name].to_pylist()), kind or table.schema.field(name).type)
        return table.set_column(place, name, values)

    return edit


def first(value: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [value, *values[1:]]


def truncate(path: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        (root / path).write_bytes((root / path).read_bytes()[:-200])

    return edit


def flip(root: Path) -> None:
    """Changes one byte of a stored picture."""
    file = root / DATA
    content = bytearray(file.read_bytes())
    picture = pq.read_table(file)["observation.images.camera"][0].as_py()["bytes"]
    middle = len(picture) // 2  # of noise, which no compression changes
    at = content.find(picture[middle : middle + 12])
    assert at > 0
    content[at + 6] ^= 1
    file.write_bytes(content)


DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"
INFO, NOTE = "meta/info.json", "meta/kinecloud.json"
NAN_POINT = [[float("nan")] * 3] * 24


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate(DATA), r"file-000\.parquet: not readable as parquet"),
        (truncate(EPISODES), r"file-000\.parquet: not readable as parquet"),
        (lambda root: (root / DATA).unlink(), r"missing: .*file-000\.parquet"),
        (lambda root: (root / EPISODES).unlink(), "total_episodes: 3, the lists in meta/episodes have 0"),
        (lambda root: (root / INFO).unlink(), r"missing: .*info\.json"),
        (lambda root: (root / NOTE).unlink(), "not_ours: .*only what `data convert --to lerobot` wrote"),
        (lambda root: (root / DATA).rename(root / DATA.replace("000.p", "001.p")), "missing"),
        (lambda root: (root / "data/chunk-000/file-007.parquet").write_bytes((root / DATA).read_bytes()),
         "lists no episode for this file"),
        (edit_json(INFO, lambda info: info.update(codebase_version="v9.0")), r"codebase_version: 'v9\.0'"),
        (edit_json(INFO, lambda info: info.update(codebase_version="v2.1")), r"v2\.1, expected v3\.0"),
        (edit_json(INFO, lambda info: info.update(fps=21)), "fps: 21"),
        (edit_json(INFO, lambda info: info.update(total_episodes=4)), "total_episodes: 4, .* have 3"),
        (edit_json(INFO, lambda info: info.update(data_path="../../{chunk_index}{file_index}")), "unsafe_path"),
        (edit_json(INFO, lambda info: info["features"]["points"].update(shape=[23, 3])), "points: found .*23"),
        (edit_json(INFO, lambda info: info["features"].pop("sigma")), "sigma: found nothing, expected float32"),
        (edit_json(INFO, lambda info: info["features"].update(extra={"dtype": "float32", "shape": [1], "names": None})),
         "clips have no place for 'extra'"),
        (edit_json(NOTE, lambda note: note.update(schema_version=99)), "schema_version: 99, this release reads 3"),
        (edit_json(NOTE, lambda note: note["kind"].pop("points")), "kind: not as it was written"),
        (edit_table(EPISODES, with_column("kinecloud/shard", first("../../a.tar"))), "unsafe_path: .*'../../a.tar'"),
        (edit_table(EPISODES, lambda table: table.drop_columns(["kinecloud/key"])), "no column 'kinecloud/key'"),
        (edit_table(EPISODES, with_column("kinecloud/position", first(1))), "two clips say that they were number 1"),
        (edit_table(EPISODES, with_column("kinecloud/key", lambda keys: [keys[1], *keys[1:]])), "more than once"),
        (edit_table(EPISODES, with_column("length", first(7))), "total_frames: 60, .* have 47"),
        (edit_table(DATA, lambda table: table.slice(0, 40)), r"file-000\.parquet: holds 2 episodes"),
    ],
)  # fmt: skip
def test_a_damaged_data_set_is_refused(
    make_clip: Make, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    to_lerobot(write_shards(tmp_path / "shards", [make_clip(n) for n in (0, 2, 4)]), tmp_path / "sets", ROOMY)
    (root,) = (path.parent for path in (tmp_path / "sets").glob("*/meta"))
    damage(root)
    with pytest.raises(UserError, match=message):
        back(tmp_path / "sets", tmp_path / "back")
    assert not list((tmp_path / "back").glob("*.tar"))


def test_a_missing_data_set_is_named(make_clip: Make, tmp_path: Path) -> None:
    to_lerobot(write_shards(tmp_path / "shards", [make_clip(0), make_clip(1)]), tmp_path / "sets", ROOMY)
    gone = min((tmp_path / "sets").glob("*/meta")).parent
    gone.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{gone.name}: this data set is missing"):
        back(tmp_path / "sets", tmp_path / "back")
    assert back(tmp_path / "elsewhere", tmp_path / "back").clips == 1


@pytest.mark.parametrize(
    ("damage", "reason", "detail"),
    [
        (flip, "unreadable", "could not verify page integrity|CRC"),
        (edit_table(DATA, with_column("points", first(NAN_POINT))), "violates_format", "points: 72 values"),
        (edit_table(DATA, with_column("sigma", first([-1.0, 1.0]))), "violates_format", "sigma: smallest value -1"),
        (edit_table(DATA, with_column("confidence", list, pa.float64())), "bad_dtype", "confidence: float64"),
        (edit_table(DATA, with_column("confidence", first(None))), "bad_shape", "1 values are missing"),
        (edit_table(DATA, lambda table: table.drop_columns(["opening"])), "missing", "there is no column 'opening'"),
        (edit_table(DATA, with_column("visible", lambda values: [row[:-1] for row in values], pa.list_(pa.bool_()))),
         "bad_shape", "visible: 23 values a row"),
        (edit_table(DATA, with_column("intrinsics", first([[9.0, 0, 0], [0, 9, 0], [0, 0, 1]]))),
         "not_constant", "intrinsics: changes within the episode"),
        (edit_table(DATA, with_column("frame_index", first(5))), "bad_frame_range", "frame_index: does not count"),
        (edit_table(DATA, with_column("observation.images.camera", first({"bytes": None, "path": "/etc/passwd"}))),
         "not_an_image", "a picture is not in its row"),
        (edit_table(EPISODES, with_column("kinecloud/meta", first("{}"))), "bad_meta", "meta.json: episode_id"),
        (edit_table(EPISODES, with_column("kinecloud/meta", first(None))), "bad_meta", "no text for episode 0"),
        (edit_table(EPISODES, with_column("kinecloud/key", first("a.b"))), "violates_format", "'a.b' does not match"),
    ],
)  # fmt: skip
def test_a_damaged_episode_is_left_out_and_counted(
    make_clip: Make, tmp_path: Path, damage: Callable[[Path], None], reason: str, detail: str
) -> None:
    to_lerobot(write_shards(tmp_path / "shards", [make_clip(n) for n in (0, 2, 4)]), tmp_path / "sets", ROOMY)
    (root,) = (path.parent for path in (tmp_path / "sets").glob("*/meta"))
    damage(root)
    summary = back(tmp_path / "sets", tmp_path / "back")
    rows = [json.loads(line) for line in (tmp_path / "back/rejected.jsonl").read_text().splitlines()]
    assert rows and {row["reason"] for row in rows} == {reason} and summary.rejected == {reason: len(rows)}
    assert re.search(detail, rows[0]["detail"]) and rows[0]["item"] == f"{root.name}: episode 0"
    assert summary.clips == 3 - len(rows)
    assert len(list((tmp_path / "back").glob("*.tar"))) == (summary.clips > 0), "an empty shard was published"


def test_a_picture_that_was_put_in_is_noticed_by_verify(make_clip: Make, tmp_path: Path) -> None:
    to_lerobot(write_shards(tmp_path / "shards", [uneven(make_clip(0))]), tmp_path / "sets", ROOMY)
    (root,) = (path.parent for path in (tmp_path / "sets").glob("*/meta"))
    edit_table(DATA, with_column("observation.images.camera", first({"bytes": b"no picture", "path": "0000.jpg"})))(
        root
    )
    with pytest.raises(UserError, match=r"train-00000\.tar would violate .*\n.*0000\.jpg: not a readable image"):
        back(tmp_path / "sets", tmp_path / "back")
    assert not list((tmp_path / "back").glob("*.tar*"))


def test_shards_are_not_written_into_the_data_set(make_clip: Make, tmp_path: Path) -> None:
    to_lerobot(write_shards(tmp_path / "shards", [make_clip(0)]), tmp_path / "sets", ROOMY)
    (root,) = (path.parent for path in (tmp_path / "sets").glob("*/meta"))
    with pytest.raises(UserError, match="which is read"):
        back(root, root / "data")
