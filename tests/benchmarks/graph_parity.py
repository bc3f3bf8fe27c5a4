"""Policies as graphs: how far their answers are from the policy's, and how long a step takes.

    python -m tests.benchmarks.graph_parity --policy FOLDER|--tiny [--inputs 1000] [--json FILE] [--only WORD]

Each policy is written as an ONNX file and as a torch.export program, and all three answer the same random observations
(align/graph/compare.py). ``--tiny``: every kind of policy, with random weights. Times are medians of one step on one
thread, in turns within one process, with 640 x 480 pictures and 200 points: ``call`` from the arguments of ``act``,
``step`` from the tensors, without what prepares them (the picture above all), which is the same for all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from align.graph.compare import TOLERANCE, compare
from align.graph.describe import Source
from align.graph.module import PolicyGraph
from align.graph.runtime import GraphPolicy
from align.graph.write import write
from align.origin import WEIGHTS
from align.policy import load_policy
from pipeline.atomic import write_json
from pipeline.fingerprint import file_sha256
from pipeline.runner import versions
from pretrain.model.policy_kinecloud import KinecloudPolicy
from tests.graph_policies import VARIANTS

KINDS = {"onnx": ".onnx", "torch_export": ".pt2"}


def policies(arguments: argparse.Namespace) -> Iterator[tuple[str, KinecloudPolicy, Source]]:
    """Names and policies that are asked for."""
    if arguments.policy:
        sha256 = file_sha256(arguments.policy / WEIGHTS)
        yield sha256[:12], load_policy(arguments.policy), Source(sha256, None)
        return
    for name, make in VARIANTS.items():
        if arguments.only is None or arguments.only in name:
            yield name, make(), Source("random weights", None)


def measure(policy: KinecloudPolicy, source: Source, inputs: int, rounds: int) -> dict[str, Any]:
    """Differences by kind and output, and milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        graphs, result = {}, {}
        for kind, ending in KINDS.items():
            file, start = Path(folder) / f"policy{ending}", time.perf_counter()
            write(policy, source, file)
            took = time.perf_counter() - start
            graphs[kind] = GraphPolicy(file, threads=1)
            result[kind] = {"megabytes": file.stat().st_size / 1e6, "export_s": round(took, 1)}
        for kind, found in zip(graphs, compare(policy, list(graphs.values()), inputs), strict=True):
            result[kind] |= {"absolute": found.absolute, "relative": found.relative, "beyond": sorted(found.beyond())}
            result[kind] |= {"median": found.at(0.5), "p99": found.at(0.99)}
        return result | {"milliseconds": timed(policy, graphs, rounds)}


def timed(policy: KinecloudPolicy, graphs: dict[str, GraphPolicy], rounds: int) -> dict[str, Any]:
    """Medians of a whole call and of the step alone, and ONNX's as a share of torch's."""
    random, past = np.random.default_rng(0), len(policy.config.past_times)
    observation = {
        "image_u8_HW3": random.integers(0, 256, (480, 640, 3), dtype=np.uint8),
        "instruction": "push the button",
        "past_clouds_PN3": random.normal([0, 0, 0.7], 0.03, (past, 200, 3)).astype(np.float32),
        "past_valid": np.ones(past, bool),
        "intrinsics_33": np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]),
        "proprio": np.zeros(len(policy.config.proprio_names), np.float32),
        "embodiment": policy.config.embodiments[0],
        "depth_HW": np.full((480, 640), 0.8, np.float32) if policy.config.depth else None,
    }
    feeds = graphs["onnx"].feeds(**observation)
    module, tensors = PolicyGraph(policy), {name: torch.from_numpy(value) for name, value in feeds.items()}

    def eager() -> None:
        with torch.no_grad():
            module(**tensors)

    calls: dict[str, Callable[[], Any]] = {"call torch": lambda: policy.act(**observation), "step torch": eager}
    for kind, graph in graphs.items():
        calls[f"call {kind}"] = lambda graph=graph: graph.act(**observation)
        calls[f"step {kind}"] = lambda graph=graph: graph.run(feeds)
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 3):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if number >= 3:
                taken[name].append(1000 * (time.perf_counter() - start))
    p50 = {name: statistics.median(values) for name, values in taken.items()}
    return {
        **{name: round(value, 3) for name, value in p50.items()},
        **{f"onnx/torch {what}": round(p50[f"{what} onnx"] / p50[f"{what} torch"], 3) for what in ("call", "step")},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--policy", type=Path, metavar="FOLDER", help="an exported or aligned policy")
    which.add_argument("--tiny", action="store_true", help="every kind of policy, tiny, with random weights")
    parser.add_argument("--only", metavar="WORD", help="with --tiny: kinds with this in their name")
    parser.add_argument("--inputs", type=int, default=1000, help="random observations per policy")
    parser.add_argument("--rounds", type=int, default=100, help="of the time measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the result goes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows, beyond = {}, 0
    for name, policy, source in policies(arguments):
        rows[name] = measure(policy, source, arguments.inputs, arguments.rounds)
        for kind in KINDS:
            found = rows[name][kind]
            beyond += bool(found["beyond"])
            told = (
                f"{output} {found['median'][output]:.0e}, {found['p99'][output]:.0e}, {off:.1e}"
                for output, off in found["absolute"].items()
            )
            print(f"{name}: {kind}: median, 99 %, largest: {'; '.join(told)}", flush=True)
        print(f"{name}: {json.dumps(rows[name]['milliseconds'])}", flush=True)
        if arguments.json:
            result = {"inputs": arguments.inputs, "tolerance": TOLERANCE, "versions": versions(), "policies": rows}
            write_json(arguments.json, result)
    return 1 if beyond else 0


if __name__ == "__main__":
    raise SystemExit(main())
