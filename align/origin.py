"""What the results of alignment, rollout and export are made from. Needs neither torch nor the simulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from align.config import STAGE_VERSION, AlignConfig, ExportConfig, RolloutConfig
from data.simulation.config import SimulateConfig
from extract.config import ExtractConfig
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.fingerprint import digest, file_sha256, read_done, require_done
from pretrain.shards import training_identity

WEIGHTS = "model.safetensors"


def predictor_folder(config: Config, settings: AlignConfig) -> Path:
    """The pretrained predictor to start from. Raises UserError when there is none."""
    if settings.predictor is None:
        require_done(config.folder("pretrain"), "pretrain")
        return config.folder("pretrain") / "model"
    if not (settings.predictor / WEIGHTS).is_file():
        raise UserError(f"{config.path}: align.predictor: {settings.predictor} holds no {WEIGHTS}.")
    return settings.predictor


def policy_folder(config: Config) -> Path:
    """The aligned policy of the run. Raises UserError when alignment has not finished."""
    require_done(config.folder("align"), "align")
    return config.folder("align") / "model"


def align_made_from(config: Config, settings: AlignConfig) -> dict[str, Any]:
    """Everything that decides the aligned policy, one JSON document."""
    weights = file_sha256(predictor_folder(config, settings) / WEIGHTS)
    return training_identity(config, "align", STAGE_VERSION, settings, predictor_sha256=weights)


def rollout_made_from(config: Config, settings: RolloutConfig) -> dict[str, Any]:
    """Everything that decides the result of the rollouts."""
    scenes, extraction = config.section("simulate", SimulateConfig), config.section("extract", ExtractConfig)
    shown = {"resolution", "camera_jitter_m", "extra_object_range_m", "show_goal_tasks", "action_mixing"}
    document = {
        "stage": "rollout",
        "stage_version": STAGE_VERSION,
        "settings": settings.model_dump(mode="json", exclude={"timeout_s", "device"}),
        "seed": config.run.seed,
        "policy_sha256": file_sha256(policy_folder(config) / WEIGHTS),
        "scenes": scenes.model_dump(mode="json", include=shown),
        "extract": extraction.model_dump(mode="json", include={"mask", "gripper", "image_side"}),
    }
    return json.loads(json.dumps(document))


def export_made_from(config: Config, settings: ExportConfig) -> dict[str, Any]:
    """Everything that decides the exported folder: the policy and the results told in its card."""
    policy = file_sha256(policy_folder(config) / WEIGHTS)
    rollout = rollout_of(config, policy)
    document = {
        "stage": "export",
        "stage_version": STAGE_VERSION,
        "settings": settings.model_dump(mode="json"),
        "policy_sha256": policy,
        "modelling_sha256": modelling_sha256(),
        "eval": digest(json.loads((config.folder("align") / "eval.json").read_text())),
        "rollout": None if rollout is None else digest(rollout),
    }
    return json.loads(json.dumps(document))


def rollout_of(config: Config, policy_sha256: str) -> dict[str, Any] | None:
    """RUN/rollout/rollout.json; None where the stage has not finished, or tried another policy than this one."""
    mark = read_done(config.folder("rollout"))
    if mark is None or mark["made_from"]["policy_sha256"] != policy_sha256:
        return None
    return json.loads((config.folder("rollout") / "rollout.json").read_text())


def modelling_files() -> list[Path]:
    """The self-contained files that an exported policy carries."""
    return sorted((Path(__file__).resolve().parent.parent / "pretrain" / "model").glob("[a-z]*.py"))


def modelling_sha256() -> str:
    """What decides the behaviour of the exported code."""
    return digest({path.name: file_sha256(path) for path in modelling_files()})
