"""Time and memory of the networks' adapters at full size, with random weights: neither depends on their values.

    python -m tests.benchmarks.model_speed [--device cuda] [--frames 4]

One CPU thread, as extraction runs them. Depth Pro is left out: its published size is not transformers' default one.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from extract.steps import BoxDetection
from tests.tiny_models import IMAGENET, make_shot, tiny_grounding_dino

HEIGHT, WIDTH = 480, 640


def grounding_dino(folder: Path, device: str) -> Callable[[int], object]:
    """Swin-T and BERT base, the defaults of the configuration class; the tiny one's tokeniser."""
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection, GroundingDinoImageProcessorPil

    from extract.detect.grounding_dino import GroundingDino, GroundingDinoSettings

    tiny_grounding_dino(folder)
    GroundingDinoForObjectDetection(GroundingDinoConfig()).save_pretrained(folder)
    GroundingDinoImageProcessorPil().save_pretrained(folder)
    step = GroundingDino(GroundingDinoSettings.model_validate({"checkpoint": str(folder), "device": device}))
    return lambda count: [list(step(shot.frames, shot.camera)) for shot in [make_shot(count, HEIGHT, WIDTH)]]


def sam2(folder: Path, device: str) -> Callable[[int], object]:
    """The small Hiera of the default checkpoint."""
    from transformers import Sam2VideoConfig, Sam2VideoModel

    from extract.segment.sam2 import Sam2, Sam2Settings

    backbone = {
        "model_type": "sam2_hiera_det_model",
        "blocks_per_stage": [1, 2, 11, 2],
        "global_attention_blocks": [7, 10, 13],
    }
    Sam2VideoModel(Sam2VideoConfig(vision_config={"backbone_config": backbone})).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGENET))
    step = Sam2(Sam2Settings.model_validate({"checkpoint": str(folder), "device": device}))
    box = BoxDetection("x", 1.0, np.array([80.0, 120, 300, 280]))
    return lambda count: step(make_shot(count, HEIGHT, WIDTH), [box] + [None] * (count - 1))


def depth_anything(folder: Path, device: str) -> Callable[[int], object]:
    """Depth Anything V2 Small: DINOv2 with 384 channels at 518 pixels, the defaults of the configuration class."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, DPTImageProcessorPil

    from extract.depth.learned import DepthAnything, DepthAnythingSettings

    DepthAnythingForDepthEstimation(DepthAnythingConfig()).save_pretrained(folder)
    size = {"height": 518, "width": 518}
    DPTImageProcessorPil(size=size, keep_aspect_ratio=True, ensure_multiple_of=14, resample=3).save_pretrained(folder)
    step = DepthAnything(DepthAnythingSettings.model_validate({"checkpoint": str(folder), "device": device}))
    return lambda count: list(step(make_shot(count, HEIGHT, WIDTH), []).maps)


MAKERS = {"grounding-dino": grounding_dino, "sam2": sam2, "depth-anything": depth_anything}


def measure(name: str, device: str, frames: int) -> dict[str, float | str]:
    """Seconds per frame after a first pass (CPU: processor time), and the memory of the whole process."""
    with tempfile.TemporaryDirectory() as temporary:
        run = MAKERS[name](Path(temporary) / "checkpoint", device)
        run(1)
        clock = time.process_time if device == "cpu" else time.perf_counter
        began = clock()
        run(frames)
        seconds = (clock() - began) / frames
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return {"step": name, "device": device, "s_per_frame": round(seconds, 3), "peak_gb": round(peak, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--only", choices=MAKERS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments.device, arguments.frames)))
        return
    for name in MAKERS:  # one process each, so that memory is its own
        command = [sys.executable, "-m", "tests.benchmarks.model_speed", "--only", name]
        subprocess.run([*command, "--device", arguments.device, "--frames", str(arguments.frames)], check=True)


if __name__ == "__main__":
    main()
