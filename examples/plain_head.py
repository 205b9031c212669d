"""A new head on a frozen encoder with nothing between you and torch and transformers: transfer learning by hand.

The no-abstraction twin of `tailor/engine/loop.py` with `tailor/methods/head.py`: the same examples in the same order,
the same loss and schedule, and so the same head to the last digits that rounding leaves (the tests hold both against
each other).

    python examples/plain_head.py BASE ROWS.jsonl OUTPUT

BASE is a hub id or a folder of a BERT-like model, ROWS.jsonl holds one {"text": ..., "label": ...} per line.
"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer


@dataclass(frozen=True)
class Settings:
    """The numbers of a run; Tailor's names for them stand in `tailor/recipe/train.py`."""

    steps: int = 200
    examples_per_batch: int = 16
    learning_rate: float = 1e-3
    warmup: float = 0.05
    clip: float = 1.0
    seed: int = 0


def rate(settings: Settings, step: int) -> float:
    """A linear rise, then half a cosine down to zero."""
    rising = math.ceil(settings.warmup * settings.steps)
    if step < rising:
        return settings.learning_rate * (step + 1) / rising
    progress = (step - rising) / max(1, settings.steps - rising)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def batch_of(settings: Settings, step: int, count: int) -> list[int]:
    """Which examples a step sees: each epoch in an order of its own."""
    epoch, place = divmod(step, math.ceil(count / settings.examples_per_batch))
    order = np.random.default_rng([settings.seed, epoch]).permutation(count).tolist()
    return order[place * settings.examples_per_batch : (place + 1) * settings.examples_per_batch]


def load(base: str, names: Sequence[str], seed: int) -> Any:
    """The encoder with a head for these labels, drawn at random."""
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_pretrained(
        base, dtype=torch.float32, id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)}
    )


def train(model: Any, tokenizer: Any, rows: Sequence[dict[str, str]], settings: Settings) -> list[float]:
    """Train the head in place; the loss at every step."""
    model.eval()  # a frozen trunk gives the same features every time: no dropout
    moving = []
    for name, value in model.named_parameters():
        # the head, and BERT's pooler, which a masked language model does not bring along
        value.requires_grad_(name.startswith("classifier.") or ".pooler." in name)
        if value.requires_grad:
            moving.append(value)
    optimizer = torch.optim.AdamW(moving, weight_decay=0.0)
    losses = []
    for step in range(settings.steps):
        batch = [rows[index] for index in batch_of(settings, step, len(rows))]
        inputs = tokenizer([row["text"] for row in batch], padding=True, truncation=True, return_tensors="pt")
        targets = torch.tensor([model.config.label2id[row["label"]] for row in batch])
        loss = cross_entropy(model(**inputs).logits.float(), targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(moving, settings.clip)
        for group in optimizer.param_groups:
            group["lr"] = rate(settings, step)
        optimizer.step()
        losses.append(loss.item())
    return losses


def main(base: str, rows: str, output: str) -> None:
    """Train on a file and save the whole model beside its tokenizer."""
    lines = [json.loads(line) for line in Path(rows).read_text(encoding="utf-8").splitlines()]
    settings, tokenizer = Settings(), AutoTokenizer.from_pretrained(base)
    model = load(base, sorted({line["label"] for line in lines}), settings.seed)
    losses = train(model, tokenizer, lines, settings)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}; the model lies in {output}")


if __name__ == "__main__":
    main(*sys.argv[1:])
