"""Throughput and memory of extraction: ``python -m tests.benchmarks.extract [--json FILE] [--hour]``.

The whole extract stage (decode, detection, identity, fit, quality, clips, shards on disk) against a bare loop that only
decodes the same frames and runs MediaPipe's HandLandmarker on them: same videos, same number of processes, both timed
from the first process to the last result, in turn, several times in one run. Real footage where KINECLOUD_FOOTAGE names
it, else rendered hands.

``--hour`` extracts one video of an hour and tells how much memory the worker holds on its way.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil

from data.config import IndexConfig
from data.index import Episode, read_index
from data.scan.build import build_index
from extract.run import run_extract
from pipeline.atomic import write_json
from pipeline.command import exit_code_of
from pipeline.config import Config
from pipeline.workers import run_tasks
from tests.footage import footage_folder

VIDEOS = "human/**/*.mp4"  # of real footage
LONG = "human/asl_hand/asl_hand.mp4"  # the one that an hour is made of
TURNS = 4  # how often each video is taken
RATE_HZ = 20.0
MAX_HANDS = 2


@dataclass(frozen=True)
class BareTask:
    """One episode for the bare loop."""

    episode: Episode

    @property
    def name(self) -> str:
        return self.episode.episode_id


class BareLoop:
    """What anybody would write first: frames at the same times, one HandLandmarker in VIDEO mode, nothing kept."""

    def __init__(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # MediaPipe's log

    def __call__(self, task: BareTask, skip: dict[str, str], begin: Any) -> int:
        import decord
        from mediapipe import Image, ImageFormat
        from mediapipe.tasks.python import BaseOptions, vision

        from data.video import select
        from extract.hand.bundle import hand_bundle

        options = vision.HandLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(hand_bundle(None))),
            running_mode=vision.RunningMode.VIDEO,
            num_hands=MAX_HANDS,
        )
        reader: Any = decord.VideoReader(str(task.episode.path), num_threads=1)
        times = np.asarray(reader.get_frame_timestamp(range(len(reader))))[:, 0]
        chosen = select(times, RATE_HZ)
        with vision.HandLandmarker.create_from_options(options) as landmarker:
            for index in chosen:
                image = Image(image_format=ImageFormat.SRGB, data=reader[int(index)].asnumpy())
                landmarker.detect_for_video(image, round(1000 * float(times[index])))
        return len(chosen)


def bare_loop(episodes: list[Episode], processes: int) -> tuple[int, float]:
    """(frames, seconds) of the bare loop over all episodes."""
    counts: list[int] = []

    def failed(task: BareTask, error: str) -> None:
        raise RuntimeError(f"{task.name}: {error}")

    began = time.perf_counter()
    run_tasks([BareTask(e) for e in episodes], BareLoop, processes, 600, lambda _, n: counts.append(n), failed)
    return sum(counts), time.perf_counter() - began


def whole_stage(config: Config, processes: int) -> tuple[int, float]:
    """(frames, seconds) of the extract stage into a new folder."""
    began = time.perf_counter()
    with redirect_stdout(Path(os.devnull).open("w")):
        run_extract(config, processes)
    seconds = time.perf_counter() - began
    return json.loads((config.folder("extract") / "summary.json").read_text())["frames"], seconds


def indexed(videos: Path, out: Path, **extract: Any) -> Config:
    """A configuration for these videos, with its index built."""
    raw = {
        "run": {"out": str(out)},
        "index": {"sources": [{"name": "videos", "kind": "video", "path": str(videos)}], "split_minutes": None},
        "extract": {"rate_hz": RATE_HZ, "episodes_per_unit": 1, **extract},
    }
    config = Config(raw, out / "config.yaml")
    build_index(config.section("index", IndexConfig), config.folder("index"), Path())
    return config


def gather(folder: Path) -> None:
    """The videos to measure with, each several times under other names, so that starting up weighs little."""
    folder.mkdir()
    footage = footage_folder(VIDEOS)
    sources = sorted(footage.glob(VIDEOS)) if footage else _rendered(folder.parent / "rendered")
    for turn in range(TURNS):
        for source in sources:
            link = folder / f"{source.stem}-{turn}.mp4"
            link.symlink_to(source)
            link.with_suffix(".json").write_text(json.dumps({"group": link.stem}))


def _rendered(folder: Path) -> list[Path]:
    from data.simulation.closeup import CloseupSettings, make_closeup
    from data.simulation.write import encode_video

    folder.mkdir()
    for seed in range(4):
        images, _, _ = make_closeup(seed, CloseupSettings(seconds=6.0))
        encode_video(folder / f"hand-{seed}.mp4", images, 25)
    return sorted(folder.glob("*.mp4"))


def throughput(folder: Path, rounds: int, processes: int) -> dict[str, Any]:
    """Frames/s of both, round by round, and the ratio."""
    gather(folder / "videos")
    config = indexed(folder / "videos", folder / "index-run")
    episodes = read_index(config.folder("index"))
    bare, whole = [], []
    for number in range(rounds):
        count, seconds = bare_loop(episodes, processes)
        bare.append(count / seconds)
        stage_count, seconds = whole_stage(indexed(folder / "videos", folder / f"run-{number}"), processes)
        whole.append(stage_count / seconds)
        if stage_count != count:
            raise RuntimeError(f"the loop saw {count} frames, the stage {stage_count}: not the same work")
        print(f"round {number + 1}: bare loop {bare[-1]:.1f} frames/s, whole stage {whole[-1]:.1f}", flush=True)
    ratios = [ours / loop for ours, loop in zip(whole, bare, strict=True)]
    return {
        "episodes": len(episodes),
        "frames": count,
        "processes": processes,
        "footage": "real" if footage_folder() else "rendered",
        "bare_frames_per_s": [round(value, 1) for value in bare],
        "stage_frames_per_s": [round(value, 1) for value in whole],
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(value, 3) for value in ratios],
    }


def looped(source: Path, target: Path, seconds: float) -> None:
    """A video of at least ``seconds``: the packets of ``source`` again and again, not encoded anew."""
    with av.open(str(source)) as original, av.open(str(target), "w") as container:
        stream = original.streams.video[0]
        copy = container.add_stream_from_template(stream)
        packets = [packet for packet in original.demux(stream) if packet.pts is not None and packet.dts is not None]
        stamps = [(int(packet.pts or 0), int(packet.dts or 0)) for packet in packets]
        shown = sorted(pts for pts, _ in stamps)
        length = shown[-1] - shown[0] + min(after - before for before, after in pairwise(shown))
        for turn in range(int(np.ceil(seconds / float(length * (stream.time_base or 1))))):
            for packet, (pts, dts) in zip(packets, stamps, strict=True):
                packet.pts, packet.dts = pts + turn * length, dts + turn * length
                packet.stream = copy
                container.mux(packet)


class MemoryOfChildren:
    """Samples the resident memory of all child processes, twice a second, until left."""

    def __enter__(self) -> MemoryOfChildren:
        self.megabytes: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            total = 0.0
            for child in psutil.Process().children(recursive=True):
                try:
                    total += child.memory_info().rss / 1e6
                except psutil.Error:
                    continue
            self.megabytes.append(total)


def hour(folder: Path, minutes: float, rate_hz: float) -> dict[str, Any]:
    """Memory while one long video is extracted: median of each tenth of the time, and the peak."""
    footage = footage_folder(LONG)
    source = footage / LONG if footage else _rendered(folder / "rendered")[0]
    (folder / "long").mkdir()
    looped(source, folder / "long" / "long.mp4", 60 * minutes)
    config = indexed(folder / "long", folder / "long-run", rate_hz=rate_hz)
    (episode,) = read_index(config.folder("index"))
    with MemoryOfChildren() as memory:
        frames, seconds = whole_stage(config, 1)
    tenths = [float(np.median(part)) for part in np.array_split(np.array(memory.megabytes), 10)]
    summary = json.loads((config.folder("extract") / "summary.json").read_text())
    return {
        "video_minutes": round(episode.duration_s / 60, 1),
        "size": [episode.width, episode.height],
        "rate_hz": rate_hz,
        "frames": frames,
        "clips": summary["clips"],
        "seconds": round(seconds),
        "median_mb_by_tenth": [round(value) for value in tenths],
        "peak_mb": round(max(memory.megabytes)),
        "growth_last_over_second_tenth": round(tenths[-1] / tenths[1], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--hour", action="store_true", help="memory over a long video instead of speed")
    parser.add_argument("--minutes", type=float, default=60, help="length of the long video")
    parser.add_argument("--rate", type=float, default=RATE_HZ, help="frames per second to use of it")
    arguments = parser.parse_args()
    sys.exit(exit_code_of(lambda: benchmark(arguments)))


def benchmark(arguments: argparse.Namespace) -> None:
    """Measures, prints and writes the figures. Raises UserError where the footage is not there."""
    with tempfile.TemporaryDirectory() as folder:
        if arguments.hour:
            figures = hour(Path(folder), arguments.minutes, arguments.rate)
        else:
            figures = throughput(Path(folder), arguments.rounds, arguments.processes)
    print(json.dumps(figures, indent=1))
    if arguments.json:
        write_json(arguments.json, figures)


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
