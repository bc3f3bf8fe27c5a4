"""``python -m align graph``: a policy as one ONNX file or one torch.export program, checked before it is published."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from align.origin import WEIGHTS
from pipeline.atomic import publishing
from pipeline.command import exit_code_of
from pipeline.errors import UserError

TRIALS = 20


def main(words: Sequence[str]) -> int:
    """Parses what follows ``python -m align graph`` and runs it; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m align graph",
        description="Writes a policy, normalisation included, as one ONNX file or one torch.export program.",
    )
    parser.add_argument("--policy", type=Path, required=True, metavar="FOLDER", help="an exported or aligned policy")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="FILE.onnx or FILE.pt2")
    arguments = parser.parse_args(words)
    return exit_code_of(lambda: _graph(arguments.policy, arguments.out))


def _graph(folder: Path, out: Path) -> None:
    # torch is loaded late: a wrong option is told at once
    from align.graph.write import check_kind

    check_kind(out)
    from align.graph.compare import TOLERANCE, compare
    from align.graph.describe import Source
    from align.graph.runtime import GraphPolicy
    from align.graph.write import write
    from align.serve.cli import served_folder
    from pipeline.fingerprint import file_sha256

    served = served_folder(folder)
    policy = served.policy
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary) / out.name
        write(policy, Source(file_sha256(folder / WEIGHTS), served.license), made)
        (differences,) = compare(policy, [GraphPolicy(made, threads=1)], TRIALS)
        if beyond := differences.beyond():
            raise UserError(
                f"--policy {folder}: the exported graph answers differently from the policy, and was not written: "
                + ", ".join(f"{name} by {off:.1e}" for name, off in beyond.items())
                + f"; at most {TOLERANCE:g} in normalised actions and metres is accepted"
            )
        with publishing(out) as place:
            place.write_bytes(made.read_bytes())
    told = ", ".join(f"{name} {off:.1e}" for name, off in differences.absolute.items())
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB; largest difference from the policy in {TRIALS} trials: {told}")
