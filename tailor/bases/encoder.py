"""BERT-like encoders, through transformers' own classes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from tailor.bases.lengths import context_of
from tailor.bases.loading import Source, load_tokenizer
from tailor.bases.mean_pool import MeanPoolClassifier
from tailor.bases.weights import load_weights
from tailor.core.contracts import Batch, EncodeOptions, Head, Need, Outputs, OutputSpec
from tailor.core.errors import BaseError, refuse
from tailor.core.examples import Example, Features, Labelled
from tailor.nn.segments import by_length, pad


class EncoderBase:
    """An encoder with its tokenizer. The weights are loaded by `load`, not before."""

    family: ClassVar[str] = "encoder"
    has: ClassVar[frozenset[Need]] = frozenset({"linears", "embeddings", "blocks", "head", "weights"})
    heads: ClassVar[frozenset[Head]] = frozenset({"labels"})
    packing: ClassVar[None] = None

    def __init__(self, source: Source, options: EncodeOptions) -> None:
        self.source = source
        self.name = source.name
        self.options = options
        self.tokenizer = load_tokenizer(source)
        self.context = context_of(source.config, self.tokenizer)
        self.limit = options.max_length or self.context
        self.model: Any = None
        self.new_parameters: list[str] = []
        self.encoders: Mapping[type[Example], Callable[[Any], list[Features]]] = {Labelled: self._encode_labelled}

    @property
    def new_head(self) -> bool:
        """Whether the head was made for this task, so that the base alone cannot do it."""
        return bool(self.new_parameters)

    def load(self, output: OutputSpec, dtype: torch.dtype) -> None:
        """Load the trunk in `dtype` with a head of the given outputs; a matching head in the checkpoint is kept."""
        if output.head not in self.heads:
            raise BaseError(f"an encoder gives {', '.join(self.heads)} and not {output.head}", where=self.name)
        if output.pooling == "mean":
            trunk, missing = load_weights(self.source, AutoModel, dtype)
            self._without_gaps_in_trunk(missing, prefix="")
            self.model = MeanPoolClassifier(trunk, output.labels, output.problem)
            if self.source.mean_pool_head and self.source.labels == output.labels:
                self.model.load_head(self.source.mean_pool_head)
            else:
                self.new_parameters = ["classifier.weight", "classifier.bias"]
            return
        names = dict(enumerate(output.labels))
        self.model, missing = load_weights(
            self.source,
            AutoModelForSequenceClassification,
            dtype,
            num_labels=len(names),
            id2label=names,
            label2id={name: index for index, name in names.items()},
            problem_type=output.problem,
            ignore_mismatched_sizes=True,
        )
        foreign = [] if self.source.labels == output.labels else self._outside_trunk()
        self.new_parameters = sorted({*missing, *foreign})
        self._without_gaps_in_trunk(missing, prefix=f"{self.model.base_model_prefix}.")
        if foreign:
            _renew(self.model, foreign)

    def _outside_trunk(self) -> list[str]:
        prefix = f"{self.model.base_model_prefix}."
        return [name for name, _ in self.model.named_parameters() if not name.startswith(prefix)]

    def _without_gaps_in_trunk(self, missing: Sequence[str], prefix: str) -> None:
        """A pooler is often new (masked LMs have none); any other hole in the trunk is a broken checkpoint."""
        holes = [name for name in missing if name.startswith(prefix) and "pooler" not in name]
        if holes:
            raise BaseError(
                f"the checkpoint lacks {len(holes)} weights, {holes[0]} among them: they would be left at random",
                where=self.name,
                fix="name a complete checkpoint",
            )

    def head_parameters(self) -> list[str]:
        """Parameters that belong to the task: everything outside the trunk, and a pooler the checkpoint lacked."""
        if isinstance(self.model, MeanPoolClassifier):
            return self.new_parameters
        return sorted({*self._outside_trunk(), *self.new_parameters})

    def _encode_labelled(self, example: Labelled) -> list[Features]:
        whole = self.tokenizer(*example.texts)
        cut = max(0, len(whole["input_ids"]) - self.limit)
        if cut and self.options.on_overlong == "error":
            raise refuse("overlong", f"{len(whole['input_ids'])} tokens, and {self.limit} is the limit")
        if cut and self.options.on_overlong == "drop":
            raise refuse("dropped_overlong", f"{len(whole['input_ids'])} tokens, and {self.limit} is the limit")
        kept = self.tokenizer(*example.texts, truncation=True, max_length=self.limit) if cut else whole
        extras = {"token_type_ids": list(kept["token_type_ids"])} if "token_type_ids" in kept else {}
        return [Features(example.id, list(kept["input_ids"]), extras=extras, truncated=cut)]

    def micro_batches(self, features: Sequence[Features], budget: int) -> list[list[int]]:
        """Indices of the features of each micro-batch: rows of like length, within a budget of cells."""
        return by_length([len(feature) for feature in features], budget)

    def collate(self, features: Sequence[Features], output: OutputSpec) -> Batch:
        """A padded batch (B, L); targets (B,) class indices or numbers, or (B, labels) of 0 and 1."""
        ids, mask = pad([feature.input_ids for feature in features], fill=self.tokenizer.pad_token_id or 0)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if features[0].extras:
            inputs["token_type_ids"] = pad([feature.extras["token_type_ids"] for feature in features], fill=0)[0]
        kind = torch.long if output.problem == "single_label_classification" else torch.float32
        targets = torch.tensor([feature.target for feature in features], dtype=kind)
        none = torch.empty(2, 0, dtype=torch.long)
        return Batch(inputs, targets, torch.ones(len(features)), none, ids.numel(), int(mask.sum()))

    def forward(self, model: torch.nn.Module, batch: Batch) -> Outputs:
        """Logits (rows, labels)."""
        return Outputs(model(**batch.inputs).logits)

    def save(self, model: Any, folder: Path) -> None:
        """A transformers folder that stock classes load."""
        model.save_pretrained(folder)

    def save_tokenizer(self, folder: Path) -> None:
        """The tokenizer, as it was."""
        self.tokenizer.save_pretrained(folder)


@torch.no_grad()
def _renew(model: Any, names: Sequence[str]) -> None:
    """Draw a head afresh that the checkpoint holds for other labels, by the model's own initialisation."""
    modules = {name.rpartition(".")[0] for name in names}
    for name in modules:
        module = model.get_submodule(name)
        for parameter in module.parameters(recurse=False):
            parameter._is_hf_initialized = False
        module._is_hf_initialized = False
        model._init_weights(module)
