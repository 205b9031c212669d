"""BERT-like encoders, through transformers' own classes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from tailor.bases.beside import lay_on
from tailor.bases.heads import HEADS, TRUNK, load_with_head, outside_trunk, run_head
from tailor.bases.lengths import context_of
from tailor.bases.loading import Source, load_tokenizer
from tailor.bases.mean_pool import MeanPoolClassifier
from tailor.bases.texts import TextReader
from tailor.core.contracts import Batch, EncodeOptions, Head, Need, Outputs, OutputSpec
from tailor.core.errors import BaseError
from tailor.core.examples import Example, Features, Labelled, Tagged
from tailor.nn.segments import by_length


class EncoderBase:
    """An encoder with its tokenizer. The weights are loaded by `load`, not before."""

    family: ClassVar[str] = "encoder"
    has: ClassVar[frozenset[Need]] = frozenset({"linears", "embeddings", "blocks", "head", "weights"})
    heads: ClassVar[frozenset[Head]] = frozenset(HEADS)
    packing: ClassVar[None] = None

    def __init__(self, source: Source, options: EncodeOptions) -> None:
        self.source = source
        self.name = source.name
        self.options = options
        self.tokenizer = load_tokenizer(source)
        self.context = context_of(source.config, self.tokenizer) - max(options.reserved, source.virtual_tokens)
        self.limit = options.max_length or self.context
        self.model: Any = None
        self.new_parameters: list[str] = []
        self.head: Head = "labels"
        reader = TextReader(self.tokenizer, self.limit, options.on_overlong)
        self.encoders: Mapping[type[Example], Callable[[Any], list[Features]]] = {
            Labelled: reader.labelled,
            Tagged: reader.tagged,
        }

    @property
    def new_head(self) -> bool:
        """Whether the head was made for this task, so that the base alone cannot do it."""
        return bool(self.new_parameters)

    def load(self, output: OutputSpec, dtype: torch.dtype) -> None:
        """Load the trunk in `dtype` with a head of the given outputs; a matching head in the checkpoint is kept."""
        if output.head not in self.heads:
            raise BaseError(f"an encoder gives {', '.join(sorted(self.heads))} and not {output.head}", where=self.name)
        loaded = load_with_head(self.source, output, dtype)
        self.model, self.new_parameters, self.head = loaded.model, loaded.new, output.head
        if not loaded.new:
            self.model = lay_on(self.source, self.model)

    def head_parameters(self) -> list[str]:
        """Parameters that belong to the task: everything outside the trunk, and a pooler the checkpoint lacked."""
        if isinstance(self.model, MeanPoolClassifier) or self.head in TRUNK:
            return self.new_parameters
        return sorted({*outside_trunk(self.model), *self.new_parameters})

    def pad_rows(self, reason: str) -> None:
        """They are."""

    def micro_batches(self, features: Sequence[Features], budget: int) -> list[list[int]]:
        """Indices of the features of each micro-batch: rows of like length, within a budget of cells."""
        return by_length([len(feature) for feature in features], budget)

    def draw(self, features: Sequence[Features], output: OutputSpec, key: tuple[int, int]) -> list[Features]:
        """The examples as they are."""
        return list(features)

    def collate(self, features: Sequence[Features], output: OutputSpec) -> Batch:
        """A padded batch (B, L)."""
        return HEADS[output.head].batch(features, output, self.tokenizer.pad_token_id or 0)

    def forward(self, model: torch.nn.Module, batch: Batch) -> Outputs:
        """The rows of outputs that the batch asks for."""
        return run_head(model, batch, self.head)

    def save(self, model: Any, folder: Path) -> None:
        """A transformers folder that stock classes load."""
        model.save_pretrained(folder)

    def save_tokenizer(self, folder: Path) -> None:
        """The tokenizer, as it was."""
        self.tokenizer.save_pretrained(folder)
