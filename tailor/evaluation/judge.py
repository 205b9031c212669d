"""A model as a judge between two answers: asked twice, with the sides swapped, since judges prefer a place.

Zheng et al. 2023 ("Judging LLM-as-a-Judge") found models that contradict themselves on a third of swapped pairs; such a pair
counts as a tie here, and how often that happens is told. A judge is worth what it agrees with people: votes of `tailor
review` on the same run are held against it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tailor.core.answers import as_shown
from tailor.core.contracts import Answer, Generator, Question
from tailor.core.examples import Message
from tailor.evaluation.votes import Vote, win_rate

ASK = """Two answers to the same request are to be compared. {rubric}

Request:
{prompt}

Answer A:
{first}

Answer B:
{second}

Which answer is better? Reply with one word: A, B, or TIE."""
WORD = re.compile(r"\b(A|B|TIE)\b")
REPLY_TOKENS = 512
"""A judge may reason before it answers; its last word counts."""


@dataclass(frozen=True)
class Judged:
    """A judge's votes by row, and how they came about.

    Args:
        votes: of pairs that were judged alike both ways; others are ties.
        contradicted: pairs where the place decided; unreadable: replies without a verdict.
    """

    votes: dict[str, Vote]
    contradicted: int
    unreadable: int

    def as_dict(self) -> dict[str, Any]:
        """The win rate, and how far the judge agrees with itself."""
        pairs = len(self.votes)
        share = (pairs - self.contradicted) / pairs if pairs else None
        return {**win_rate(self.votes), "same_when_swapped": share, "unreadable": self.unreadable}


def judge(generator: Generator, rubric: str, base: Sequence[Answer], tuned: Sequence[Answer], most: int) -> Judged:
    """Have a model judge answers to the same rows, at most so many of them, by their ids; equal answers are no pair."""
    others = {answer.example_id: answer for answer in base}
    pairs = [(others[one.example_id], one) for one in sorted(tuned, key=lambda answer: answer.example_id)]
    pairs = [pair for pair in pairs if as_shown(pair[0].given) != as_shown(pair[1].given)][:most]
    questions = [_question(rubric, *order) for one, other in pairs for order in ((one, other), (other, one))]
    replies = generator.reply(questions, max_new_tokens=REPLY_TOKENS) if questions else []
    votes: dict[str, Vote] = {}
    contradicted = unreadable = 0
    for place, (one, _) in enumerate(pairs):
        straight, swapped = (_verdict(reply.text) for reply in replies[2 * place : 2 * place + 2])
        unreadable += (straight is None) + (swapped is None)
        sides: dict[str | None, Vote] = {"A": "base", "B": "tuned"}
        first, second = sides.get(straight, "tie"), {"A": "tuned", "B": "base"}.get(swapped or "", "tie")
        contradicted += first != second
        votes[one.example_id] = first if first == second else "tie"
    return Judged(votes, contradicted, unreadable)


def _question(rubric: str, first: Answer, second: Answer) -> Question:
    sides = {"first": as_shown(first.given), "second": as_shown(second.given)}
    text = ASK.format(rubric=rubric, prompt=first.prompt, **sides)
    return Question((Message("user", text),), (), "TIE")


def _verdict(text: str) -> str | None:
    """The last verdict of a reply; None where it names none."""
    found = WORD.findall(text)
    return found[-1] if found else None
