"""The metadata of a policy's graph, from the policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from align.export import config_of, normalization_of
from align.graph.contract import CAMERA, FORMAT, NOISE, PICTURE, TEXT_RULES, inputs_of, outputs_of
from align.graph.module import OUTPUTS
from align.origin import modelling_sha256
from pipeline.errors import UserError
from pipeline.runner import versions
from pretrain.model.configuration_kinecloud import UNKNOWN_EMBODIMENT
from pretrain.model.direct import FlowHead
from pretrain.model.mixture import MixtureTrunk
from pretrain.model.policy_kinecloud import KinecloudPolicy

LARGEST_ONNX = 1_900_000_000  # bytes of weights; one ONNX file holds less than 2 GiB


@dataclass(frozen=True)
class Source:
    """Where a policy came from. sha256: of its weights."""

    sha256: str
    license: str | None


def refuse(policy: KinecloudPolicy, onnx: bool) -> None:
    """Raises UserError naming what about a policy cannot be exported. onnx: to that, not to torch.export."""
    config = config_of(policy)
    if config.depth and config.dimensions == 2:
        raise UserError(
            "config.depth with config.dimensions 2: such a predictor drops the depth that its picture needs"
        )
    size = sum(tensor.numel() * 4 for tensor in policy.state_dict().values())
    if onnx and size > LARGEST_ONNX:
        raise UserError(
            f"the weights are {size / 1e9:.1f} GB in float32; one ONNX file holds less than 2: write a .pt2 instead"
        )


def document_of(policy: KinecloudPolicy, source: Source) -> dict[str, Any]:
    """As JSON values; see contract.py."""
    config, normalization = config_of(policy), normalization_of(policy)
    spec = config.action_spec or {}
    chunk, horizons = (config.action_chunk, len(config.action_names)), len(config.horizons)
    generative, head_samples = config.generative, isinstance(policy.head, FlowHead)
    names = tuple(name for name in OUTPUTS if name != "waypoints" or config.waypoints)
    return {
        "format": FORMAT,
        "inputs": inputs_of(
            past=len(config.past_times), size=config.image_size, proprio=len(config.proprio_names), depth=config.depth,
            horizons=horizons, chunk=chunk, generative=generative, flow_head=head_samples,
        ),
        "outputs": outputs_of(names, chunk=chunk, horizons=horizons, waypoints=config.waypoints),
        "action": {
            **{name: spec.get(name) for name in ("unit", "frame", "mode", "rate_hz")},
            **normalization["action"],
            "chunk": config.action_chunk,
            "normalization": "undone in the graph: actions are physical",
        },
        "action_spec": config.action_spec,
        "proprio": {**normalization["proprio"], "normalization": "done in the graph: give physical values"},
        "formula": normalization["formula"],
        "embodiments": {name: index for index, name in enumerate([UNKNOWN_EMBODIMENT, *config.embodiments])},
        "past_times_s": config.past_times,
        "horizons_s": config.horizons,
        "picture": {"size": config.image_size, "rule": PICTURE, "shows": config.scene, "depth": config.depth},
        "camera": {"convention": CAMERA, "distortion": "none: straighten pictures first"},
        "text": _text(policy),
        "noise": NOISE if generative or head_samples else None,
        "head": config.head,
        "family": "full" if config.mixture else "compact",
        "license": source.license,
        "policy_sha256": source.sha256,
        "modelling_sha256": modelling_sha256(),
        "versions": versions(),
    }  # fmt: skip


def _text(policy: KinecloudPolicy) -> dict[str, Any]:
    config, tokenizer = config_of(policy), policy.reader.tokenizer if policy.reader else None
    if tokenizer is None:
        return {"kind": "bytes", "rule": TEXT_RULES["bytes"], "max_bytes": config.max_text_bytes}
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise UserError(f"tokenizer {type(tokenizer).__name__} cannot be stored as one tokenizer.json")
    if not isinstance(policy.predictor.trunk, MixtureTrunk):
        return {"kind": "tokens", "rule": TEXT_RULES["tokens"], "max_tokens": config.max_text_tokens}
    ends = tokenizer.encode("\n", add_special_tokens=False)
    return {
        "kind": "prompt",
        "rule": TEXT_RULES["prompt"],
        "max_tokens": config.max_text_tokens,
        "bos_id": tokenizer.bos_token_id,
        "end_ids": ends,
    }


def tokenizer_json(policy: KinecloudPolicy) -> str | None:
    """The tokenizer as one JSON document, data only, or None."""
    return None if policy.reader is None else policy.reader.tokenizer.backend_tokenizer.to_str()


def example_of(document: dict[str, Any], points: int = 7, tokens: int = 5) -> dict[str, torch.Tensor]:
    """Inputs of the right shapes, to trace the graph with."""
    sizes = {"N": points, "L": tokens}
    made: dict[str, torch.Tensor] = {}
    for row in document["inputs"]:
        shape = [sizes[size] if isinstance(size, str) else int(size) for size in row["shape"]]
        made[row["name"]] = torch.ones(shape, dtype=getattr(torch, row["dtype"]))
    return made
