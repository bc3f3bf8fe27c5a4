"""The Triton kernels without a GPU: their arithmetic in the interpreter, and that they compile for the cards in use.

``pipeline/install.sh --dev`` puts triton into a folder that only the processes of these tests look into.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(sys.prefix) / "triton"

COMPILE = """
import itertools
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pretrain.chamfer import by_triton, triton_kernels as kernels

TYPES = {"mask": "*u8", "nearest": "*i32", "N": "i32", "M": "i32", "block": "i32"}


def compiled(kernel, capability, **constants):
    signature = {
        name: "constexpr" if name in constants else TYPES.get(name.rpartition("_")[2], "*fp32")
        for name in kernel.arg_names
    }
    source = ASTSource(kernel, signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32))


blocks = {"BLOCK": by_triton.block_of(32, 2048), "ACROSS": by_triton.ACROSS}
for capability, masked in itertools.product((80, 90), (False, True)):
    for norm, squared in ((2, False), (1, True)):
        assert compiled(kernels.search, capability, MASKED=masked, NORM=norm, SQUARED=squared, **blocks).asm["cubin"]
    weights = {"MASKED": masked, "WEIGHTED": not masked}
    assert compiled(kernels.means, capability, REDUCE=by_triton.REDUCE, **weights).asm["cubin"]
    assert compiled(kernels.gradient, capability, **weights, **blocks).asm["cubin"]
print("compiled")
"""


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Triton reads its environment when it is imported, so each mode has a process of its own."""
    assert (FOLDER / "triton").is_dir(), f"{FOLDER} holds no triton: run bash pipeline/install.sh --dev"
    everything = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(FOLDER)]), **environment}
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=everything, capture_output=True, text=True)


def test_interpreted_kernels_have_every_property_of_the_other_backends():
    ran = python("-m", "pytest", "-q", "-k", "triton", "tests/test_pretrain_chamfer.py", TRITON_INTERPRET="1")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "passed" in ran.stdout


def test_where_kernels_cannot_start_it_is_told_once_and_what_is_missing():
    asked = "from pretrain.chamfer.neighbours import triton_starts; print(triton_starts(), triton_starts())"
    ran = python("-c", asked, CUDA_VISIBLE_DEVICES="")
    assert ran.stdout.split() == ["False", "False"], ran.stderr
    assert ran.stderr.count("gcc python3-dev") == 1


def test_kernels_compile_for_a100_and_h100(tmp_path):
    script = tmp_path / "compile_kernels.py"
    script.write_text(COMPILE)
    ran = python(
        str(script),
        TRITON_CACHE_DIR=str(tmp_path / "cache"),
        TRITON_INTERPRET="0",
    )
    assert ran.returncode == 0 and "compiled" in ran.stdout, ran.stderr
