"""One of the options that each row has of its own: they stand below the question, and the answer is a letter."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from string import ascii_uppercase
from typing import Any, ClassVar, Literal

from tailor.core.contracts import AnswersKind, ExampleSeat, Question
from tailor.core.examples import Conversation, Message
from tailor.core.prompts import Prompt
from tailor.objectives.named import Names
from tailor.objectives.tokens import TokenObjective

INSTRUCTION = "Answer the question."
FORMAT = "Answer with the letter of the right option."
LEADING = r"^\W*([A-Z])(?=\s*$|\s*\n|[.,;:)\]*])"
"""A letter at the head of an answer, with a sign behind it: "B. Paris", "**B**", "(B) Paris"."""
TOLD = r"(?i:\b(?:answer|option|choice)(?: is)?)\W*([A-Z])(?![\w'])"
"""A letter that is said to be the answer: "the answer is B", "Option (B)"."""


class MultipleChoice(TokenObjective):
    """The letters name a row's options in order, so that every answer is one token and none is favoured for its length."""

    name: ClassVar[str] = "multiple_choice"
    example: ClassVar[type[Conversation]] = Conversation
    on_overlong: ClassVar[Literal["error", "truncate"]] = "error"
    answers: ClassVar[AnswersKind] = "label"  # type: ignore[misc]
    choices: tuple[str, ...] = tuple(ascii_uppercase)

    def prepare(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """How many letters the row with the most options needs."""
        self.choices = tuple(ascii_uppercase[: max((len(row["options"]) for row in rows), default=2)])

    def read(self, row: Mapping[str, Any], seat: ExampleSeat) -> Conversation:
        """`question` with its `options` below it as the user's turn, and the letter of `answer` as the assistant's."""
        options = tuple(row["options"])
        turns = (
            Message("user", laid_out(row["question"], options)),
            Message("assistant", ascii_uppercase[row["answer"]]),
        )
        return Conversation(id=seat.id, origin=seat.origin, messages=turns, options=options)

    def blank(self, texts: tuple[str, ...], seat: ExampleSeat) -> Conversation:
        """A question and its options as further texts; alone, it is taken to hold them already."""
        return self.read({"question": texts[0], "options": texts[1:], "answer": 0}, seat)

    def questions(self, example: Conversation) -> list[Question]:
        """The question, and the letter of the right option as the answer expected."""
        return self.posed(Question(example.messages[:-1], (), example.messages[-1].content, example.options))

    def bare(self, instruction: str) -> Prompt:
        """The task in one sentence, and the form of the answer."""
        return Prompt(instruction or INSTRUCTION, FORMAT)

    def answered(self, text: str, question: Question) -> str | None:
        """The letter that an answer is, begins with or says to be the answer; else that of the option it names first."""
        letters = self.choices if not question.options else tuple(ascii_uppercase[: len(question.options)])
        whole = text.strip()
        same = [letter for letter, option in zip(letters, question.options, strict=False) if option == whole]
        if same or whole.upper() in letters:
            return same[0] if same else whole.upper()
        for pattern in (LEADING, TOLD):
            told = re.search(pattern, text)
            if told is not None and told[1] in letters:
                return told[1]
        named = Names(question.options).answered(text)
        return letters[question.options.index(named)] if named is not None else Names(letters).answered(text)

    def guess(self, examples: Sequence[Conversation]) -> tuple[str, Callable[[Conversation], str]]:
        """The most frequent letter, the first among equals."""
        given = [example.messages[-1].content for example in examples]
        best = min(set(given), key=lambda letter: (-given.count(letter), letter))
        return "majority", lambda example: best


def laid_out(question: str, options: Sequence[str]) -> str:
    """A question with its options, a line each."""
    return "\n".join(
        [question, *(f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options, strict=False))]
    )
