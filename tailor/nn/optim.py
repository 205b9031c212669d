"""Optimizer groups and schedules, as pure functions."""

import math
from collections.abc import Mapping
from typing import Any

import torch


def decayed_groups(parameters: Mapping[str, torch.nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices, which decay, and vectors (biases, norms), which do not."""
    matrices = [parameter for parameter in parameters.values() if parameter.ndim >= 2]
    vectors = [parameter for parameter in parameters.values() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def schedule(name: str, step: int, total: int, warmup: float, final: float) -> float:
    """The factor on the peak learning rate at a 0-based step.

    Rises linearly over `ceil(warmup * total)` steps, reaching 1 at the last of them, then falls to `final` at step
    `total` by the named curve (`constant` stays at 1).
    """
    rising = math.ceil(warmup * total)
    if step < rising:
        return (step + 1) / rising
    if name == "constant":
        return 1.0
    progress = (step - rising) / max(1, total - rising)
    curve = 0.5 * (1 + math.cos(math.pi * progress)) if name == "cosine" else 1 - progress
    return final + (1 - final) * curve
