"""Features of texts by a base's frozen trunk: the mean of its token states, by which labels are judged."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import AutoModel

from tailor.bases.mean_pool import mean_of_tokens
from tailor.bases.weights import load_weights
from tailor.data.quality.examine import Embed
from tailor.engine.place import available_devices, settle_threads

LONGEST = 256
"""Tokens that are read of a text: what it is about, it says early."""
ROWS = 32


def embedder(base: Any) -> Embed | None:
    """How to get features of texts from a base; None where it has no trunk for texts."""
    return partial(embed, base) if {"linears", "weights"} <= base.has and hasattr(base, "tokenizer") else None


@torch.no_grad()
def embed(base: Any, texts: Sequence[str]) -> np.ndarray:
    """(texts, width) in fp32, each of length 1."""
    device = available_devices()[0]
    settle_threads(device, base.source.parameters())
    trunk = load_weights(base.source, AutoModel, torch.float32)[0].eval().to(device)
    trunk = trunk.get_encoder() if trunk.config.is_encoder_decoder else trunk
    rows = [base.tokenizer(text, truncation=True, max_length=min(LONGEST, base.limit))["input_ids"] for text in texts]
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    found = np.zeros((len(rows), trunk.config.hidden_size), dtype=np.float32)
    for start in range(0, len(order), ROWS):
        some = order[start : start + ROWS]
        width = max(1, *(len(rows[row]) for row in some))
        ids = torch.zeros(len(some), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(some):
            ids[place, : len(rows[row])] = torch.tensor(rows[row], dtype=torch.long)
            mask[place, : len(rows[row])] = 1
        mask[:, 0] = 1  # a text without tokens is its padding
        states = trunk(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
        found[some] = torch.nn.functional.normalize(mean_of_tokens(states, mask.to(device)), dim=-1).cpu().numpy()
    return found
