"""Losses as sum and weight, in fp32. The engine divides once per optimizer step, so no mean of means can arise."""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

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
