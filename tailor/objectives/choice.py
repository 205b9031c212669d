"""One label of several, written by the base as its answer: the task of a classifier without a new head."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from tailor.core.contracts import AnswersKind, ExampleSeat, OutputSpec, Question
from tailor.core.errors import DataError, refuse
from tailor.core.examples import Conversation, Message
from tailor.core.prompts import Prompt
from tailor.objectives.classification import Classification
from tailor.objectives.named import Names
from tailor.objectives.tokens import TokenObjective
from tailor.recipe.objectives import ClassificationOptions

INSTRUCTION = "Classify the text."


class Choice(TokenObjective):
    """The text is the question, the label the answer; which labels there are is learned from the training rows."""

    name: ClassVar[str] = "choice"
    example: ClassVar[type[Conversation]] = Conversation
    on_overlong: ClassVar[Literal["error", "truncate"]] = "error"
    answers: ClassVar[AnswersKind] = "label"  # type: ignore[misc]

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._labels = Classification(ClassificationOptions(problem="single_label"))
        self._names = Names(())

    @property
    def choices(self) -> tuple[str, ...]:  # type: ignore[override]
        """The labels, sorted."""
        return self._labels.labels

    @property
    def output(self) -> OutputSpec:
        """Next-token logits; the labels are what may be written."""
        return OutputSpec("tokens", self.choices)

    def prepare(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """The label set; raises `DataError` where a row has several labels or a number."""
        kept = []
        for row in rows:
            if isinstance(row["label"], list | tuple | float):
                raise DataError(
                    f"a choice is one label of several, and this row's is {row['label']!r}",
                    where="objective",
                    fix="write the answer out as prompt and completion, or name a method with a head",
                    code="no_choice",
                )
            kept.append(row)
        self._labels.prepare(kept)
        self._names = Names(self.choices)

    def adopt(self, labels: Sequence[str], row: Mapping[str, Any] | None = None) -> None:
        """Take over the labels of a model that is already tuned, in its order."""
        self._labels.adopt(labels, row)
        self._names = Names(self.choices)

    def read(self, row: Mapping[str, Any], seat: ExampleSeat) -> Conversation:
        """`texts` as the user's turn, a line each, and `label` as the assistant's."""
        if isinstance(row["label"], list | tuple | float):
            raise refuse("label_type", f"the label {row['label']!r} is of another kind than the first row's")
        turns = (Message("user", "\n".join(row["texts"])), Message("assistant", str(row["label"])))
        return Conversation(id=seat.id, origin=seat.origin, messages=turns)

    def blank(self, texts: tuple[str, ...], seat: ExampleSeat) -> Conversation:
        """Texts whose label is asked for; the one that it holds is any."""
        return self.read({"texts": texts, "label": self.choices[0]}, seat)

    def questions(self, example: Conversation) -> list[Question]:
        """The text, and its label as the answer expected."""
        return self.posed(Question(example.messages[:-1], (), example.messages[-1].content))

    def bare(self, instruction: str) -> Prompt:
        """The task in one sentence, and the labels."""
        named = all(self._names.names(instruction, label) for label in self.choices)
        return Prompt(instruction or INSTRUCTION, "" if named else f"Answer with one of: {', '.join(self.choices)}.")

    def choice(self, text: str, question: Question) -> str | None:
        """The label that an answer is, or else the one that it names first."""
        return self._names.answered(text)

    def guess(self, examples: Sequence[Conversation]) -> tuple[str, Callable[[Conversation], str]]:
        """The most frequent label, the first by name among equals."""
        labels = [example.messages[-1].content for example in examples]
        best = min(set(labels), key=lambda label: (-labels.count(label), label))
        return "majority", lambda example: best
