"""The loss of alignment: regression of normalised actions, plus the predictor's own loss.

Shapes: B windows, K actions in a chunk, A action dimensions.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.config import ObjectiveSettings
from pretrain.model.modeling_kinecloud import KinecloudPrediction
from pretrain.objectives import Loss, loss_of

_SMOOTH = 0.1  # normalised errors below this count quadratically


def action_errors(actions_BKA: Tensor, true_BKA: Tensor, valid_BK: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Mean error of normalised actions per window [B], and whether the window has any action [B].

    kind: ``l1``, or ``smooth_l1`` (quadratic below 0.1). Actions beyond the end of a clip do not count.
    """
    if kind == "l1":
        error_BKA = (actions_BKA - true_BKA).abs()
    else:
        error_BKA = F.smooth_l1_loss(actions_BKA, true_BKA, beta=_SMOOTH, reduction="none")
    error_BK = torch.where(valid_BK, error_BKA.mean(-1), torch.zeros_like(error_BKA[..., 0]))
    return error_BK.sum(1) / valid_BK.sum(1).clamp(min=1), valid_BK.any(1)


def alignment_loss(
    prediction: KinecloudPrediction,
    true_BKA: Tensor,
    window: dict[str, Any],
    kind: str,
    dynamics: float,
    objective: ObjectiveSettings,
    labelled: float = 1.0,
) -> Loss:
    """Action loss plus ``dynamics`` times the pretraining loss. true_BKA: normalised actions. labelled: share of the
    windows that have actions, in the long run; those without count for the pretraining loss alone."""
    error_B, _ = action_errors(prediction.actions.float(), true_BKA, window["actions_valid"], kind)
    error_B = error_B / labelled  # so that the mean over all windows is that of those with actions
    action = error_B.mean()
    terms = {"action": action.detach()}
    if dynamics == 0:
        return Loss(action, terms, error_B.detach())
    motion = loss_of(prediction, window, objective)
    total = action + dynamics * motion.total
    return Loss(total, terms | motion.terms, error_B.detach() + dynamics * motion.per_window_B)
