"""Causal language models: GPT-like bases, through transformers' own classes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import AutoModelForCausalLM

from tailor.bases.beside import lay_on
from tailor.bases.chat import ChatTemplate, Rendered
from tailor.bases.heads import HEADS, frozen_values, inputs_alone, load_with_head, outside_trunk, run_head
from tailor.bases.lengths import RAW_TEXT_LIMIT, LengthPolicy, context_of
from tailor.bases.loading import Source, load_tokenizer
from tailor.bases.packing import IMPLEMENTATION, Packing, drops_out, forest_inputs, measure, packed_inputs
from tailor.bases.shared_prefix import EndingNats
from tailor.bases.texts import TextReader
from tailor.bases.weights import load_weights, without_silent_gaps
from tailor.core.contracts import Batch, EncodeOptions, Head, Need, Outputs, OutputSpec
from tailor.core.errors import BaseError, RecipeError, refuse
from tailor.core.examples import Conversation, Example, Features, Labelled, Preference, Tagged, Text
from tailor.nn.head import before_head, head_is_last, unread_rows
from tailor.nn.prefix_tree import Forest, plant, tree_groups
from tailor.nn.segments import pack, pad

WORTH = 0.95
"""Rows that share what they begin with are run as a forest where that leaves no more than this share of their tokens."""


class CausalBase:
    """A causal LM with its tokenizer and chat template. The weights are loaded by `load`, not before."""

    family: ClassVar[str] = "causal-lm"
    has: ClassVar[frozenset[Need]] = frozenset(
        {"linears", "embeddings", "blocks", "past_kv", "head", "weights", "prompt_text"}
    )
    heads: ClassVar[frozenset[Head]] = frozenset({"tokens", "labels", "tags"})
    pools: ClassVar[bool] = False
    text_head: ClassVar[Head] = "tokens"

    def __init__(self, source: Source, options: EncodeOptions) -> None:
        self.source = source
        self.name = source.name
        self.options = options
        self.tokenizer = load_tokenizer(source)
        self.context = context_of(source.config, self.tokenizer) - max(options.reserved, source.virtual_tokens)
        self.limit = options.max_length or self.context
        self.lengths = LengthPolicy(self.limit, options.on_overlong or "error")
        self.packing: Packing | None = None
        self._head_last = False
        self._stock: Any = None  # the model by itself, whatever is laid on it
        self._likelihoods: EndingNats | None = None
        self.model: Any = None
        self.head: Head = "tokens"
        self.new_parameters: list[str] = []
        self._chat: ChatTemplate | None = None
        reader = TextReader(self.tokenizer, self.limit, options.on_overlong)
        self.encoders: Mapping[type[Example], Callable[[Any], list[Features]]] = {
            Text: self._encode_text,
            Conversation: self._encode_conversation,
            Preference: self._encode_preference,
            Labelled: reader.labelled,
            Tagged: reader.tagged,
        }

    @property
    def new_head(self) -> bool:
        """Whether the head was made for this task; a language model has its own."""
        return bool(self.new_parameters)

    @property
    def chat(self) -> ChatTemplate:
        """The chat template in force, probed once."""
        if self._chat is None:
            self._chat = ChatTemplate(
                self.tokenizer,
                template=self.source.options.chat_template,
                thinking=self.options.thinking,
                data_has_thinking=self.options.data_has_thinking,
            )
        return self._chat

    def load(self, output: OutputSpec, dtype: torch.dtype) -> None:
        """Load the weights in `dtype`, and measure whether this base can be packed."""
        if output.head not in self.heads:
            raise BaseError(f"a causal LM gives {', '.join(sorted(self.heads))} and not {output.head}", where=self.name)
        self.head = output.head
        if output.head != "tokens":
            self._load_task_head(output, dtype)
            return
        self.model, missing = load_weights(self.source, AutoModelForCausalLM, dtype)
        without_silent_gaps(self.name, missing)
        apart = self.options.naive or not self.options.packing
        self.packing = Packing("padded", 0.0, reason="asked for") if apart else measure(self.model)
        self._head_last = not self.options.naive and head_is_last(self.model)
        self._stock = self.model
        self._lay_on()

    def _lay_on(self) -> None:
        """The adapter that stays beside the base, where the source has one."""
        if self.source.virtual_tokens:
            self.pad_rows("virtual tokens stand in front of every row")
        self.model = lay_on(self.source, self.model)

    def pad_rows(self, reason: str) -> None:
        """Rows are padded from here on, and attend as the stock model does."""
        assert self.packing is not None, "load() comes first"
        self.packing = replace(self.packing, mode="padded", reason=reason)
        if self.model.config._attn_implementation == IMPLEMENTATION:
            self.model.set_attn_implementation("sdpa")

    def _load_task_head(self, output: OutputSpec, dtype: torch.dtype) -> None:
        """Rows are padded: the stock classes find a row's last token by the padding id."""
        if output.pooling == "mean":
            raise RecipeError("a mean_pool head is for encoders", where="method.head", fix="method.head=stock")
        loaded = load_with_head(self.source, output, dtype)
        self.model, self.new_parameters = loaded.model, loaded.new
        self.model.config.pad_token_id = self._fill
        self.packing = Packing("padded", 0.0, reason="a row is judged as a whole")
        if not loaded.new:
            self._lay_on()

    @property
    def _fill(self) -> int:
        """The padding id; where there is none, the end of a text."""
        pad, end = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        return int(pad if pad is not None else end if end is not None else 0)

    def head_parameters(self) -> list[str]:
        """Names of the parameters that are new for this task: none where tokens are learned."""
        return [] if self.head == "tokens" else outside_trunk(self.model)

    def _encode_text(self, example: Text) -> list[Features]:
        """Windows that overlap by one token, so that every token but the first is predicted exactly once."""
        return self.windows(example, self.options.max_length or min(self.context, RAW_TEXT_LIMIT))

    def windows(self, example: Text, window: int) -> list[Features]:
        """A raw text in windows of at most `window` tokens."""
        ids = list(self.tokenizer(example.text, add_special_tokens=example.document)["input_ids"])
        eos = self.tokenizer.eos_token_id
        if example.document and eos is not None and ids and ids[-1] != eos:
            ids.append(eos)
        if len(ids) < 2:
            raise refuse("too_short", "a text of fewer than two tokens teaches nothing")
        windows = [ids[start : start + window] for start in range(0, max(1, len(ids) - 1), window - 1)]
        return [
            Features(f"{example.id}/{index}", part, [0.0] + [1.0] * (len(part) - 1), trained={"text": len(part) - 1})
            for index, part in enumerate(windows)
            if len(part) > 1
        ]

    def _encode_conversation(self, example: Conversation) -> list[Features]:
        rendered = self.chat.encode(example)
        ids, weights, cut = self.lengths.fit(list(rendered.input_ids), list(rendered.weights))
        weights[0] = 0.0
        return [Features(example.id, ids, weights, truncated=cut, trained=_trained([rendered]))]

    def _encode_preference(self, example: Preference) -> list[Features]:
        """Both conversations end to end, the chosen one first; the same is cut off the prompt of each."""
        both = [self.chat.encode(side) for side in example.sides]
        rows, cut = self.lengths.fit_all([(list(side.input_ids), list(side.weights)) for side in both])
        for _, weights in rows:
            weights[0] = 0.0
        ids = [token for tokens, _ in rows for token in tokens]
        flat = [weight for _, weights in rows for weight in weights]
        lengths = tuple(len(tokens) for tokens, _ in rows)
        return [Features(example.id, ids, flat, truncated=cut, trained=_trained(both), parts=lengths)]

    def draw(self, features: Sequence[Features], output: OutputSpec, key: tuple[int, int]) -> list[Features]:
        """The examples as they are."""
        return list(features)

    def micro_batches(self, features: Sequence[Features], budget: int) -> list[list[int]]:
        """Indices of the features of each micro-batch, within a budget of tokens."""
        assert self.packing is not None, "load() comes first"
        longest = [max(feature.parts, default=len(feature)) for feature in features]
        if self._shares(longest):
            groups, tokens = tree_groups([feature.sequences for feature in features], budget)
            if tokens <= WORTH * sum(map(len, features)):
                return groups
        return self.packing.groups([len(feature) for feature in features], budget, longest)

    def _shares(self, lengths: Sequence[int]) -> bool:
        """Whether rows may share tokens: dropout would have to drop the same of each, and some lengths are run apart."""
        packing = self.packing
        if packing is None or not packing.shares or packing.rotary_switch is not None:
            return False
        return packing.mode_for(tuple(lengths)) == "segments" and not drops_out(self.model)

    def collate(self, features: Sequence[Features], output: OutputSpec) -> Batch:
        """One pack (1, T), or a padded batch (B, L) where the base cannot be packed."""
        if output.head != "tokens":
            return HEADS[output.head].batch(features, output, self._fill)
        assert self.packing is not None, "load() comes first"
        sequences = [sequence for feature in features for sequence in feature.sequences]
        lengths = tuple(map(len, sequences))
        mode = self.packing.mode_for(lengths)
        if self._shares(lengths):
            forest = plant(sequences)
            if len(forest.ids) <= WORTH * sum(lengths):
                return _shared(features, forest)
        return _padded(features) if mode == "padded" else _packed(features, mode)

    def forward(self, model: torch.nn.Module, batch: Batch) -> Outputs:
        """Logits (supervised positions, vocabulary): the head runs where something is learned, and nowhere else."""
        if self.head != "tokens":
            return run_head(model, batch, self.head)
        inputs = dict(batch.inputs)
        if self.options.naive:
            del inputs["logits_to_keep"]
        if not self._head_last:
            return Outputs(_learned(model(**inputs, use_cache=False).logits, batch))
        head = self._stock.get_output_embeddings()
        states = before_head(head, lambda: model(**inputs, use_cache=False))
        return Outputs(unread=unread_rows(head, _learned(states, batch)))

    def room(self, prompt: int) -> int:
        """The most tokens of an answer to a prompt of so many: both share the context."""
        return self.context - prompt

    def write(self, prompts: Sequence[Sequence[int]], device: torch.device, **settings: Any) -> list[list[int]]:
        """What follows each prompt, as `generate` writes it with these settings.

        Prompts are padded on the left, with positions counted from the first real token, so that a row's answer does not
        depend on its neighbours (transformers #25790).
        """
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
            mask[row, longest - len(prompt) :] = 1
        written = self.model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), **settings)
        return written[:, longest:].tolist()  # type: ignore[no-any-return]

    @property
    def nats(self) -> Callable[[torch.device], EndingNats] | None:
        """On a device: how likely endings are after prompts; None where virtual tokens stand before every row."""
        return None if self.source.virtual_tokens else self._ending_nats

    def _ending_nats(self, device: torch.device) -> EndingNats:
        if self._likelihoods is None or self._likelihoods.model is not self.model:  # measured once on what is loaded
            self._likelihoods = EndingNats(self.model, device)
        return self._likelihoods

    def inputs_alone(self, features: Features) -> dict[str, list[int]]:
        """Forward arguments of one example by itself."""
        return inputs_alone(features)

    def save(self, model: Any, folder: Path) -> None:
        """A transformers folder that stock classes load, without a trace of our attention; the model goes on as it was."""
        live = model.config._attn_implementation
        model.set_attn_implementation("sdpa" if live == IMPLEMENTATION else live)
        try:
            model.save_pretrained(folder)
        finally:
            model.set_attn_implementation(live)

    def save_tokenizer(self, folder: Path) -> None:
        """The tokenizer with the chat template in force, so that serving renders what training rendered."""
        if self._chat is not None:
            self._chat.apply_to(self.tokenizer)
        self.tokenizer.save_pretrained(folder)


def _trained(sides: Sequence[Rendered]) -> dict[str, int]:
    """How many tokens of each role are learned."""
    trained = {role: 0 for side in sides for role in side.roles}
    for side in sides:
        for role, weight in zip(side.roles, side.weights, strict=True):
            trained[role] += weight > 0
    return trained


def _learned(values: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(supervised positions, …) of what a forward gives for the kept positions, (batch, kept, …)."""
    rows, keep = batch.rows, batch.inputs["logits_to_keep"]
    if values.shape[1] != len(keep):  # a forward that ran its head everywhere (xLSTM, code of a repository's own)
        values = values[:, keep]
    return values[rows[0], rows[1]]


def _targets(features: Sequence[Features]) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = [
        (token, weight)
        for feature in features
        for token, weight in zip(feature.input_ids, feature.weights, strict=True)
        if weight
    ]
    return torch.tensor([token for token, _ in pairs]), torch.tensor([weight for _, weight in pairs])


def _packed(features: Sequence[Features], mode: Any) -> Batch:
    ids, positions, lengths = pack([sequence for feature in features for sequence in feature.sequences])
    flat = [weight for feature in features for weight in feature.weights]
    keep = torch.tensor([index - 1 for index, weight in enumerate(flat) if weight])
    targets, weights = _targets(features)
    inputs = packed_inputs(ids, positions, lengths, mode) | {"logits_to_keep": keep}
    rows = torch.stack([torch.zeros_like(keep), torch.arange(len(keep))])
    return Batch(
        inputs, targets, weights, rows, ids.numel(), ids.numel(), supervised(features), frozen_values(features)
    )


def _shared(features: Sequence[Features], forest: Forest) -> Batch:
    """As `_packed`, each shared token once: a place may predict several tokens, and the head runs once for it."""
    places = [place for sequence in range(len(forest.ends)) for place in forest.places(sequence)]
    flat = [weight for feature in features for weight in feature.weights]
    before = torch.tensor([places[index - 1] for index, weight in enumerate(flat) if weight])
    keep, slots = torch.unique(before, return_inverse=True)
    targets, weights = _targets(features)
    inputs = forest_inputs(forest) | {"logits_to_keep": keep}
    rows = torch.stack([torch.zeros_like(slots), slots])
    return Batch(
        inputs, targets, weights, rows, len(forest.ids), len(places), supervised(features), frozen_values(features)
    )


def _padded(features: Sequence[Features]) -> Batch:
    sequences = [sequence for feature in features for sequence in feature.sequences]
    ids, mask = pad(sequences, fill=0)
    weighted = iter([weight for feature in features for weight in feature.weights])
    places = [
        (row, index - 1)
        for row, sequence in enumerate(sequences)
        for index, weight in enumerate(islice(weighted, len(sequence)))
        if weight
    ]
    keep = sorted({column for _, column in places})
    slot = {column: index for index, column in enumerate(keep)}
    targets, weights = _targets(features)
    inputs = {"input_ids": ids, "attention_mask": mask, "logits_to_keep": torch.tensor(keep)}
    rows = torch.tensor([[row for row, _ in places], [slot[column] for _, column in places]])
    return Batch(
        inputs, targets, weights, rows, ids.numel(), int(mask.sum()), supervised(features), frozen_values(features)
    )


def supervised(features: Sequence[Features]) -> tuple[tuple[int, ...], ...]:
    """For each example, how many learned tokens each of its sequences has."""
    counts = []
    for feature in features:
        ends = list(accumulate(feature.parts or (len(feature),)))
        starts = [0, *ends[:-1]]
        counts.append(tuple(sum(map(bool, feature.weights[a:b])) for a, b in zip(starts, ends, strict=True)))
    return tuple(counts)
