"""One of the options that each row has of its own: they stand below the question, and the answer is a letter."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from string import ascii_uppercase
from typing import Any, ClassVar, Literal

from tailor.core.contracts import AnswersKind, ExampleSeat, Question
from tailor.core.examples import Conversation, Message
from tailor.core.prompts import Prompt
from tailor.objectives.named import AROUND, Mention, Names
from tailor.objectives.tokens import TokenObjective

INSTRUCTION = "Answer the question."
FORMAT = "Answer with the letter of the right option."
GAP = r"""[\s*_"'“‘(\[$]*"""
"""Space and signs between words and the letter that they lead to."""
LEADING = re.compile(r"^\W*([A-Z])(?=\s*$|\s*\n|[.,;:)\]*])(?!\s*[,;]\s*(?:(?:or|and)\s+)?[A-Z]\b)")
"""A letter at the head of an answer, with a sign behind it and no other letter: "B. Paris", "**B**", "(B) Paris"."""
VERDICT = re.compile(rf"(?i:\b(?:answer|option|choice)(?: is|[*_]*:)(?: (?:the )?(?:option|choice))?):?{GAP}$")
"""What leads to the answer: "the answer is B", "Answer: **B**", "the answer is option B"."""
CALLED = re.compile(rf"(?i:\b(?:answer|option|choice)){GAP}$")
"""What leads to a letter that is spoken of as an option: "Option (B)"."""
AMONG = re.compile(r"\s*(?:\bor\b|\band\b|/)\W*[A-Z]\b")
"""What follows a letter that is one of several."""
DENIED_BEFORE = re.compile(
    r"""(?ix)
    (?: (?:\b(?:not|never|cannot|neither|nor|rather\ than|instead\ of)|n['’]t) \b
        (?:(?!\b(?:but|so|yet|because|since|therefore|hence)\b)[^.,;:!?\n])*  # to the end of the clause
      | \b(?:wrong|incorrect|false) \s (?:answer|option|choice) (?:\sis)? \W* ) $"""
)
"""What takes an option back ahead of it: "not option A", "I don't think it is A", "the wrong answer is A"."""
DENIED_AFTER = re.compile(
    r"""(?ix) [\s*_"'”’)\]]*
    (?: \b(?:is|was|does|can|could|would|seems|looks) (?:n['’]t|\s+not)\b | \bcannot\b
      | \b(?:is|was|seems|looks|(?:can|would|must)\s+be)\s+(?:\w+\s+)?(?:wrong|incorrect|false|impossible)\b )"""
)
"""What takes an option back behind it: "A is wrong", "A cannot be"."""


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
        """The letter that an answer is, says to be the answer (the last time that it says so) or begins with.

        Else that of the only option that it names and does not take back, by its letter or its words. None where it names
        several and decides for none.
        """
        letters = self.choices if not question.options else tuple(ascii_uppercase[: len(question.options)])
        whole, names = text.strip(), Names(question.options)
        if whole in question.options:
            return letters[question.options.index(whole)]
        if whole.strip(AROUND).upper() in letters:
            return whole.strip(AROUND).upper()
        alone = names.alone(text)
        if alone is not None:
            return letters[question.options.index(alone)]
        worded = [one._replace(label=letters[question.options.index(one.label)]) for one in names.mentions(text)]
        return _decided(text, worded, _lettered(text, letters, worded))

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


def _lettered(text: str, letters: Sequence[str], worded: Sequence[Mention]) -> list[Mention]:
    """Where a text names letters; the A of "a dog" is none where that is an option."""
    found = Names(letters).mentions(text)
    return [one for one in found if not any(other.start <= one.start < other.end - 1 for other in worded)]


def _decided(text: str, worded: Sequence[Mention], lettered: Sequence[Mention]) -> str | None:
    """The letter of the option that a text decides for, by where it names options by their words and by letters."""
    worded, lettered = ([one for one in places if not _denied(text, one)] for places in (worded, lettered))
    told = [
        one
        for one in sorted([*worded, *lettered])
        if VERDICT.search(text[: one.start]) and not AMONG.match(text[one.end :])
    ]
    if told:
        return told[-1].label
    leading = LEADING.match(text)
    if leading is not None and any(one.start == leading.start(1) for one in lettered):
        return leading[1]
    called = [one for one in lettered if CALLED.search(text[: one.start])]
    for places in (called, worded, lettered):
        if places:
            labels = {one.label for one in places}
            return labels.pop() if len(labels) == 1 else None
    return None


def _denied(text: str, place: Mention) -> bool:
    return bool(DENIED_BEFORE.search(text[: place.start]) or DENIED_AFTER.match(text[place.end :]))
