"""Index of a large catalogue: ``python -m tests.benchmarks.catalogue [--episodes 1000 100000] [--json FILE]``.

A made-up LeRobot v3.0 data set, as many episodes in a file as lerobot's own writer puts there, is indexed by a process
of its own, which is killed (SIGKILL) on the way and started again. Time is what the processor spent on the run that
ends, so that neighbours on the machine do not count; by the clock it is told, too. Memory is the most that was held.
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
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.index import EPISODES
from pipeline.atomic import write_json
from tests import source_files as made

ROOT = Path(__file__).resolve().parents[2]
PER_FILE = 1000
MEASURED = """
import json, sys, time
from pathlib import Path
from data.config import IndexConfig
from data.scan.build import build_index
import data.sources.lerobot
def most_held():  # ru_maxrss would be that of the parent, where it is larger
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
config = IndexConfig.model_validate({"sources": [{
    "name": "catalogue", "kind": "data_set", "path": sys.argv[1], "effector": "gripper", "cameras": [sys.argv[3]],
    "actions": {"unit": "m", "frame": "base", "mode": "delta"},
}]})
held, cpu, clock = most_held(), time.process_time(), time.perf_counter()
found = build_index(config, Path(sys.argv[2]), Path())
cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
print(json.dumps({
    "episodes": found.episodes, "rejected": found.rejected.total(), "clock_s": clock,
    "episodes_per_cpu_second": found.episodes / cpu, "memory_above_imports_mb": most_held() - held,
}))
"""


def make(root: Path, episodes: int) -> None:
    """Files of PER_FILE episodes, a row group for each; one video stands for all of them by links."""
    made.write_json(root / "meta/info.json", made.info("v3.0", episodes))
    made.write_table(root / "meta/tasks.parquet", {"task_index": [0, 1], "__index_level_0__": ["task 0", "task 1"]})
    film = root / "film.mp4"
    made.video(film, [number % 200 for number in range(PER_FILE * made.FRAMES)], size=(32, 24))
    for file, first in enumerate(range(0, episodes, PER_FILE)):
        numbers = range(first, min(first + PER_FILE, episodes))
        places = made.places_30(len(numbers))
        for name in ("dataset_from_index", "dataset_to_index"):
            places[name] = [value + first * made.FRAMES for value in places[name]]
        places |= {"episode_index": list(numbers)}
        places |= {name: [file] * len(numbers) for name in places if name.endswith("/file_index")}
        made.write_table(root / f"meta/episodes/chunk-000/file-{file:03d}.parquet", places)
        link = root / f"videos/{made.FRONT}/chunk-000/file-{file:03d}.mp4"
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(film, link)
        path = root / f"data/chunk-000/file-{file:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        tables = (pa.table(made.rows(number, number * made.FRAMES)) for number in numbers)
        start = next(tables)
        with pq.ParquetWriter(path, start.schema) as writer:
            writer.write_table(start)
            for table in tables:
                writer.write_table(table)


def measure(root: Path, out: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", MEASURED, str(root), str(out), made.FRONT]
    began = time.monotonic()
    killed = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while killed.poll() is None and not (out / "hashes.jsonl").exists():
        time.sleep(0.05)
    time.sleep(1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    row: dict[str, Any] = {"killed_after_s": time.monotonic() - began, "whole_after_kill": (out / EPISODES).exists()}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return row | json.loads(done.stdout) | {"index_mb": (out / EPISODES).stat().st_size / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--episodes", type=int, nargs="+", default=[1000, 100_000])
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    for count in arguments.episodes:
        with tempfile.TemporaryDirectory() as name:
            make(Path(name) / "set", count)
            result[str(count)] = measure(Path(name) / "set", Path(name) / "index")
        print(count, json.dumps(result[str(count)]), flush=True)
    if arguments.json:
        write_json(arguments.json, result)


if __name__ == "__main__":
    main()
