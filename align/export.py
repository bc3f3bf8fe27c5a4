"""The export stage: the policy as one folder that needs nothing of this repository.

RUN/export/policy/config.json               sizes and meanings, with the entry for ``trust_remote_code``
                  model.safetensors         all weights and normalisation buffers
                  *.py                      the model, copied as it is
                  tokenizer*.json           of a text encoder, when the model has one
                  normalization.json        quantiles for those who do not read tensors
                  provenance.json           what it was made from and how well it did
                  README.md                 the model card
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from align.card import loading, model_card
from align.config import ExportConfig
from align.origin import WEIGHTS, modelling_files, modelling_sha256, policy_folder, rollout_of
from align.policy import load_policy
from data.index import has_index, read_index
from data.schema import SCHEMA_VERSION
from pipeline.atomic import publishing_dir, write_json
from pipeline.config import Config
from pipeline.fingerprint import DONE, digest, file_sha256, mark_done, read_done
from pipeline.logs import StageLog
from pipeline.runner import versions
from pipeline.section import Section
from pretrain.model.configuration_kinecloud import KinecloudConfig
from pretrain.model.policy_kinecloud import KinecloudPolicy

STAGE = "export"
ORDER = 80
AUTO_MAP = {
    "AutoConfig": "configuration_kinecloud.KinecloudConfig",
    "AutoModel": "policy_kinecloud.KinecloudPolicy",
}


def export(config: Config, document: dict[str, Any]) -> None:
    """Publishes the run's policy as RUN/export/policy and writes the report section.

    Raises UserError when alignment has not finished.
    """
    folder, source = config.folder(STAGE), policy_folder(config)
    settings = config.section(STAGE, ExportConfig)
    log = StageLog(config.run.out, STAGE)
    (folder / DONE).unlink(missing_ok=True)
    policy = load_policy(source)
    architecture, provenance = config_of(policy), provenance_of(config, settings)
    with publishing_dir(folder / "policy") as temporary:
        shutil.copyfile(source / WEIGHTS, temporary / WEIGHTS)
        for path in modelling_files():
            shutil.copyfile(path, temporary / path.name)
        policy.save_tokenizer(temporary)
        stored = json.loads((source / "config.json").read_text())
        write_json(temporary / "config.json", {**stored, "auto_map": AUTO_MAP, "architectures": ["KinecloudPolicy"]})
        write_json(temporary / "normalization.json", normalization_of(policy))
        write_json(temporary / "provenance.json", provenance)
        (temporary / "README.md").write_text(model_card(architecture, provenance))
    _write_section(folder, architecture, provenance)
    mark_done(folder, document)
    log.info(f"done: {folder / 'policy'}")


def config_of(policy: KinecloudPolicy) -> KinecloudConfig:
    """Sizes and meanings of the policy's inputs and outputs."""
    assert isinstance(policy.config, KinecloudConfig)
    return policy.config


def normalization_of(policy: KinecloudPolicy) -> dict[str, Any]:
    """Names and quantiles of actions and proprioception; the same numbers are buffers of the model."""
    spec = policy.config.action_spec or {}
    names = {"action": policy.config.action_names, "proprio": policy.config.proprio_names}
    result: dict[str, Any] = {
        "formula": "normalized = 2 (value - q01) / (q99 - q01) - 1; 0 where q99 = q01",
        "unit": spec.get("unit"),
        "frame": spec.get("frame"),
    }
    for kind, labels in names.items():
        result[kind] = {
            "names": labels,
            **{name: policy.get_buffer(f"{kind}_{name}").double().tolist() for name in ("q01", "q99")},
        }
    return result


def provenance_of(config: Config, settings: ExportConfig) -> dict[str, Any]:
    """Data, configuration, versions and results, as far as the run's folders tell."""
    align_mark = read_done(config.folder("align")) or {}
    pretrain_mark = read_done(config.folder("pretrain"))
    pack_mark = read_done(config.folder("pack"))
    policy = file_sha256(policy_folder(config) / WEIGHTS)
    return {
        "license": settings.license,
        "data": _data(config),
        "labelled": align_mark["labelled"],
        "schema_version": SCHEMA_VERSION,
        "pack_fingerprint": digest(pack_mark["made_from"]) if pack_mark else None,
        "pretrain": _training(pretrain_mark),
        "align": _training(align_mark),
        "seed": config.run.seed,
        "policy_sha256": policy,
        "modelling_sha256": modelling_sha256(),
        "versions": versions(),
        "evaluation": {
            "pretrain": _read(config.folder("pretrain") / "eval.json"),
            "align": _read(config.folder("align") / "eval.json"),
            "rollout": _without_episodes(rollout_of(config, policy)),
        },
    }


def _data(config: Config) -> dict[str, Any]:
    """Packed clips by split, and the sources with their declared licences."""
    summary = _read(config.folder("pack") / "summary.json") or {}
    index = config.folder("index")
    episodes = read_index(index) if has_index(index) else []
    licenses: dict[str, set[str]] = {}
    for episode in episodes:
        licenses.setdefault(episode.source, set()).add(episode.license or "not declared")
    return {
        "splits": summary.get("splits", {}),
        "sources": {source: sorted(found) for source, found in sorted(licenses.items())},
        "episodes": len(episodes),
        "simulated_episodes": sum(episode.sidecar.simulated for episode in episodes),
    }


def _training(mark: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if mark is None else {"made_from": mark["made_from"], "best": mark.get("best")}


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def _without_episodes(rollout: dict[str, Any] | None) -> dict[str, Any] | None:
    if rollout is None:
        return None
    return {**rollout, "tasks": [{k: v for k, v in row.items() if k != "episodes"} for row in rollout["tasks"]]}


def _write_section(folder: Path, config: KinecloudConfig, provenance: dict[str, Any]) -> None:
    section = Section("Exported policy", ORDER)
    section.summary("The policy is a folder that loads anywhere with torch and transformers, without this repository.")
    files = sorted((folder / "policy").iterdir())
    section.table("Files", ["file", "kilobytes"], [[path.name, round(path.stat().st_size / 1000, 1)] for path in files])
    section.text(f"To load it and ask for actions:\n\n{loading(config)}")
    section.facts(
        [
            ("folder", str((folder / "policy").resolve())),
            ("licence declared", provenance["license"] or "none"),
            ("weights, SHA-256", provenance["policy_sha256"]),
        ]
    )
    section.save(folder)
