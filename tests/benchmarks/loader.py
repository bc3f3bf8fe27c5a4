"""Speed and memory of the training loader: ``python -m tests.benchmarks.loader [--json FILE] [--shards TAR ...]``.

On clips made up in the size that extraction gives them (256 x 192 pixels, 40 frames, 200 points), or on your shards.
Figures are windows per second of one core: with nothing kept in memory, with everything kept, and in between; by the
clock, what the prefetch thread and worker processes deliver, and what one process reads after the shards were dropped
from the system's cache; and the augmentation beside a training step of the default predictor, per batch on one core.
Time of one core is the time that the processor spent on this process, so that neighbours on the machine do not count.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from data.clips import Clip, encode_image, write_shard
from data.config import WindowConfig
from data.loader import WindowDataset, batches, collate
from data.schema import ClipMeta
from pipeline.atomic import write_json
from pretrain.augment import augment
from pretrain.config import AppearanceSettings, AugmentSettings, ObjectiveSettings
from pretrain.model.configuration_kinecloud import KinecloudConfig
from pretrain.model.modeling_kinecloud import KinecloudPredictor
from pretrain.objectives import loss_of
from pretrain.randomness import WindowRandom

BATCH = 32
SIZE = (256, 192)
PER_SHARD = 64


def made_up_clip(number: int, frames: int = 40, points: int = 200, size: tuple[int, int] = SIZE) -> Clip:
    """A clip whose images compress about as well as filmed ones: blobs, edges and some noise."""
    random = np.random.default_rng(number)
    width, height = size
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    base = np.zeros((height, width, 3), np.float32)
    for _ in range(25):
        u, v, radius = random.uniform(0, width), random.uniform(0, height), random.uniform(8, 60)
        base[np.hypot(columns - u, rows - v) < radius] = random.uniform(20, 235, 3)
    images = []
    for frame in range(frames):
        noisy = np.roll(base, frame, 1) + random.normal(0, 3, (height, width, 1))
        images.append(encode_image(noisy.clip(0, 255).astype(np.uint8)))
    times = np.arange(frames) / 20
    body = random.normal(0, 0.03, (points, 3)) + np.array([0, 0, 0.6])
    arrays = {
        "points": (body + random.normal(0, 0.1, 3) * times[:, None, None]).astype(np.float32),
        "raw_points": np.tile(body, (frames, 1, 1)).astype(np.float32),
        "visible": random.random((frames, points)) < 0.8,
        "sigma": np.full((frames, 2), 0.002, np.float32),
        "confidence": np.ones(frames, np.float32),
        "timestamps": times,
        "intrinsics": np.array([[220, 0, 128], [0, 220, 96], [0, 0, 1]], np.float32),
        "world_from_camera": np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1)),
        "opening": np.full(frames, 0.04, np.float32),
    }
    meta = ClipMeta(
        episode_id=f"made-up-{number}", group=f"made-up-{number}", source="made-up", embodiment="human-hand",
        side="left", instruction="move the hand", scale="metric", depth_source="sensor", camera_origin="given",
        camera_motion="static", image_size=size, source_frames=list(range(frames)), extractor="made-up", simulated=True,
    )  # fmt: skip
    return Clip(f"clip-{number:06d}", arrays, images, meta)


def made_up_shards(folder: Path, clips: int) -> list[Path]:
    paths = []
    for start in range(0, clips, PER_SHARD):
        paths.append(folder / f"train-{start // PER_SHARD:05d}.tar")
        write_shard(paths[-1], map(made_up_clip, range(start, min(start + PER_SHARD, clips))))
    return paths


def forget(shards: list[Path]) -> None:
    """Drops the shards from the system's cache."""
    for path in shards:
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def opening(shards: list[Path], config: WindowConfig) -> dict[str, float]:
    """Seconds per 1000 clips to open a data set, and bytes per clip that a loader process is sent."""
    seconds = {}
    for name, prepare in (("cold", lambda: forget(shards)), ("warm", lambda: None)):
        prepare()
        start = time.perf_counter()
        dataset = WindowDataset(shards, config)
        seconds[name] = time.perf_counter() - start
    clips = len({(window.shard, window.key) for window in dataset.windows})
    sent = len(pickle.dumps(dataset))
    return {
        "clips": clips,
        "windows": len(dataset),
        "seconds_per_1000_clips": seconds["warm"] / clips * 1000,
        "seconds_per_1000_clips_cold": seconds["cold"] / clips * 1000,
        "bytes_sent_per_clip": sent / clips,
    }


def on_one_core(
    dataset: WindowDataset, count: int, first: int = 0, clock: Callable[[], float] = time.process_time
) -> float:
    """Windows per second of reading and collating, single-threaded; from position ``first`` on."""
    order = dataset.order(0)
    start = clock()
    for position in range(first, first + count, BATCH):
        collate([dataset[order.at(place)] for place in range(position, position + BATCH)])
    return count / (clock() - start)


def delivered(dataset: WindowDataset, workers: int, count: int) -> float:
    """Windows per second that a reader who does nothing else gets, after the first 20 batches."""
    stream = batches(dataset, BATCH, 0, workers=workers)
    for _ in itertools.islice(stream, 20):
        pass
    start = time.perf_counter()
    for _ in itertools.islice(stream, count // BATCH):
        pass
    return count / (time.perf_counter() - start)


def milliseconds(call: Callable[[], Any], repetitions: int = 15) -> float:
    """Median processor time, after two that do not count."""
    times = []
    for _ in range(repetitions + 2):
        start = time.process_time()
        call()
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times[2:])


def augmentation(dataset: WindowDataset) -> dict[str, float]:
    """Milliseconds per batch on one core: the defaults, everything at once, and a training step without either."""
    order = dataset.order(0)
    window = collate([dataset[order.at(place)] for place in range(BATCH)])
    defaults = AugmentSettings()
    everything = AugmentSettings(
        crop=0.7, flip=0.5, scale=0.2, appearance=AppearanceSettings(), past_offset_m=0.01, past_jitter_m=0.002,
        drop_history=0.1, drop_opening=0.1,
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = dataset.config
    model = KinecloudPredictor(
        KinecloudConfig(image_size=config.image_size, past_times=config.past_s, horizons=config.horizons_s)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    objective = ObjectiveSettings.model_validate({})

    def step() -> None:
        loss_of(model(**window), window, objective).total.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    result = {
        "defaults_ms": milliseconds(lambda: augment(window, defaults, WindowRandom(window["seed"]), 0.0)),
        "everything_ms": milliseconds(lambda: augment(window, everything, WindowRandom(window["seed"]), 0.0)),
        "step_ms": milliseconds(step),
    }
    return result | {
        f"{name}_share_of_step": result[f"{name}_ms"] / result["step_ms"] for name in ("defaults", "everything")
    }


def measure(shards: list[Path], workers: list[int], count: int) -> dict[str, Any]:
    config = WindowConfig.model_validate({})
    process = psutil.Process()
    result: dict[str, Any] = {"opening": opening(shards, config)}
    nothing_kept = WindowDataset(shards, config, cache_mb=0)
    count = min(count, len(nothing_kept)) // BATCH * BATCH
    result["windows"] = count
    forget(shards)
    speeds = {"nothing kept, disk cold, by the clock": on_one_core(nothing_kept, count, clock=time.perf_counter)}
    speeds["nothing kept"] = on_one_core(nothing_kept, count)
    before = process.memory_info().rss
    kept = WindowDataset(shards, config, cache_mb=4096)
    speeds["first epoch"] = on_one_core(kept, len(kept) // BATCH * BATCH)
    speeds["everything kept"] = on_one_core(kept, count, len(kept))
    result["memory_kept_mb"] = (process.memory_info().rss - before) / 2**20
    result["bytes_counted_mb"] = (kept._squares.nbytes + kept._clips.nbytes) / 2**20
    small = WindowDataset(shards, config, cache_mb=64)
    before = process.memory_info().rss
    speeds["64 MB kept"] = on_one_core(small, count)
    result["memory_of_64_mb"] = (process.memory_info().rss - before) / 2**20
    result["windows_per_second"] = speeds
    result["delivered"] = {f"{n} workers" if n else "thread": delivered(kept, n, count) for n in workers}
    result["augmentation"] = augmentation(kept)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.loader", description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--shards", type=Path, nargs="+", help="train on these; default: made-up clips")
    parser.add_argument("--clips", type=int, default=192, help="how many clips to make up")
    parser.add_argument("--windows", type=int, default=3200, help="most windows per measurement")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        shards = arguments.shards or made_up_shards(Path(scratch), arguments.clips)
        result = measure(shards, arguments.workers, arguments.windows)
    for name, values in result.items():
        if isinstance(values, dict):
            print(name)
            for inner, value in values.items():
                print(f"  {inner:38} {value:10.2f}")
        else:
            print(f"{name:40} {values:10.2f}")
    if arguments.json:
        write_json(arguments.json, result)


if __name__ == "__main__":
    main()
