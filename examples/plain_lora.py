"""LoRA on a causal language model with nothing between you and torch, transformers and peft.

The no-abstraction twin of `tailor/engine/loop.py`: the same examples in the same order, the same loss and schedule, and
so the same adapter to the last digits that rounding leaves (the tests hold both against each other). What Tailor adds is
what this page lacks: packing, checkpoints that a crash leaves whole, other methods and objectives, proof, evaluation.

    python examples/plain_lora.py BASE ROWS.jsonl OUTPUT

BASE is a hub id or a folder with a chat template, ROWS.jsonl holds one {"prompt": ..., "completion": ...} per line.
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
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer


@dataclass(frozen=True)
class Settings:
    """The numbers of a run; Tailor's are in `tailor/recipe/train.py` and `tailor/recipe/methods.py`."""

    steps: int = 100
    examples_per_batch: int = 16
    examples_per_micro_batch: int = 4
    learning_rate: float = 2e-4
    warmup: float = 0.05
    rank: int = 16
    alpha: float = 32.0
    clip: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Encoded:
    """One example as tokens; `prompt` of them are given, and the rest is learned."""

    ids: list[int]
    prompt: int


def encode(tokenizer: Any, row: dict[str, str]) -> Encoded:
    """The conversation as the chat template writes it; what stands before the answer is not learned."""
    question = [{"role": "user", "content": row["prompt"]}]
    answer = [{"role": "assistant", "content": row["completion"]}]
    given = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(question + answer, tokenize=False)
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    prompt = sum(start < len(given) for start, _ in encoded["offset_mapping"])
    return Encoded(list(encoded["input_ids"]), prompt)


def loss_sum(model: Any, sequences: Sequence[Encoded]) -> tuple[torch.Tensor, int]:
    """Negative log-likelihood of every learned token, summed, and how many there are. Rows are padded on the right."""
    longest = max(len(sequence.ids) for sequence in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    real = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for row, sequence in enumerate(sequences):
        length = len(sequence.ids)
        ids[row, :length] = torch.tensor(sequence.ids)
        real[row, :length] = 1
        labels[row, sequence.prompt : length] = ids[row, sequence.prompt : length]
    logits = model(input_ids=ids, attention_mask=real, use_cache=False).logits[:, :-1].float()
    targets = labels[:, 1:]
    total = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")
    return total, int((targets != -100).sum())


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


def train(base: str, sequences: Sequence[Encoded], settings: Settings) -> tuple[Any, list[float]]:
    """The model with its trained adapter, and the loss at every step."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(settings.seed)
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, config)
    model.train()
    moving = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(moving, weight_decay=0.0)
    losses = []
    for step in range(settings.steps):
        batch = [sequences[index] for index in batch_of(settings, step, len(sequences))]
        optimizer.zero_grad()
        total, count = 0.0, 0
        for start in range(0, len(batch), settings.examples_per_micro_batch):
            loss, learned = loss_sum(model, batch[start : start + settings.examples_per_micro_batch])
            loss.backward()
            total, count = total + loss.item(), count + learned
        for value in moving:
            if value.grad is not None:
                value.grad /= count
        torch.nn.utils.clip_grad_norm_(moving, settings.clip)
        for group in optimizer.param_groups:
            group["lr"] = rate(settings, step)
        optimizer.step()
        losses.append(total / count)
    return model, losses


def main(base: str, rows: str, output: str) -> None:
    """Train on a file and save the adapter beside its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    lines = Path(rows).read_text(encoding="utf-8").splitlines()
    model, losses = train(base, [encode(tokenizer, json.loads(line)) for line in lines], Settings())
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}; the adapter lies in {output}")


if __name__ == "__main__":
    main(*sys.argv[1:])
