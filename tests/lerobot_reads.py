"""Reads LeRobot data sets with lerobot itself and holds them against clips: ``python lerobot_reads.py SETS CLIPS.npz``.

It runs in whatever environment lerobot is installed in, so it imports nothing of this repository. SETS: what
``python -m data convert --to lerobot`` wrote. CLIPS.npz: arrays named KEY/FIELD, pictures u8 [T,H,W,3] or mm u16
[T,H,W] named KEY/SERIES, and KEY/instruction; every clip must be met once. Without CLIPS.npz, only that all items load.
"""

import json
import sys
from pathlib import Path

import lerobot  # pyright: ignore[reportMissingImports]
import numpy as np
from lerobot.datasets.compute_stats import get_feature_stats  # pyright: ignore[reportMissingImports]
from lerobot.datasets.lerobot_dataset import LeRobotDataset  # pyright: ignore[reportMissingImports]

NAMES = {
    "action": "actions",
    "observation.state": "proprio",
    "observation.images.camera": "images",
    "observation.images.scene": "scenes",
    "observation.images.scene_depth": "depths",
}


def compare(item: dict, name: str, wanted: np.ndarray, frame: int) -> None:
    """One feature of one item. lerobot hands f64 on as f32, and colours as 0..1 with the channels first."""
    found = item[name].numpy()
    if name.startswith("observation.images."):
        wanted_frame = wanted[frame][None] if wanted.ndim == 3 else wanted[frame].transpose(2, 0, 1) / np.float32(255)
        np.testing.assert_allclose(found, wanted_frame, rtol=0, atol=1e-6)
        return
    wanted_frame = wanted if name == "intrinsics" else wanted[frame]
    np.testing.assert_array_equal(found, np.asarray(wanted_frame, found.dtype).reshape(found.shape), err_msg=name)
    assert found.dtype == (np.float32 if wanted.dtype == np.float64 else wanted.dtype), (name, found.dtype)


def check_statistics(dataset: LeRobotDataset, name: str, values: np.ndarray) -> None:
    """stats.json beside lerobot's own function over all frames at once; its quantiles are estimates, too."""
    known = values[~np.isnan(values.reshape(len(values), -1)).any(1)] if values.dtype != bool else values
    if not len(known):
        assert name not in dataset.meta.stats, name
        return
    if len(known) < 2:
        return
    own = get_feature_stats(known.astype(np.float64), axis=0, keepdims=known.ndim == 1)
    ours = dataset.meta.stats[name]
    assert ours.keys() == own.keys(), (name, ours.keys(), own.keys())
    span = float(np.max(own["max"] - own["min"])) + 1e-6
    for key, value in own.items():
        slack = 1e-3 * span if key.startswith("q") else 1e-6 * (1 + np.abs(value).max())
        np.testing.assert_allclose(ours[key], value, rtol=0, atol=slack, err_msg=f"{name}: {key}")


def main() -> None:
    roots = sorted(path.parent.parent for path in Path(sys.argv[1]).rglob("meta/info.json"))
    clips = np.load(sys.argv[2], allow_pickle=False) if len(sys.argv) > 2 else {}
    met, frames, compared = [], 0, 0
    for root in roots:
        dataset = LeRobotDataset(f"local/{root.name}", root=root)
        numbers: dict[str, list[np.ndarray]] = {}
        for episode in dataset.meta.episodes:
            key = episode["kinecloud/key"]
            assert json.loads(episode["kinecloud/meta"])["schema_version"]
            met.append(key)
            first, last = episode["dataset_from_index"], episode["dataset_to_index"]
            for frame in range(last - first):
                item = dataset[first + frame]
                frames += 1
                assert item["episode_index"] == episode["episode_index"] and item["frame_index"] == frame
                assert abs(float(item["timestamp"]) - frame / dataset.fps) < 1e-4
                if not clips:
                    continue
                assert item["task"] == str(clips[f"{key}/instruction"])
                for name in dataset.features:
                    field = f"{key}/{NAMES.get(name, name)}"
                    if field in clips:
                        compare(item, name, clips[field], frame)
                        compared += 1
            for name in dataset.features:
                field = f"{key}/{name}"
                if clips and field in clips and name != "intrinsics":
                    numbers.setdefault(name, []).append(clips[field])
        for name, values in numbers.items():
            check_statistics(dataset, name, np.concatenate(values))
        window = LeRobotDataset(root.name, root=root, delta_timestamps={"points": [0, 1 / dataset.fps]})
        assert window[0]["points"].shape[0] == 2
        assert len(dataset) == dataset.meta.total_frames
    assert len(met) == len(set(met))
    if clips:
        assert set(met) == {name.partition("/")[0] for name in clips}, "not every clip was met"
    print(
        f"lerobot {lerobot.__version__}: {len(roots)} data sets, {len(met)} episodes, {frames} items, {compared} values"
    )


main()
