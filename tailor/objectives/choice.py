"""A label, several, or a number, written by the base as its answer: the task of a classifier without a new head."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from tailor.core.contracts import AnswersKind, ExampleSeat, OutputSpec, Question
from tailor.core.examples import Conversation, Message
from tailor.core.prompts import Prompt
from tailor.objectives.classification import GUESSES, Classification
from tailor.objectives.named import SEPARATOR, Names
from tailor.objectives.tokens import TokenObjective
from tailor.recipe.objectives import ChoiceOptions, ClassificationOptions

INSTRUCTIONS = {"label": "Classify the text.", "labels": "Classify the text.", "number": "Rate the text."}
NONE = "none"
"""The answer where no label applies."""
NUMBER = re.compile(
    r"""(?<![\w.])[-+]?
    (?: (?P<thousands>[1-9]\d{0,2}(?:,\d{3})+ (?!,?\d) (?:\.\d+)?)  # 1,234,567.8
      | (?:\d+,\d{1,2} | 0,\d+) (?![.,]?\d)  # 4,5
      | \d+ (?:\.\d+)? )
    (?:[eE][-+]?\d+)?""",
    re.VERBOSE,
)
"""A number; a comma in it stands between thousands or before decimals, and any other ends it ("1,2,3" begins with 1)."""


class Choice(TokenObjective):
    """The text is the question, the label the answer; which labels there are is learned from the training rows."""

    name: ClassVar[str] = "choice"
    example: ClassVar[type[Conversation]] = Conversation
    on_overlong: ClassVar[Literal["error", "truncate"]] = "error"

    def __init__(self, options: ChoiceOptions) -> None:
        super().__init__(options)
        self._labels = Classification(ClassificationOptions(problem=options.problem))
        self._names = Names(())
        self._bounds = (0.0, 0.0)

    @property
    def answers(self) -> AnswersKind:
        """A label, several, or a number, as the rows have it."""
        return self._labels.answers

    @property
    def choices(self) -> tuple[str, ...]:  # type: ignore[override]
        """The labels, sorted, where one of them is the answer."""
        return self._labels.labels if self.answers == "label" else ()

    @property
    def output(self) -> OutputSpec:
        """Next-token logits; the labels are what may be written."""
        return OutputSpec("tokens", () if self.answers == "number" else self._labels.labels)

    def prepare(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """The kind of label and the label set, or the smallest and the largest number."""
        kept = list(rows)
        self._labels.prepare(kept)
        self.options = self.options.model_copy(update={"problem": self._labels.options.problem})
        self._names = Names(self._labels.labels)
        if self.answers == "number":
            numbers = [float(row["label"]) for row in kept]
            self._bounds = (min(numbers), max(numbers))

    def adopt(self, labels: Sequence[str], row: Mapping[str, Any] | None = None) -> None:
        """Take over the labels of a model that is already tuned, in its order."""
        self._labels.adopt(labels, row)
        self._names = Names(self._labels.labels)

    def read(self, row: Mapping[str, Any], seat: ExampleSeat) -> Conversation:
        """`texts` as the user's turn, a line each, and `label` as the assistant's; raises `RowRefused` as classification."""
        label = self._labels.read(row, seat).label
        return self._asked(tuple(row["texts"]), label, seat)

    def blank(self, texts: tuple[str, ...], seat: ExampleSeat) -> Conversation:
        """Texts whose label is asked for; the one that it holds is any."""
        anything: Mapping[str, Any] = {"label": next(iter(self.choices), ""), "labels": (), "number": 0.0}
        return self._asked(texts, anything[self.answers], seat)

    def _asked(self, texts: tuple[str, ...], label: Any, seat: ExampleSeat) -> Conversation:
        turns = (Message("user", "\n".join(texts)), Message("assistant", spelled(label)))
        return Conversation(id=seat.id, origin=seat.origin, messages=turns, label=label)

    def questions(self, example: Conversation) -> list[Question]:
        """The text, and its label as the answer expected."""
        return self.posed(Question(example.messages[:-1], (), example.messages[-1].content, means=example.label))

    def bare(self, instruction: str) -> Prompt:
        """The task in one sentence, and the answers there are."""
        instruction = instruction or INSTRUCTIONS[self.answers]
        if self.answers == "number":
            low, high = map(spelled, self._bounds)
            return Prompt(instruction, f"Answer with a number from {low} to {high}." if low != high else "")
        if all(self._names.names(instruction, label) for label in self._labels.labels):
            return Prompt(instruction)
        of = "one of" if self.answers == "label" else f"all that apply, separated by commas, or {NONE}"
        return Prompt(instruction, f"Answer with {of}: {', '.join(self._labels.labels)}.")

    def answered(self, text: str, question: Question) -> Any:
        """The label that an answer is or names first; all that it names; or its first number. None where it gives none."""
        if self.answers == "number":
            return _number(text)
        if self.answers == "labels":
            if text.strip(" .").casefold() == NONE and self._names.alone(text) is None:
                return ()
            return self._names.all_in(text) or None
        return self._names.answered(text)

    def guess(self, examples: Sequence[Conversation]) -> tuple[str, Callable[[Conversation], Any]]:
        """The most frequent label (the first by name among equals), what more than half of the rows have, or the mean."""
        name, best = GUESSES[self.answers]
        given = best([example.label for example in examples])
        return name, lambda example: given


def spelled(label: Any) -> str:
    """A label as it is written: several with commas between them, a number with every digit it needs and no exponent."""
    if isinstance(label, tuple):
        return SEPARATOR.join(label) or NONE
    if isinstance(label, float):
        return np.format_float_positional(label + 0.0, trim="-")  # + 0.0: no "-0"
    return str(label)


def _number(text: str) -> float | None:
    """The first number of a text."""
    found = NUMBER.search(text)
    return float(found[0].replace(",", "" if found["thousands"] else ".")) if found else None
