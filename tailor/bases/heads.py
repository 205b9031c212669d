"""Heads: what can be read off a model through transformers' own classes, and how a padded batch for each looks.

A head is a line in `HEADS`. Language models that write have theirs in `causal` and `seq2seq`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from tailor.bases.loading import Source
from tailor.bases.mean_pool import MeanPoolClassifier, mean_of_tokens
from tailor.bases.weights import load_weights
from tailor.core.contracts import Batch, Head, Outputs, OutputSpec
from tailor.core.errors import BaseError
from tailor.core.examples import Features
from tailor.nn.segments import pad

NEVER = torch.finfo(torch.float32).min
"""The logit of a position that cannot be chosen."""

HEAD_FILE = "head.safetensors"
"""One task's own weights, where several tasks share a trunk."""

TRUNK = {"embedding"}
"""Heads that add nothing to the trunk."""


@dataclass(frozen=True)
class Loaded:
    """A model with a head, and the parameters that its checkpoint did not hold for this task."""

    model: Any
    new: list[str]


def load_with_head(source: Source, output: OutputSpec, dtype: torch.dtype) -> Loaded:
    """The trunk in `dtype` with a head of the given outputs; a head in the checkpoint that fits is kept.

    Raises `BaseError` where the trunk itself is incomplete.
    """
    if output.pooling == "mean":
        loaded = _mean_pooled(source, output, dtype)
    elif source.head is not None and source.adapters:
        loaded = _on_adapted_trunk(source, output, dtype)
    else:
        loaded = _stock(source, output, dtype)
    if source.head is None:
        return loaded
    held = load_file(source.head / HEAD_FILE)
    loaded.model.load_state_dict(held, strict=False)
    return Loaded(loaded.model, sorted(set(loaded.new) - set(held)))


def _on_adapted_trunk(source: Source, output: OutputSpec, dtype: torch.dtype) -> Loaded:
    """An adapter that several tasks share was made on the bare trunk, and fits no task's model but through it."""
    trunk = _stock(replace(source, head=None), OutputSpec("embedding"), dtype).model
    if output.head in TRUNK:
        return Loaded(trunk, [])
    loaded = _stock(replace(source, adapters=()), output, dtype)
    setattr(loaded.model, loaded.model.base_model_prefix, trunk)
    loaded.model.tie_weights()
    return loaded


def _stock(source: Source, output: OutputSpec, dtype: torch.dtype) -> Loaded:
    settings: dict[str, Any] = {}
    if output.labels:
        names = dict(enumerate(output.labels))
        settings = {"num_labels": len(names), "id2label": names, "ignore_mismatched_sizes": True}
        settings["label2id"] = {name: index for index, name in names.items()}
        settings |= {"problem_type": output.problem} if output.problem else {}
    model, missing = load_weights(source, HEADS[output.head].model_class, dtype, **settings)
    if output.head in TRUNK:
        _without_pooler(model)
        _without_gaps(source.name, missing, prefix="")
        return Loaded(model, [])
    foreign = outside_trunk(model) if output.labels and source.labels != output.labels else []
    _without_gaps(source.name, missing, prefix=f"{model.base_model_prefix}.")
    if foreign:
        _renew(model, foreign)
    return Loaded(model, sorted({*missing, *foreign}))


def _mean_pooled(source: Source, output: OutputSpec, dtype: torch.dtype) -> Loaded:
    trunk, missing = load_weights(source, AutoModel, dtype)
    _without_gaps(source.name, missing, prefix="")
    model = MeanPoolClassifier(trunk, output.labels, output.problem)
    if source.mean_pool_head and source.labels == output.labels:
        model.load_head(source.mean_pool_head)
        return Loaded(model, [])
    return Loaded(model, ["classifier.weight", "classifier.bias"])


def _without_pooler(trunk: Any) -> None:
    """Where token states are read, an unused pooler would only be saved untrained."""
    if getattr(trunk, "pooler", None) is not None:
        trunk.pooler = None


def outside_trunk(model: Any) -> list[str]:
    """Names of the parameters that are not the trunk's."""
    return [name for name, _ in model.named_parameters() if not name.startswith(f"{model.base_model_prefix}.")]


def _without_gaps(name: str, missing: Sequence[str], prefix: str) -> None:
    """A pooler is often new (masked LMs have none); any other hole in the trunk is a broken checkpoint."""
    holes = [gap for gap in missing if gap.startswith(prefix) and "pooler" not in gap]
    if holes:
        raise BaseError(
            f"the checkpoint lacks {len(holes)} weights, {holes[0]} among them: they would be left at random",
            where=name,
            fix="name a complete checkpoint",
        )


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


# --- batches ----------------------------------------------------------------------------------------------------------


def padded_inputs(features: Sequence[Features], fill: int) -> tuple[dict[str, Any], int]:
    """Forward arguments with one row (of L cells) per sequence, and the number of real tokens."""
    ids, mask = pad([sequence for feature in features for sequence in feature.sequences], fill=fill)
    inputs = {"input_ids": ids, "attention_mask": mask}
    for name in features[0].extras:
        inputs[name] = pad([feature.extras[name] for feature in features], fill=0)[0]
    return inputs, int(mask.sum())


def inputs_alone(features: Features) -> dict[str, list[int]]:
    """Forward arguments of one example by itself, but for the mask; of several sequences, of the first."""
    first = list(features.sequences[0])
    return {"input_ids": first, **{name: list(row[: len(first)]) for name, row in features.extras.items()}}


def frozen_values(features: Sequence[Features]) -> dict[str, torch.Tensor]:
    """What was computed once with frozen weights, (examples, k) by name."""
    return {name: torch.tensor([feature.frozen[name] for feature in features]) for name in features[0].frozen}


def _whole(features: Sequence[Features], targets: torch.Tensor, fill: int) -> Batch:
    """One row of outputs per example."""
    inputs, tokens = padded_inputs(features, fill)
    none = torch.empty(2, 0, dtype=torch.long)
    parts = ((1,),) * len(features)
    return Batch(inputs, targets, torch.ones(len(features)), none, inputs["input_ids"].numel(), tokens, parts)


def _labels(features: Sequence[Features], output: OutputSpec, fill: int) -> Batch:
    """Targets (B,) class indices or numbers, or (B, labels) of 0 and 1."""
    kind = torch.long if output.problem == "single_label_classification" else torch.float32
    return _whole(features, torch.tensor([feature.target for feature in features], dtype=kind), fill)


def _span(features: Sequence[Features], output: OutputSpec, fill: int) -> Batch:
    """Targets (B, 2): the first and the last token of the answer in each window."""
    return _whole(features, torch.tensor([feature.target for feature in features]), fill)


def _at(features: Sequence[Features], places: Sequence[Sequence[int]], targets: Sequence[int], fill: int) -> Batch:
    """One row of outputs per chosen token: `places` are its positions in each example."""
    inputs, tokens = padded_inputs(features, fill)
    pairs = [(row, place) for row, some in enumerate(places) for place in some]
    rows = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    parts = tuple((len(some),) for some in places)
    aim = torch.tensor(targets, dtype=torch.long)
    return Batch(inputs, aim, torch.ones(len(aim)), rows, inputs["input_ids"].numel(), tokens, parts)


def _tags(features: Sequence[Features], output: OutputSpec, fill: int) -> Batch:
    """A word is tagged at its first token; words that were cut off have no row."""
    places = [[place for place, first in enumerate(feature.marks["first"]) if first] for feature in features]
    targets = [tag for feature, some in zip(features, places, strict=True) for tag in feature.target[: len(some)]]
    return _at(features, places, targets, fill)


def _masked(features: Sequence[Features], output: OutputSpec, fill: int) -> Batch:
    """Targets are the tokens that stood where a weight stands."""
    places = [[place for place, weight in enumerate(feature.weights) if weight] for feature in features]
    targets = [
        feature.marks["original"][place] for feature, some in zip(features, places, strict=True) for place in some
    ]
    return _at(features, places, targets, fill)


def _texts(features: Sequence[Features], output: OutputSpec, fill: int) -> Batch:
    """One row per text; the target of each is its example's score, NaN where there is none."""
    inputs, tokens = padded_inputs(features, fill)
    parts = tuple((1,) * len(feature.sequences) for feature in features)
    scores = [float("nan") if feature.target is None else feature.target for feature in features]
    targets = torch.tensor([score for score, part in zip(scores, parts, strict=True) for _ in part])
    none = torch.empty(2, 0, dtype=torch.long)
    return Batch(inputs, targets, torch.ones(len(targets)), none, inputs["input_ids"].numel(), tokens, parts)


# --- reading ----------------------------------------------------------------------------------------------------------


def _logits(found: Any, batch: Batch) -> torch.Tensor:
    return found.logits  # type: ignore[no-any-return]


def _selected(found: Any, batch: Batch) -> torch.Tensor:
    return found.logits[batch.rows[0], batch.rows[1]]  # type: ignore[no-any-return]


def _first_and_last(found: Any, batch: Batch) -> torch.Tensor:
    """(B, 2, L), padding never chosen."""
    both = torch.stack([found.start_logits, found.end_logits], 1).float()
    return both.masked_fill(batch.inputs["attention_mask"][:, None] == 0, NEVER)


def _means(found: Any, batch: Batch) -> torch.Tensor:
    return mean_of_tokens(found.last_hidden_state, batch.inputs["attention_mask"])


@dataclass(frozen=True)
class HeadKind:
    """A stock class, the batch that it is run on, and what of its output belongs to each row of the batch."""

    model_class: Any
    batch: Callable[[Sequence[Features], OutputSpec, int], Batch]
    read: Callable[[Any, Batch], torch.Tensor]


HEADS: Mapping[Head, HeadKind] = {
    "labels": HeadKind(AutoModelForSequenceClassification, _labels, _logits),
    "tags": HeadKind(AutoModelForTokenClassification, _tags, _selected),
    "span": HeadKind(AutoModelForQuestionAnswering, _span, _first_and_last),
    "masked": HeadKind(AutoModelForMaskedLM, _masked, _selected),
    "embedding": HeadKind(AutoModel, _texts, _means),
}


def run_head(model: torch.nn.Module, batch: Batch, head: Head) -> Outputs:
    """A forward, and the rows of its output that the batch asks for."""
    return Outputs(HEADS[head].read(model(**batch.inputs), batch))
