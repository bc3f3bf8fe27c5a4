"""Errors of a policy's actions on held-out labelled clips, in their physical units, beside two references.

Shapes: B windows, K actions in a chunk, A action dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from align.policy import load_policy
from align.report import write_section
from align.run import AlignRun
from data.clips import Clip
from data.loader import WindowDataset
from pipeline.atomic import write_json
from pretrain.model.policy_kinecloud import KinecloudPolicy
from pretrain.reading import clip_windows

POLICY, REPEAT, MEAN = "policy", "repeat last action", "dataset mean"


@torch.no_grad()
def predicted_actions(policy: KinecloudPolicy, window: dict[str, Any]) -> torch.Tensor:
    """Actions of a batch of windows in physical units, f32 [B,K,A], on the CPU."""
    inputs = {name: v.to(policy.device) if isinstance(v, torch.Tensor) else v for name, v in window.items()}
    was_training = policy.training
    actions = policy.denormalize(policy.eval()(**inputs).actions.float(), "action").cpu()
    policy.train(was_training)
    return actions


def validation_error(policy: KinecloudPolicy, dataset: WindowDataset, windows: int) -> float | None:
    """Mean absolute error of normalised actions over about ``windows`` held-out windows; None when there are none."""
    stride = max(1, -(-len(dataset) // windows))
    total, count = 0.0, 0
    for _, window in clip_windows(dataset, stride):
        ours, true = (
            policy.normalize(a.to(policy.device), "action").cpu()
            for a in (predicted_actions(policy, window), window["actions"])
        )
        error_BKA = (ours - true).abs()[window["actions_valid"]]
        total, count = total + float(error_BKA.sum()), count + error_BKA.numel()
    return total / count if count else None


def last_actions(clip: Clip, window: dict[str, Any], before_first_A: np.ndarray) -> np.ndarray:
    """The action executed just before each window, [B,A]; ``before_first_A`` where there was none."""
    now_B = np.searchsorted(clip.arrays["timestamps"], window["time"].numpy() - 1e-6)
    actions_TA = clip.arrays["actions"]
    return np.where((now_B > 0)[:, None], actions_TA[np.maximum(now_B - 1, 0)], before_first_A)


def score(policy: KinecloudPolicy, dataset: WindowDataset, mean_action_A: np.ndarray) -> dict[str, Any]:
    """Mean absolute errors by method: per dimension over the whole chunk, and of the first action alone."""
    sums: dict[str, list[np.ndarray]] = {POLICY: [], REPEAT: [], MEAN: []}
    valid: list[np.ndarray] = []
    groups: set[str] = set()
    for clip, window in clip_windows(dataset, 1):
        groups.add(clip.meta.group)
        true_BKA = window["actions"].numpy()
        last_B1A = last_actions(clip, window, mean_action_A)[:, None]
        valid.append(window["actions_valid"].numpy())
        sums[POLICY].append(np.abs(predicted_actions(policy, window).numpy() - true_BKA))
        sums[REPEAT].append(np.abs(last_B1A - true_BKA))
        sums[MEAN].append(np.abs(mean_action_A - true_BKA))
    if not valid:
        return {"windows": 0, "episodes": 0, "errors": {}}
    valid_WK = np.concatenate(valid)
    errors = {}
    for method, parts in sums.items():
        error_WKA = np.concatenate(parts)
        errors[method] = {
            "chunk": error_WKA[valid_WK].mean(0).tolist(),
            "first": error_WKA[valid_WK[:, 0], 0].mean(0).tolist(),
            "by_step": [
                float(error_WKA[valid_WK[:, k], k].mean()) if valid_WK[:, k].any() else None
                for k in range(valid_WK.shape[1])
            ],
        }
    return {"windows": len(valid_WK), "episodes": len(groups), "errors": errors}


def evaluate(run: AlignRun, head: str) -> dict[str, Any]:
    """Scores the published policy on the held-out labelled clips; writes RUN/align/eval.json and the report section.

    head: what it is and how it came about, for people.
    """
    policy = load_policy(run.folder / "model")
    policy.to(run.accelerator.device)  # pyright: ignore[reportArgumentType]
    spec = run.labelled.spec
    document = {
        "names": spec.names,
        "unit": spec.unit,
        "rate_hz": spec.rate_hz,
        **score(policy, run.val_windows, run.labelled.mean_action_A),
    }
    write_json(run.folder / "eval.json", document)
    for method, error in document["errors"].items():
        values = ", ".join(f"{name} {value:.3f}" for name, value in zip(spec.names, error["chunk"], strict=True))
        run.say(f"held-out action error, {method}: {values} ({spec.unit})")
    if not document["windows"]:
        run.say("no held-out labelled windows, so the policy was not evaluated")
    write_section(run.folder, document, run.labelled.summary(), head, trained=run.settings.head == "direct")
    return document
