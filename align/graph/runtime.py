"""Running a policy graph: ``GraphPolicy(FILE.onnx).act(...)`` takes what KinecloudPolicy.act takes.

An ONNX file needs numpy and onnxruntime, a torch.export program torch. Before anything runs, what the metadata says is
held against the graph, against this code, and against what the user expects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from align.graph.contract import KNOWN, ContractError, check, check_tensors
from align.graph.feeds import feeds_of
from align.graph.words import tokenizer_of

DOCUMENT, TOKENIZER = "kinecloud.json", "kinecloud.tokenizer.json"  # keys of the metadata in the file
_DTYPES = {
    "tensor(uint8)": "uint8", "tensor(bool)": "bool", "tensor(int64)": "int64", "tensor(float)": "float32",
}  # fmt: skip
Run = Callable[[dict[str, np.ndarray]], list[np.ndarray]]


class GraphPolicy:
    """A policy in one file. document: its metadata (contract.py), the meaning of all that goes in and comes out."""

    def __init__(
        self,
        file: Path | str,
        expect: Mapping[str, Any] | None = None,
        threads: int = 0,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
    ):
        """expect: values that the metadata must hold, by dotted name, such as {"action.names": [...], "policy_sha256":
        "..."}. threads: of the runtime, 0 = its own choice; providers: of onnxruntime (both ONNX only).

        Raises ContractError telling both sides of every mismatch: of the metadata with the graph, with what this code
        does to pictures and text, or with ``expect``.
        """
        file = Path(file)
        opened = _onnx(file, threads, providers) if file.suffix == ".onnx" else _program(file)
        self.document, stored, tensors, self._run = opened
        check(self.document, KNOWN, "this code")
        for kind, found in tensors.items():
            check_tensors(self.document, kind, found)
        check(self.document, dict(expect or {}), "you expect")
        self._tokenizer = tokenizer_of(self.document, stored)

    def act(self, *observation: Any, **more: Any) -> np.ndarray:
        """One observation -> the next K actions, f32 [K,A], in the physical units of ``document["action"]``."""
        return self.predict(*observation, **more)["actions"]

    def predict(self, *observation: Any, **more: Any) -> dict[str, np.ndarray]:
        """All outputs by name, without the batch dimension. Arguments and errors as of ``feeds_of``."""
        return self.run(self.feeds(*observation, **more))

    def feeds(self, *observation: Any, **more: Any) -> dict[str, np.ndarray]:
        """The tensors that the graph is given for an observation."""
        return feeds_of(self.document, self._tokenizer, *observation, **more)

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The graph alone."""
        names = [row["name"] for row in self.document["outputs"]]
        return {name: value[0] for name, value in zip(names, self._run(feeds), strict=True)}


Opened = tuple[dict[str, Any], str | None, dict[str, dict[str, tuple[str, list[Any]]]], Run]


def _onnx(file: Path, threads: int, providers: tuple[str, ...]) -> Opened:
    try:
        import onnxruntime
    except ImportError:
        raise ContractError(f"{file}: to run it, the package onnxruntime is needed: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=list(providers))
    held = session.get_modelmeta().custom_metadata_map
    if DOCUMENT not in held:
        raise ContractError(f"{file}: holds no {DOCUMENT} in its metadata; it is no policy of `align graph`")
    tensors: dict[str, dict[str, tuple[str, list[Any]]]] = {
        kind: {node.name: (_DTYPES.get(str(node.type), str(node.type)), list(node.shape)) for node in nodes}
        for kind, nodes in (("inputs", session.get_inputs()), ("outputs", session.get_outputs()))
    }

    def run(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [np.asarray(value) for value in session.run(None, feeds)]

    return json.loads(held[DOCUMENT]), held.get(TOKENIZER), tensors, run


def _program(file: Path) -> Opened:
    from align.graph.program import opened

    return opened(file)
