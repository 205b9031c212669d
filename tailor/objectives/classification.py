"""A label for one text or two: one of n, several of n, or a number."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, ClassVar, Literal

import torch

from tailor.core.contracts import AnswersKind, Batch, ExampleSeat, LossSum, Outputs, OutputSpec, Said
from tailor.core.errors import DataError, refuse
from tailor.core.examples import Features, Labelled
from tailor.nn.losses import binary_cross_entropy_sum, cross_entropy_sum, squared_error_sum
from tailor.objectives.plain import PlainObjective
from tailor.recipe.objectives import ClassificationOptions

Problem = Literal["regression", "single_label_classification", "multi_label_classification"]

LOSSES = {
    "single_label_classification": cross_entropy_sum,
    "multi_label_classification": binary_cross_entropy_sum,
    "regression": squared_error_sum,
}
PROBLEMS: dict[str, Problem] = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
NAMES: dict[Problem, Literal["single_label", "multi_label", "regression"]] = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}

ANSWERS: dict[Problem, AnswersKind] = {
    "single_label_classification": "label",
    "multi_label_classification": "labels",
    "regression": "number",
}


class Classification(PlainObjective):
    """Sequence classification and regression."""

    name: ClassVar[str] = "classification"
    example: ClassVar[type[Labelled]] = Labelled

    def __init__(self, options: ClassificationOptions) -> None:
        super().__init__(options)
        self.problem: Problem | None = PROBLEMS.get(options.problem)
        self.labels: tuple[str, ...] = ()

    def prepare(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """The kind of problem by the labels' type, and the label set, sorted (numbers as numbers)."""
        found: set[str] = set()
        for row in rows:
            label = row["label"]
            if self.problem is None:
                self.problem = _problem_of(label)
            found.update(map(str, label) if isinstance(label, list | tuple) else [str(label)])
        assert self.problem is not None, "there are no rows"
        self.options = self.options.model_copy(update={"problem": NAMES[self.problem]})
        if self.problem == "regression":
            self.labels = ("",)
            return
        self.labels = tuple(sorted(found, key=_natural))
        if len(self.labels) < 2:
            raise DataError(
                f"every row has the same label, {next(iter(found), 'none')!r}: there is nothing to tell apart",
                where="data.train",
                fix="add rows of another label",
                code="one_label",
            )

    def adopt(self, labels: Sequence[str], row: Mapping[str, Any] | None = None) -> None:
        """Take over the outputs of a model that is already trained, in its order; `row` shows what is asked of it."""
        self.labels = tuple(labels)
        kind: Problem = "single_label_classification"
        if self.labels == ("",):
            kind = "regression"
        elif row is not None and isinstance(row["label"], list | tuple):
            kind = "multi_label_classification"
        self.problem = self.problem or kind

    @property
    def output(self) -> OutputSpec:
        """One output per label, or one number."""
        assert self.problem is not None, "prepare() comes first"
        return OutputSpec("labels", self.labels, self.problem)

    def read(self, row: Mapping[str, Any], seat: ExampleSeat) -> Labelled:
        """`texts` and `label`; raises `RowRefused` for a label of another type than the first row's."""
        return Labelled(id=seat.id, origin=seat.origin, texts=tuple(row["texts"]), label=self._label(row["label"]))

    def blank(self, texts: tuple[str, ...], seat: ExampleSeat) -> Labelled:
        """Texts whose label is asked for; the one that it holds is any."""
        label: Any = {"label": self.labels[0], "labels": (), "number": 0.0}[self.answers]
        return Labelled(id=seat.id, origin=seat.origin, texts=texts, label=label)

    def _label(self, label: Any) -> str | float | tuple[str, ...]:
        several = isinstance(label, list | tuple)
        if self.problem == "regression":
            try:
                return float(label)
            except (TypeError, ValueError):
                raise refuse("label_type", f"the label {label!r} is no number, and the first row's is one") from None
        if several != (self.problem == "multi_label_classification"):
            raise refuse("label_type", f"the label {label!r} is of another kind than the first row's")
        return tuple(map(str, label)) if several else str(label)

    def target(self, example: Labelled) -> Any:
        """Class index, list of 0 and 1, or number."""
        if isinstance(example.label, float):
            return example.label
        if isinstance(example.label, tuple):
            return [float(name in example.label) for name in self.labels]
        return self.labels.index(example.label)

    def loss(self, outputs: Outputs, batch: Batch) -> LossSum:
        """By the problem: cross-entropy, mean binary cross-entropy, squared error; one unit of weight per example."""
        assert self.problem is not None, "prepare() comes first"
        return LOSSES[self.problem](outputs.logits, batch.targets, batch.weights)

    @property
    def answers(self) -> AnswersKind:
        """A label, several, or a number."""
        return ANSWERS[self.problem or "single_label_classification"]

    def measure(self, features: Features, logits: torch.Tensor, targets: torch.Tensor) -> tuple[list[float], float]:
        """The row of scores, and the loss of the right label."""
        assert self.problem is not None, "prepare() comes first"
        return logits[0].tolist(), float(
            LOSSES[self.problem](logits, targets, torch.ones(1, device=logits.device)).total
        )

    def conclude(self, examples: Sequence[Labelled], measured: Sequence[Sequence[Any]]) -> list[Said]:
        """The decision on each example, and the loss of its label where that is a number."""
        return [
            Said(example.label, self.decide(scores), loss if math.isfinite(loss) else None, 1)
            for example, [(scores, loss)] in zip(examples, measured, strict=True)
        ]

    def guess(self, examples: Sequence[Labelled]) -> tuple[str, Callable[[Labelled], Any]]:
        """The most frequent label (the first by name among equals), what more than half of the rows have, or the mean."""
        name, best = GUESSES[self.answers]
        given = best([example.label for example in examples])
        return name, lambda example: given

    def probability(self, scores: Sequence[float]) -> float | dict[str, float] | None:
        """How sure the model is of what it decides: of its label, of each one where a text has several; None of a number."""
        if self.problem == "regression":
            return None
        if self.problem == "multi_label_classification":
            return dict(zip(self.labels, torch.tensor(scores).sigmoid().tolist(), strict=True))
        return float(torch.tensor(scores).softmax(-1).max())

    def decide(self, scores: Sequence[float]) -> str | float | tuple[str, ...]:
        """The best label, the labels whose logit is above 0, or the number itself."""
        if self.problem == "regression":
            return float(scores[0])
        if self.problem == "multi_label_classification":
            return tuple(name for name, score in zip(self.labels, scores, strict=True) if score > 0)
        return self.labels[max(range(len(scores)), key=scores.__getitem__)]


def _most_frequent(labels: Sequence[Any]) -> Any:
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], str(label)))


def _usual(labels: Sequence[Any]) -> tuple[Any, ...]:
    counts = Counter(name for names in labels for name in set(names))
    return tuple(sorted(name for name, count in counts.items() if 2 * count > len(labels)))


GUESSES: dict[str, tuple[str, Callable[[Sequence[Any]], Any]]] = {
    "label": ("majority", _most_frequent),
    "labels": ("majority", _usual),
    "number": ("mean", fmean),
}


def _problem_of(label: Any) -> Problem:
    if isinstance(label, list | tuple):
        return "multi_label_classification"
    return "regression" if isinstance(label, float) else "single_label_classification"


def _natural(name: str) -> tuple[int, float, str]:
    """Numbers in their own order, before names in theirs."""
    try:
        return (0, float(name), name)
    except ValueError:
        return (1, 0.0, name)
