"""Answers that are asked for in words, whoever gives them: written, or chosen by likelihood where that can be told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tailor.core.contracts import Answer, Generator, Objective, Question, Telling
from tailor.core.reporting import Reporter


@dataclass(frozen=True)
class Asked:
    """A row that is asked about: the question put to the model, None where none fits its context."""

    example_id: str
    row: Mapping[str, Any]
    question: Question | None
    expected: Any
    origin: str = ""


def asked_of(generator: Generator, objective: Objective, example: Any, row: Mapping[str, Any]) -> Asked:
    """The first of an example's questions that fits what answers it."""
    questions = objective.questions(example)
    question = first_that_fits(generator, questions)
    return Asked(example.id, row, question, questions[0].reference if questions else None, str(example.origin))


def first_that_fits(generator: Generator, questions: Sequence[Question]) -> Question | None:
    """The first of several ways to ask that the context of what answers holds."""
    return next((one for one in questions if generator.fits(one)), None)


def answers_to(generator: Generator, objective: Objective, asked: Sequence[Asked], limit: int | None) -> list[Answer]:
    """One answer per row, in order; a row whose question fits no context has none.

    Where the objective has choices, the likeliest is taken (what `prompt.prior` holds subtracted), or the one that the
    answer names. `limit`: tokens of an answer; None: what suits the answers expected.
    """
    questions = [one.question for one in asked if one.question is not None]
    if not questions:
        return [_answer(one, None) for one in asked]
    found: Any
    if objective.choices and isinstance(generator, Telling):
        found = iter([{"given": one} for one in chosen(generator, objective, questions)])
    else:
        replies = generator.reply(questions, max_new_tokens=limit)
        found = iter([_told(reply, objective, one) for reply, one in zip(replies, questions, strict=True)])
    return [_answer(one, None if one.question is None else next(found)) for one in asked]


def chosen(generator: Telling, objective: Objective, questions: Sequence[Question]) -> list[str]:
    """The likeliest choice for each question; of as many as it has options, where it has options of its own."""
    prior = objective.prompt.prior if objective.prompt is not None else {}
    found: dict[int, str] = {}
    for count in sorted({len(one.options) for one in questions}):
        places = [place for place, one in enumerate(questions) if len(one.options) == count]
        choices = objective.choices[: count or None]
        nats = generator.likelihoods([questions[place] for place in places], choices)
        nats = nats - np.array([prior.get(name, 0.0) for name in choices])
        found |= {place: choices[best] for place, best in zip(places, nats.argmax(-1), strict=True)}
    return [found[place] for place in range(len(questions))]


def _told(reply: Any, objective: Objective, question: Question) -> dict[str, Any]:
    written = isinstance(question.expected, str)
    given: Any = objective.answered(reply.text, question) if written else reply.calls
    return {"given": given, "thinking": reply.thinking, "cut": reply.cut}


def _answer(asked: Asked, told: Mapping[str, Any] | None) -> Answer:
    prompt = readable(asked.question) if asked.question is not None else ""
    return Answer(asked.example_id, asked.row, prompt, asked.expected, origin=asked.origin, **(told or {"given": None}))


def readable(question: Question) -> str:
    """A question as text for a report."""
    return "\n".join(f"{message.role}: {message.content}" for message in question.messages)


def left_out(asked: Sequence[Asked], reporter: Reporter) -> None:
    """Say how many rows fit no context."""
    count = sum(one.question is None for one in asked)
    if count:
        reporter.say(f"{count} of {len(asked)} rows do not fit the context with an answer: they have none")
