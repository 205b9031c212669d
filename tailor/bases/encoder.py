"""BERT-like encoders, through transformers' own classes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from tailor.bases.beside import lay_on
from tailor.bases.heads import HEADS, TRUNK, inputs_alone, load_with_head, outside_trunk, run_head
from tailor.bases.lengths import RAW_TEXT_LIMIT, context_of
from tailor.bases.loading import Source, load_tokenizer
from tailor.bases.masking import Masking
from tailor.bases.mean_pool import MeanPoolClassifier
from tailor.bases.sentence_encoder import write_sentence_encoder
from tailor.bases.texts import TextReader
from tailor.core.contracts import Batch, EncodeOptions, Head, Need, Outputs, OutputSpec
from tailor.core.errors import BaseError
from tailor.core.examples import Example, Features, Labelled, Pair, Span, Tagged, Text
from tailor.nn.segments import by_length


class EncoderBase:
    """An encoder with its tokenizer. The weights are loaded by `load`, not before."""

    family: ClassVar[str] = "encoder"
    has: ClassVar[frozenset[Need]] = frozenset({"linears", "embeddings", "blocks", "head", "weights"})
    heads: ClassVar[frozenset[Head]] = frozenset(HEADS)
    text_head: ClassVar[Head] = "masked"
    packing: ClassVar[None] = None
    pools: ClassVar[bool] = True

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
        self.masking = Masking(self.tokenizer)
        reader = TextReader(self.tokenizer, self.limit, options.on_overlong)
        self.encoders: Mapping[type[Example], Callable[[Any], list[Features]]] = {
            Labelled: reader.labelled,
            Tagged: reader.tagged,
            Span: reader.asked,
            Pair: reader.compared,
            Text: self._encode_text,
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
        """Parameters that belong to the task: everything outside the trunk, and a pooler the checkpoint lacked.

        The head that raw text is learned through is the base's own, where it has one.
        """
        if isinstance(self.model, MeanPoolClassifier) or self.head in (*TRUNK, self.text_head):
            return self.new_parameters
        return sorted({*outside_trunk(self.model), *self.new_parameters})

    def _encode_text(self, example: Text) -> list[Features]:
        return self.windows(example, self.options.max_length or min(self.context, RAW_TEXT_LIMIT))

    def windows(self, example: Text, window: int) -> list[Features]:
        """A raw text in windows of at most `window` tokens."""
        return self.masking.windows(example, window)

    def pad_rows(self, reason: str) -> None:
        """They are."""

    def micro_batches(self, features: Sequence[Features], budget: int) -> list[list[int]]:
        """Indices of the features of each micro-batch: rows of like length, within a budget of cells."""
        return by_length([len(feature) for feature in features], budget)

    def draw(self, features: Sequence[Features], output: OutputSpec, key: tuple[int, int]) -> list[Features]:
        """The examples as they are, with words hidden where they are to be guessed."""
        return self.masking.draw(features, output, key) if output.head == "masked" else list(features)

    def collate(self, features: Sequence[Features], output: OutputSpec) -> Batch:
        """A padded batch (B, L)."""
        return HEADS[output.head].batch(features, output, self.tokenizer.pad_token_id or 0)

    def forward(self, model: torch.nn.Module, batch: Batch) -> Outputs:
        """The rows of outputs that the batch asks for."""
        return run_head(model, batch, self.head)

    def inputs_alone(self, features: Features) -> dict[str, list[int]]:
        """Forward arguments of one example by itself."""
        return inputs_alone(features)

    def save(self, model: Any, folder: Path) -> None:
        """A transformers folder that stock classes load, and sentence-transformers where texts become vectors."""
        model.save_pretrained(folder)
        if self.head == "embedding":
            write_sentence_encoder(folder, model.config.hidden_size, self.limit)

    def save_tokenizer(self, folder: Path) -> None:
        """The tokenizer, as it was."""
        self.tokenizer.save_pretrained(folder)
