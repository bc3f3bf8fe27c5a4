"""The loss of alignment: how normalised actions are learned, plus the predictor's own loss.

Shapes: B windows, K actions in a chunk, A action dimensions.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from align.config import ActionLoss
from pretrain.config import ObjectiveSettings
from pretrain.model.direct import bins_of
from pretrain.model.policy_kinecloud import PolicyPrediction
from pretrain.objectives import Loss, loss_of, on_the_way
from pretrain.randomness import WindowRandom

_SMOOTH = 0.1  # normalised errors below this count quadratically


def action_errors(
    prediction: PolicyPrediction, true_BKA: Tensor, valid_BK: Tensor, kind: ActionLoss
) -> tuple[Tensor, Tensor]:
    """Mean error of normalised actions per window [B], and whether the window has any action [B].

    kind: ``l1``, ``smooth_l1`` (quadratic below 0.1), ``flow_matching`` (square, of the actions behind noised ones) or
    ``binned`` (cross-entropy). Actions beyond the end of a clip do not count.
    """
    ours_BKA = prediction.actions.float()
    if kind == "l1":
        error_BKA = (ours_BKA - true_BKA).abs()
    elif kind == "smooth_l1":
        error_BKA = F.smooth_l1_loss(ours_BKA, true_BKA, beta=_SMOOTH, reduction="none")
    elif kind == "flow_matching":
        error_BKA = (ours_BKA - true_BKA).square()
    else:
        assert prediction.action_logits is not None
        logits_BCKA = prediction.action_logits.float().movedim(-1, 1)
        error_BKA = F.cross_entropy(logits_BCKA, bins_of(true_BKA), reduction="none")
    error_BK = torch.where(valid_BK, error_BKA.mean(-1), torch.zeros_like(error_BKA[..., 0]))
    return error_BK.sum(1) / valid_BK.sum(1).clamp(min=1), valid_BK.any(1)


def noised_actions(true_BKA: Tensor, random: WindowRandom) -> dict[str, Tensor]:
    """What a head that learns by flow matching is given instead of normalised actions."""
    place_BKA, _, tau_B = on_the_way(true_BKA, random)
    return {"noised_actions": place_BKA, "action_tau": tau_B}


def alignment_loss(
    prediction: PolicyPrediction,
    true_BKA: Tensor,
    window: dict[str, Any],
    kind: ActionLoss,
    dynamics: float,
    objective: ObjectiveSettings,
    labelled: float = 1.0,
) -> Loss:
    """Action loss plus ``dynamics`` times the pretraining loss. true_BKA: normalised actions. labelled: share of the
    windows that have actions, in the long run; those without count for the pretraining loss alone."""
    error_B, _ = action_errors(prediction, true_BKA, window["actions_valid"], kind)
    error_B = error_B / labelled  # so that the mean over all windows is that of those with actions
    action = error_B.mean()
    terms = {"action": action.detach()}
    if dynamics == 0:
        return Loss(action, terms, error_B.detach())
    motion = loss_of(prediction, window, objective)
    total = action + dynamics * motion.total
    return Loss(total, terms | motion.terms, error_B.detach() + dynamics * motion.per_window_B)
