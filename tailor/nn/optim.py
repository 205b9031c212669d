"""Optimizer groups and schedules, as pure functions."""

import math
from collections.abc import Mapping
from typing import Any

import torch


def decayed_groups(
    parameters: Mapping[str, torch.nn.Parameter], weight_decay: float, shares: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Groups by decay and `share`, the multiple of the learning rate: matrices decay, vectors (biases, norms) do not.

    A matrix with one row or column is a vector too: (IA)^3's factors, which would decay away from one.
    """
    groups: dict[tuple[bool, float], list[torch.nn.Parameter]] = {}
    for name, parameter in parameters.items():
        vector = sum(size > 1 for size in parameter.shape) < 2
        groups.setdefault((vector, (shares or {}).get(name, 1.0)), []).append(parameter)
    return [
        {"params": some, "weight_decay": 0.0 if vector else weight_decay, "share": share}
        for (vector, share), some in sorted(groups.items(), key=lambda item: item[0])
    ]


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
