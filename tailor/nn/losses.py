"""Losses as sum and weight, in fp32. The engine divides once per optimizer step, so no mean of means can arise."""

from collections.abc import Sequence

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, logsigmoid, mse_loss, softplus

from tailor.core.contracts import LossSum


def cross_entropy_sum(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> LossSum:
    """Weighted negative log-likelihood, in nats.

    Args:
        logits: (rows, classes), any float dtype; the loss is taken in fp32.
        targets: (rows,) class indices.
        weights: (rows,) float32.
    """
    losses = cross_entropy(logits.float(), targets, reduction="none")
    return LossSum((losses * weights).sum(), float(weights.sum()))


def binary_cross_entropy_sum(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> LossSum:
    """Mean over labels of the binary losses, summed over rows; `targets` (rows, labels) holds 0 and 1."""
    losses = binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="none").mean(-1)
    return LossSum((losses * weights).sum(), float(weights.sum()))


def squared_error_sum(outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> LossSum:
    """Squared error, summed over rows; `outputs` (rows, 1), `targets` (rows,)."""
    losses = mse_loss(outputs.float().squeeze(-1), targets.float(), reduction="none")
    return LossSum((losses * weights).sum(), float(weights.sum()))


def in_batch_negatives_sum(
    cosines: torch.Tensor, targets: torch.Tensor, excluded: torch.Tensor, scale: float
) -> LossSum:
    """Cross-entropy of each anchor's own text among all texts of the batch (Henderson et al. 2017).

    Args:
        cosines: (anchors, texts).
        targets: (anchors,) the place of each anchor's own text.
        excluded: (anchors, texts) texts that are right as well, or the same, and so no negatives.
        scale: what a cosine is multiplied by.
    """
    logits = (cosines.float() * scale).masked_fill(excluded, float("-inf"))
    return LossSum(cross_entropy(logits, targets, reduction="sum"), float(len(targets)))


def cosent_sum(cosines: torch.Tensor, scores: torch.Tensor, scale: float) -> LossSum:
    """log(1 + sum over pairs of rows of exp(scale (lower - higher))): whatever scores more should be more alike (CoSENT).

    Only the order of the scores matters, so that no scale of them has to be hit. One unit of weight per row.

    Args:
        cosines, scores: (rows,).
    """
    gaps = scale * (cosines.float()[:, None] - cosines.float()[None])
    wrong = gaps.masked_fill(scores[:, None] >= scores[None], float("-inf")).flatten()
    return LossSum(softplus(torch.logsumexp(wrong, 0)) * len(scores), float(len(scores)))


def sequence_log_probabilities(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, sizes: Sequence[int]
) -> torch.Tensor:
    """Weighted sum of each sequence's log-probabilities, in nats, (sequences,) in fp32.

    Args:
        logits: (rows, vocabulary); targets, weights: (rows,).
        sizes: how many rows belong to each sequence, in order.
    """
    found = -cross_entropy(logits.float(), targets, reduction="none") * weights
    return torch.stack([part.sum() for part in found.split(list(sizes))])


def reward_margins(log_probabilities: torch.Tensor, reference: torch.Tensor, beta: float) -> torch.Tensor:
    """By how much more the chosen answer has gained on the reference than the rejected one, times beta: (pairs,).

    Args:
        log_probabilities, reference: (pairs, 2), of the chosen and the rejected answer.
    """
    gained = log_probabilities - reference
    return beta * (gained[:, 0] - gained[:, 1])


def preference_sum(log_probabilities: torch.Tensor, reference: torch.Tensor, beta: float) -> LossSum:
    """The sigmoid loss of direct preference optimisation (Rafailov et al. 2023, equation 7); one unit of weight per pair."""
    losses = -logsigmoid(reward_margins(log_probabilities, reference, beta))
    return LossSum(losses.sum(), float(len(losses)))
