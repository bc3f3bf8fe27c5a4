"""Speed and memory of ``data convert``: ``python -m tests.benchmarks.convert [--json FILE] [--clips 24 192]``.
Of a large catalogue, killed on the way: ``--clips 10000 30000 100000 --small --kill``.

On clips made up in the size that extraction gives them (tests/benchmarks/loader.py: 256 x 192 pixels, 40 frames, 200
points), to LeRobot and back, each in a process of its own. Time is what the processor spent on that process after its
imports, so that neighbours on the machine do not count; by the clock it is told, too. Memory is the most that was held.
Back, every shard is read a second time and verified. The shards that come back must be those of before, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.clips import write_shard
from pipeline.atomic import write_json
from tests.benchmarks.loader import made_up_clip

ROOT = Path(__file__).resolve().parents[2]
PER_SHARD = 24
SMALL: dict[str, Any] = {"frames": 8, "points": 16, "size": (64, 48)}
MEASURED = """
import json, sys, time
from pathlib import Path
from webdataset.writer import TarWriter
from data.convert.from_lerobot import from_lerobot
from data.convert.stored import open_sets
from data.convert.to_lerobot import to_lerobot
from data.convert.write import Limits
way, source, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
def most_held():  # ru_maxrss would be that of the parent, where it is larger
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
held, cpu, clock = most_held(), time.process_time(), time.perf_counter()
if way == "there":
    summary = to_lerobot(sorted(source.glob("*.tar")), out, Limits(100 << 20, 1000))
else:
    summary = from_lerobot(open_sets(source), out)
cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
peak = most_held()
print(json.dumps({
    "frames": summary.frames, "mb": summary.bytes / 1e6, "cpu_s": cpu,
    "clock_s": clock, "memory_mb": peak, "memory_above_imports_mb": peak - held,
}))
"""


def make(folder: Path, count: int, small: bool) -> list[Path]:
    """Shards of ``count`` clips, of which every fourth is the same but for its key."""
    few = [made_up_clip(number, **(SMALL if small else {})) for number in range(4)]
    folder.mkdir()
    for start in range(0, count, PER_SHARD):
        numbers = range(start, min(start + PER_SHARD, count))
        clips = (replace(few[number % 4], key=f"clip-{number:06d}") for number in numbers)
        write_shard(folder / f"train-{start // PER_SHARD:05d}.tar", clips)
    return sorted(folder.glob("*.tar"))


def measure(way: str, source: Path, out: Path, kill: bool) -> dict[str, float]:
    """kill: by SIGKILL once the first file is whole, and start again; the processor's time is that of both."""
    command = [sys.executable, "-c", MEASURED, way, str(source), str(out)]
    lost_s = 0.0
    if kill:
        running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        while running.poll() is None and not any(out.rglob("*.parquet" if way == "there" else "*.tar")):
            time.sleep(0.05)
        running.send_signal(signal.SIGKILL)
        used = os.wait4(running.pid, 0)[2]
        lost_s = used.ru_utime + used.ru_stime
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    row = json.loads(done.stdout)
    cpu_s = row.pop("cpu_s") + lost_s
    speed = {"frames_per_cpu_second": row.pop("frames") / cpu_s, "mb_per_cpu_second": row.pop("mb") / cpu_s}
    return {**speed, **row, "killed_after_cpu_s": lost_s}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--clips", type=int, nargs="+", default=[24, 192])
    parser.add_argument("--small", action="store_true", help="clips of 8 frames of 64 x 48 pixels, 16 points")
    parser.add_argument("--kill", action="store_true", help="kill each process once on its way, and start it again")
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    for count in arguments.clips:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            paths = make(folder / "shards", count, arguments.small)
            row: dict[str, Any] = {"mb": sum(path.stat().st_size for path in paths) / 1e6}
            row["there"] = measure("there", folder / "shards", folder / "sets", arguments.kill)
            row["back"] = measure("back", folder / "sets", folder / "back", arguments.kill)
            row["same_bytes"] = all((folder / "back" / path.name).read_bytes() == path.read_bytes() for path in paths)
        result[str(count)] = row
        for way in ("there", "back"):
            one = row[way]
            speed = (
                f"{one['frames_per_cpu_second']:.0f} frames, {one['mb_per_cpu_second']:.1f} MB per second of one core"
            )
            held = f"{one['memory_mb']:.0f} MB held ({one['memory_above_imports_mb']:.0f} above imports)"
            print(f"{count} clips, {row['mb']:.0f} MB, {way}: {speed}; {one['clock_s']:.1f} s by the clock; {held}")
    if arguments.json:
        write_json(arguments.json, result)
    if not all(row["same_bytes"] for row in result.values()):
        raise SystemExit("shards that came back differ from those of before")


if __name__ == "__main__":
    main()
