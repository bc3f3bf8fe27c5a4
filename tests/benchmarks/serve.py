"""Latency of the policy server: ``python -m tests.benchmarks.serve [--json FILE] [--requests 200]``.

A compact policy of default size with random weights, 640 x 480 pictures, 4 clouds of 200 points, all on one machine.
The server is a process of its own, clients are threads of this one. A request counts from the packing of an observation
to the unpacked answer. Beside it: the bare call of the same policy with the same observation in this process, and what
the server says that took inside it (``infer_ms``: unpacking, checks and the call).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.atomic import write_json
from pretrain.model.configuration_kinecloud import KinecloudConfig
from pretrain.model.policy_kinecloud import KinecloudPolicy
from tests.serve_client import Client

CLIENTS = (1, 8)
WARM = 10  # requests before the clock counts


def policy_of_default_size() -> KinecloudPolicy:
    """Random weights: time does not depend on their values."""
    actions, proprio = ["dx", "dy", "dz", "gripper"], ["x", "y", "z", "opening"]
    torch.manual_seed(0)
    return KinecloudPolicy(KinecloudConfig(action_chunk=8, action_names=actions, proprio_names=proprio)).eval()


def observation() -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {
        "image_u8_HW3": random.integers(0, 256, (480, 640, 3), dtype=np.uint8),
        "instruction": "push the button",
        "past_clouds_PN3": random.normal([0, 0, 0.7], 0.03, (4, 200, 3)).astype(np.float32),
        "past_valid": np.ones(4, bool),
        "intrinsics_33": np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]),
        "proprio": np.zeros(4, np.float32),
        "embodiment": "sawyer-gripper",
    }


@contextmanager
def server(policy: KinecloudPolicy) -> Iterator[int]:
    """The port of a server of the policy, as users start it."""
    with tempfile.TemporaryDirectory() as folder:
        policy.save_pretrained(folder)
        command = [sys.executable, "-m", "align", "serve", "--policy", folder, "--port", "0", "--device", "cpu"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                yield int(process.stdout.readline().rsplit(":", 1)[1])
            finally:
                process.terminate()


def bare(policy: KinecloudPolicy, requests: int) -> list[float]:
    """Seconds of each call."""
    asked, taken = observation(), []
    for _ in range(WARM + requests):
        began = time.perf_counter()
        policy.act(**asked)
        taken.append(time.perf_counter() - began)
    return taken[WARM:]


def asked_by(count: int, port: int, requests: int) -> tuple[list[float], list[float], float]:
    """Seconds of each request of ``count`` clients at once, seconds inside the server, and requests per second."""
    together = threading.Barrier(count + 1)

    def talk(_: int) -> tuple[list[float], list[float]]:
        asked, taken, inside = observation(), [], []
        with Client(port) as client:
            for turn in range(WARM + requests):
                if turn == WARM:
                    together.wait()
                began = time.perf_counter()
                answer = client.ask(**asked)
                taken.append(time.perf_counter() - began)
                inside.append(answer["server_timing"]["infer_ms"] / 1000)
        return taken[WARM:], inside[WARM:]

    with ThreadPoolExecutor(count) as threads:
        talks = [threads.submit(talk, number) for number in range(count)]
        together.wait()
        began = time.perf_counter()
        found = [talk.result() for talk in talks]
        rate = count * requests / (time.perf_counter() - began)
    return [t for taken, _ in found for t in taken], [t for _, inside in found for t in inside], rate


def row(what: str, seconds: list[float], **more: float) -> dict[str, Any]:
    p50, p99 = np.percentile(1000 * np.array(seconds), (50, 99))
    return {"what": what, "requests": len(seconds), "p50_ms": round(p50, 1), "p99_ms": round(p99, 1), **more}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--requests", type=int, default=200, help="of each client")
    arguments = parser.parse_args()
    policy = policy_of_default_size()
    rows = [row("bare call", bare(policy, arguments.requests))]
    with server(policy) as port:
        for count in CLIENTS:
            taken, inside, rate = asked_by(count, port, arguments.requests)
            words = f"{count} client{'s' if count > 1 else ''}"
            rows.append(row(words, taken, requests_per_s=round(rate, 1)))
            rows.append(row(f"{words}, inside the server", inside))
    rows.append(row("bare call again", bare(policy, arguments.requests)))
    for found in rows:
        print("  ".join(f"{name} {value}" for name, value in found.items()))
    result = {
        "threads": torch.get_num_threads(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "rows": rows
    }  # fmt: skip
    if arguments.json:
        write_json(arguments.json, result)


if __name__ == "__main__":
    main()
