"""A linear layer on the mean of the token states: the head of sentence encoders (Reimers & Gurevych 2019)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers.modeling_outputs import SequenceClassifierOutput

MEAN_POOL_FILE = "mean_pool_head.safetensors"


def mean_of_tokens(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over real tokens: states (B, L, hidden), mask (B, L) of 0 and 1, result (B, hidden)."""
    weights = mask[..., None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1)


class MeanPoolClassifier(torch.nn.Module):
    """A trunk, its mean-pooled states, and one linear layer."""

    base_model_prefix = "trunk"

    def __init__(self, trunk: Any, labels: Sequence[str], problem: str) -> None:
        super().__init__()
        self.trunk = trunk
        if getattr(trunk, "pooler", None) is not None:
            trunk.pooler = None  # the mean stands in its place, and an unused one would only be saved untrained
        self.config = trunk.config
        self.config.id2label = dict(enumerate(labels))
        self.config.label2id = {name: index for index, name in enumerate(labels)}
        self.config.problem_type = problem or None
        self.classifier = torch.nn.Linear(trunk.config.hidden_size, len(labels))
        torch.nn.init.zeros_(self.classifier.weight)
        torch.nn.init.zeros_(self.classifier.bias)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **inputs: Any) -> SequenceClassifierOutput:
        """Logits (B, labels)."""
        states = self.trunk(input_ids=input_ids, attention_mask=attention_mask, **inputs).last_hidden_state
        return SequenceClassifierOutput(logits=self.classifier(mean_of_tokens(states, attention_mask)))

    def save_pretrained(self, folder: Path) -> None:
        """The trunk as a transformers folder, the head beside it."""
        self.trunk.save_pretrained(folder)
        weights = {name: value.contiguous() for name, value in self.classifier.state_dict().items()}
        save_file(weights, Path(folder) / MEAN_POOL_FILE)

    def load_head(self, folder: Path) -> None:
        """The head that `save_pretrained` wrote."""
        self.classifier.load_state_dict(load_file(Path(folder) / MEAN_POOL_FILE))
