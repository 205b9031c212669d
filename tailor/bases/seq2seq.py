"""Encoder-decoder language models: T5- and BART-like bases, through transformers' own classes."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import AutoModelForSeq2SeqLM

from tailor.bases.beside import lay_on
from tailor.bases.heads import frozen_values
from tailor.bases.lengths import context_of
from tailor.bases.loading import Source, load_tokenizer
from tailor.bases.plain_turns import PlainTurns
from tailor.bases.weights import load_weights, without_silent_gaps
from tailor.core.contracts import Batch, EncodeOptions, Head, Need, Outputs, OutputSpec
from tailor.core.errors import BaseError
from tailor.core.examples import Conversation, Example, Features
from tailor.nn.segments import by_length, pad

NOT_LEARNED = -100
"""The label that transformers' models take for a position without one."""

GREEDY = {"num_beams": 1, "min_length": 0, "no_repeat_ngram_size": 0}
"""Settings that bases bring along for their makers' own task (BART's for news: four beams and 56 tokens at least)."""


class Seq2SeqBase:
    """An encoder-decoder with its tokenizer. The weights are loaded by `load`, not before.

    Its features hold source and target end to end (`parts`), the target's tokens with their weights.
    """

    family: ClassVar[str] = "encoder-decoder"
    has: ClassVar[frozenset[Need]] = frozenset({"linears", "blocks", "head", "weights", "prompt_text"})
    heads: ClassVar[frozenset[Head]] = frozenset({"tokens"})
    head: ClassVar[Head] = "sequence"
    text_head: ClassVar[Head] = "tokens"
    pools: ClassVar[bool] = False
    new_head: ClassVar[bool] = False
    packing: ClassVar[None] = None

    def __init__(self, source: Source, options: EncodeOptions) -> None:
        self.source = source
        self.name = source.name
        self.options = options
        self.tokenizer = load_tokenizer(source)
        self.context = context_of(source.config, self.tokenizer)
        self.limit = options.max_length or self.context
        self.chat = PlainTurns(self.tokenizer, self.limit, options.on_overlong or "error")
        self.model: Any = None
        self.encoders: Mapping[type[Example], Callable[[Any], list[Features]]] = {
            Conversation: self._encode_conversation
        }

    def load(self, output: OutputSpec, dtype: torch.dtype) -> None:
        """Load the weights in `dtype`; raises `BaseError` where it is not said how the decoder begins."""
        if output.head not in self.heads:
            raise BaseError(f"an encoder-decoder writes text and gives no {output.head}", where=self.name)
        self.model, missing = load_weights(self.source, AutoModelForSeq2SeqLM, dtype)
        without_silent_gaps(self.name, missing)
        self.model = lay_on(self.source, self.model)
        self.decoder_inputs([[self._fill + 1]])  # whether it can be said is better known now

    def head_parameters(self) -> list[str]:
        """None: its output layer is its own."""
        return []

    def _encode_conversation(self, example: Conversation) -> list[Features]:
        found = self.chat.encode(example)
        weights = [0.0] * len(found.source) + [found.weight] * len(found.target)
        lengths = (len(found.source), len(found.target))
        trained = {"user": 0, "assistant": lengths[1]}
        ids = found.source + found.target
        return [Features(example.id, ids, weights, truncated=found.cut, trained=trained, parts=lengths)]

    def draw(self, features: Sequence[Features], output: OutputSpec, key: tuple[int, int]) -> list[Features]:
        """The examples as they are."""
        return list(features)

    def pad_rows(self, reason: str) -> None:
        """They are."""

    def micro_batches(self, features: Sequence[Features], budget: int) -> list[list[int]]:
        """Indices of the features of each micro-batch: examples of like length, within a budget of cells."""
        return by_length([len(feature) for feature in features], budget)

    def collate(self, features: Sequence[Features], output: OutputSpec) -> Batch:
        """Sources (B, S) and the decoder's inputs (B, T), both padded on the right; a row of outputs per target token."""
        sources, targets = (list(some) for some in zip(*(feature.sequences for feature in features), strict=True))
        ids, mask = pad(sources, fill=self._fill)
        labels = [torch.tensor(target) for target in targets]
        shifted = torch.tensor(self.decoder_inputs(targets))
        places = [(row, place) for row, target in enumerate(targets) for place in range(len(target))]
        weights = [w for feature in features for w in feature.weights[feature.parts[0] :]]
        return Batch(
            {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": shifted},
            torch.cat(labels),
            torch.tensor(weights),
            torch.tensor(places).T,
            ids.numel() + shifted.numel(),
            sum(len(feature) for feature in features),
            tuple((0, len(target)) for target in targets),
            frozen_values(features),
        )

    def forward(self, model: torch.nn.Module, batch: Batch) -> Outputs:
        """Logits (target tokens, vocabulary)."""
        logits = model(**batch.inputs, use_cache=False).logits
        return Outputs(logits[batch.rows[0], batch.rows[1]])

    def decoder_inputs(self, targets: Sequence[Sequence[int]]) -> list[list[int]]:
        """What the decoder reads to write each target: shifted by the model's own rule, padded to the longest."""
        longest = max(map(len, targets))
        labels = torch.tensor([[*target, *[NOT_LEARNED] * (longest - len(target))] for target in targets])
        rule = getattr(self._shifting, "prepare_decoder_input_ids_from_labels", None)
        try:
            shifted = rule(labels) if rule is not None else self._shifted(labels)
        except ValueError as error:
            raise BaseError(f"it is not said with which token the decoder begins: {error}", where=self.name) from None
        return shifted.tolist()  # type: ignore[no-any-return]

    def _shifted(self, labels: torch.Tensor) -> torch.Tensor:
        """The rule that models without one of their own to call apply in their forward."""
        start = self.source.config.decoder_start_token_id
        if start is None:
            raise ValueError("decoder_start_token_id is missing in its config")
        begun = torch.cat([torch.full((len(labels), 1), start), labels[:, :-1]], 1)
        return begun.masked_fill(begun == NOT_LEARNED, self._fill)

    @cached_property
    def _shifting(self) -> Any:
        """The model without its weights, which its rule for shifting does not need."""
        with torch.device("meta"):
            return AutoModelForSeq2SeqLM.from_config(
                self.source.config, trust_remote_code=self.source.options.trust_remote_code
            )

    @property
    def _fill(self) -> int:
        """The padding id; masked wherever it stands."""
        return int(self.tokenizer.pad_token_id or 0)

    def inputs_alone(self, features: Features) -> dict[str, list[int]]:
        """Forward arguments of one example by itself; a text without a target is its own."""
        source, target = features.sequences[0], features.sequences[-1]
        return {"input_ids": list(source), "decoder_input_ids": self.decoder_inputs([target])[0]}

    def room(self, prompt: int) -> int:
        """The most tokens of an answer to a source of `prompt` tokens: the decoder has a context of its own."""
        return self.context if prompt <= self.context else 0

    def write(self, prompts: Sequence[Sequence[int]], device: torch.device, **settings: Any) -> list[list[int]]:
        """Targets of sources, as `generate` writes them with these settings, without the token that begins them all.

        Sources are padded on the right: absolute positions count from the left.
        """
        ids, mask = pad(prompts, fill=self._fill)
        written = self.model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), **GREEDY, **settings)
        return written[:, 1:].tolist()  # type: ignore[no-any-return]

    def save(self, model: Any, folder: Path) -> None:
        """A transformers folder that stock classes load."""
        model.save_pretrained(folder)

    def save_tokenizer(self, folder: Path) -> None:
        """The tokenizer, as it was."""
        self.tokenizer.save_pretrained(folder)
