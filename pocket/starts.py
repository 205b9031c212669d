"""Where the causal base starts: pairs of heads that look back, set by hand before the first step.

A model of this size needs billions of tokens to find induction by itself (Olsson et al. 2022, arXiv 2209.11895), far more
than a toy sees. So two pairs of heads are given: one that attends to the token before and carries it along, and, a layer
above, one that attends to where its own token stood before and repeats what followed. Structured starts of attention are
known to spare pre-training (Trockman and Kolter 2023, arXiv 2305.09828). Every weight is trained from there on.
"""

import math

import torch
from transformers import LlamaForCausalLM

EMBEDDINGS = 0.1
"""Standard deviation of the embeddings: large enough for tokens to stand out of what untrained layers add."""
LOOKING_BACK, MATCHING = 8.0, 2.5
"""How sharply the first head of a pair attends to its place, and the second one to a token's like."""
CARRIED = 0.1
"""The share of the token before that the first head writes into the stream."""
PAIRS = ((0, 1, 1.0), (3, 4, 0.5))
"""Layers of the two heads of each pair, and how much of what it finds the second one repeats."""
FAST, SLOW = 0.05, 0.02
"""Rotary frequencies (radians per token) that tell neighbours apart, and those that hardly turn within the context."""


def frequencies(model: LlamaForCausalLM) -> torch.Tensor:
    """The rotary frequencies of a head, (head width / 2)."""
    return model.model.rotary_emb.inv_freq


def spread(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    """A random matrix with orthonormal rows or columns, whichever are fewer."""
    tall, _ = torch.linalg.qr(torch.randn(max(rows, columns), min(rows, columns), generator=generator))
    return tall if rows >= columns else tall.T


def look_back(
    model: LlamaForCausalLM, layer: int, head: int, distance: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Have a head attend to the token `distance` before; returns what it reads (width, hidden) and writes (hidden, width).

    Queries and keys are mostly their biases, turned against each other so that the rotation cancels at that distance.
    """
    attention = model.model.layers[layer].self_attn
    width, hidden = attention.head_dim, model.config.hidden_size
    rows = slice(head * width, (head + 1) * width)
    turns = frequencies(model)
    strength = math.sqrt(LOOKING_BACK * math.sqrt(width)) * (turns > FAST)
    attention.q_proj.weight[rows] *= 0.1
    attention.k_proj.weight[rows] *= 0.1
    attention.k_proj.bias[rows] = torch.cat([strength, torch.zeros_like(strength)])
    angle = -distance * turns
    attention.q_proj.bias[rows] = torch.cat([strength * angle.cos(), strength * angle.sin()])
    reads, writes = spread(width, hidden, generator), spread(hidden, width, generator)
    attention.v_proj.weight[rows] = reads
    attention.o_proj.weight[:, rows] = writes * CARRIED
    return reads, writes


def match(
    model: LlamaForCausalLM,
    layer: int,
    before: tuple[torch.Tensor, torch.Tensor],
    repeats: float,
    generator: torch.Generator,
) -> None:
    """Have the layer's first head find the place whose token before is the present one, and repeat what stands there."""
    attention = model.model.layers[layer].self_attn
    reads, writes = before
    width = attention.head_dim
    steady = torch.where(frequencies(model) < SLOW, 1.0, 0.1).repeat(2)[:, None] * MATCHING
    attention.q_proj.weight[:width] = reads * steady
    attention.k_proj.weight[:width] = writes.T * steady
    found = spread(width, model.config.hidden_size, generator)
    attention.v_proj.weight[:width] = found
    attention.o_proj.weight[:, :width] = found.T * repeats


@torch.no_grad()
def give_heads_that_look_back(model: LlamaForCausalLM, seed: int) -> None:
    """Set the pairs, and one more head that looks two tokens back; all other weights stay as they were drawn."""
    generator = torch.Generator().manual_seed(seed)
    model.model.embed_tokens.weight.normal_(0, EMBEDDINGS, generator=generator)
    for first, second, repeats in PAIRS:
        match(model, second, look_back(model, first, 0, 1, generator), repeats, generator)
    look_back(model, PAIRS[0][0], 1, 2, generator)
