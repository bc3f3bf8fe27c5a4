"""Opening a torch.export program without unpickling.

torch.export.load itself unpickles whatever a file holds. A file that was written by ``align graph`` is raw tensors and
JSON; anything else in it is refused before torch reads it. Of the JSON torch makes Python code, so a program is still
something to take from people one trusts; an ONNX file is data alone.
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from align.graph.contract import ContractError
from align.graph.runtime import DOCUMENT, TOKENIZER, Opened

_MODEL = "models/model.json"
_PLAIN = re.compile(
    r"(archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
    r"|models/model\.json|data/sample_inputs/model\.pt|data/weights/(model_weights_config\.json|weight_\d+)"
    r"|data/constants/(model_constants_config\.json|tensor_\d+)|extra/.+)"
)


def opened(file: Path) -> Opened:
    """The metadata and the means to run a program. Raises ContractError for a file with anything to unpickle."""
    held = _checked(file)
    program = torch.export.load(file)
    module = program.module()
    names = program.graph_signature.user_outputs
    values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    outputs = [row["name"] for row in held["document"]["outputs"]]
    tensors = {
        "inputs": {name: _told(values[name]) for name in program.graph_signature.user_inputs if isinstance(name, str)},
        "outputs": {name: _told(values[str(node)]) for name, node in zip(outputs, names, strict=True)},
    }

    def run(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            made = module(**{name: torch.from_numpy(value) for name, value in feeds.items()})
        return [value.numpy() for value in made]

    return held["document"], held["tokenizer"], tensors, run


def _told(value: Any) -> tuple[str, list[Any]]:
    return str(value.dtype).removeprefix("torch."), [
        size if isinstance(size, int) else str(size) for size in value.shape
    ]


def _checked(file: Path) -> dict[str, Any]:
    """Document and tokenizer of a file that holds nothing but tensors and JSON."""
    try:
        archive = zipfile.ZipFile(file)
    except (OSError, zipfile.BadZipFile) as error:
        raise ContractError(f"{file}: cannot be read: {error}") from None
    with archive:
        inside = {name.split("/", 1)[-1]: name for name in archive.namelist()}
        if len(inside) != len(archive.namelist()):
            raise ContractError(f"{file}: holds two parts of one name; it was not written by `align graph`")
        if odd := [name for name in inside if not _PLAIN.fullmatch(name)]:
            raise ContractError(f"{file}: holds {odd[0]}; expected tensors and JSON only, as `align graph` writes them")
        if missing := [name for name in (_MODEL, f"extra/{DOCUMENT}") if name not in inside]:
            raise ContractError(f"{file}: holds no {missing[0]}; it is no policy of `align graph`")

        def read(name: str) -> bytes:
            return archive.read(inside[name]) if name in inside else b""

        if read("data/sample_inputs/model.pt"):
            raise ContractError(f"{file}: data/sample_inputs/model.pt is a pickle; expected none")
        for kind in ("weights", "constants"):
            table = json.loads(read(f"data/{kind}/model_{kind}_config.json") or "{}").get("config", {})
            if pickled := [name for name, row in table.items() if row.get("use_pickle") is not False]:
                raise ContractError(f"{file}: {kind}: {pickled[0]} is a pickle; expected raw tensors")
        tokenizer = read(f"extra/{TOKENIZER}")
        return {
            "document": json.loads(read(f"extra/{DOCUMENT}")),
            "tokenizer": tokenizer.decode() if tokenizer else None,
        }
