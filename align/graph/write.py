"""Writing a policy as one ONNX file or one torch.export program, its metadata inside."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from align.graph.decompositions import TABLE
from align.graph.describe import Source, document_of, example_of, refuse, tokenizer_json
from align.graph.module import PolicyGraph
from align.graph.runtime import DOCUMENT, TOKENIZER
from pipeline.errors import UserError
from pretrain.model.policy_kinecloud import KinecloudPolicy

KINDS = {".onnx": "ONNX", ".pt2": "torch.export"}
PACKAGES = {"onnx": "onnx==1.23.2", "onnxscript": "onnxscript==0.7.2", "onnxruntime": "onnxruntime==1.31.1"}
OPSET = 20
_MOST = {"N": 65536, "L": 65536}


def write(policy: KinecloudPolicy, source: Source, file: Path) -> dict[str, Any]:
    """Writes ``file``, whose ending names the kind, and returns its metadata.

    Raises UserError for an ending or a policy that cannot be exported, and for packages that are missing.
    """
    check_kind(file)
    onnx = file.suffix == ".onnx"
    refuse(policy, onnx)
    document, tokenizer = document_of(policy, source), tokenizer_json(policy)
    held = {DOCUMENT: json.dumps(document)} | ({TOKENIZER: tokenizer} if tokenizer else {})
    with _quiet(), torch.no_grad():
        program = program_of(policy, document)
        if onnx:
            _save_onnx(program, document, held, file)
        else:
            program._example_inputs = None  # they would be the only part of the file that is a pickle
            torch.export.save(program, file, extra_files=held)
    return document


def check_kind(file: Path) -> None:
    """Raises UserError for a file whose ending names no kind, and where packages are missing."""
    if file.suffix not in KINDS:
        raise UserError(f"--out {file}: ends in {file.suffix or 'nothing'}; known: {', '.join(KINDS)}")
    missing = [pinned for name, pinned in PACKAGES.items() if find_spec(name) is None]
    if file.suffix == ".onnx" and missing:
        raise UserError(f"--out {file}: ONNX needs packages that are not here: pip install {' '.join(missing)}")


def program_of(policy: KinecloudPolicy, document: dict[str, Any]) -> torch.export.ExportedProgram:
    """The policy as a torch.export program with any number of points and tokens."""
    longest = document["text"].get("max_tokens", document["text"].get("max_bytes", 0) + 1)
    dims = {"N": torch.export.Dim("N", min=2, max=_MOST["N"]), "L": torch.export.Dim("L", min=2, max=longest)}
    shapes = {name: {axis: dims[size] for axis, size in axes.items()} for name, axes in _free(document).items()}
    try:
        return torch.export.export(PolicyGraph(policy), (), example_of(document), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # of whatever kind: torch.export has many
        raise UserError(f"torch.export cannot trace this policy: {type(error).__name__}: {error}") from error


def _free(document: dict[str, Any]) -> dict[str, dict[int, str]]:
    """The axes of each input whose size is free, by their letters."""
    return {
        row["name"]: {axis: size for axis, size in enumerate(row["shape"]) if isinstance(size, str)}
        for row in document["inputs"]
    }


def _save_onnx(
    program: torch.export.ExportedProgram, document: dict[str, Any], held: dict[str, str], file: Path
) -> None:
    names = {kind: [row["name"] for row in document[kind]] for kind in ("inputs", "outputs")}
    try:
        made = torch.onnx.export(
            program.run_decompositions(TABLE), (), kwargs=example_of(document), dynamo=True, verbose=False,
            opset_version=OPSET, input_names=names["inputs"], output_names=names["outputs"],
            dynamic_shapes=_free(document),
        )  # fmt: skip
    except Exception as error:  # a node without translation ends the export, and the error names it
        raise UserError(f"ONNX has no translation for a part of this policy: {_last_line(error)}") from error
    assert made is not None
    made.model.metadata_props.update(held)
    made.model.producer_name = "kinecloud"
    for node in made.model.graph.all_nodes():
        node.metadata_props.clear()  # traces of the code that made it: large, and they name folders of this machine
    made.save(str(file), external_data=False)


def _last_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' words about optional packages and deprecations inside torch."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
