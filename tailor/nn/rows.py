"""A base's outputs for many features: each feature's own rows, in batches that fit."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from tailor.core.contracts import UNTRAINED, Base, OutputSpec
from tailor.core.examples import Features


@torch.no_grad()
def rows_of_outputs(
    base: Base,
    output: OutputSpec,
    features: Sequence[Features],
    budget: int,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Iterator[tuple[int, Features, torch.Tensor, torch.Tensor]]:
    """For each feature, batch by batch: its index, itself as it was seen, its rows (rows, ...) in fp32, their targets.

    Masks are drawn as for no epoch of training; the model runs in the mode that it is in.

    Args:
        budget: tokens of one forward.
    """
    seen = base.draw(features, output, UNTRAINED)
    for indices in base.micro_batches(seen, budget):
        members = [seen[index] for index in indices]
        batch = base.collate(members, output).to(device)
        with autocast():
            logits = base.forward(base.model, batch).logits
        sizes = [sum(parts) for parts in batch.parts]
        yield from zip(indices, members, logits.float().split(sizes), batch.targets.split(sizes), strict=True)
