"""Answers that are asked for in words, whoever gives them: written, or chosen by likelihood where that can be told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tailor.core.contracts import Answer, Objective, Question
from tailor.core.reporting import Reporter


@dataclass(frozen=True)
class Asked:
    """A row that is asked about: the question put to the model, None where none fits its context."""

    example_id: str
    row: Mapping[str, Any]
    question: Question | None
    expected: Any
    origin: str = ""


def asked_of(generator: Any, objective: Objective, example: Any, row: Mapping[str, Any]) -> Asked:
    """The first of an example's questions that fits what answers it."""
    questions = objective.questions(example)
    fits = getattr(generator, "fits", None)
    question = next((one for one in questions if fits is None or fits(one)), None)
    return Asked(example.id, row, question, questions[0].expected if questions else None, str(example.origin))


def answers_to(generator: Any, objective: Objective, asked: Sequence[Asked], limit: int | None) -> list[Answer]:
    """One answer per row, in order; a row whose question fits no context has none.

    Where the objective has choices, the likeliest is taken (what `prompt.prior` holds subtracted), or the one that the
    answer names. `limit`: tokens of an answer; None: what suits the answers expected.
    """
    questions = [one.question for one in asked if one.question is not None]
    if not questions:
        return [_answer(one, None) for one in asked]
    found: Any
    if objective.choices and hasattr(generator, "likelihoods"):
        found = iter([{"given": one} for one in chosen(generator, objective, questions)])
    else:
        replies = generator.reply(questions, max_new_tokens=limit)
        found = iter([_told(reply, objective, one) for reply, one in zip(replies, questions, strict=True)])
    return [_answer(one, None if one.question is None else next(found)) for one in asked]


def chosen(generator: Any, objective: Objective, questions: Sequence[Question]) -> list[str]:
    """The likeliest choice for each question."""
    nats = generator.likelihoods(questions, objective.choices)
    prior = objective.prompt.prior if objective.prompt is not None else {}
    nats = nats - np.array([prior.get(name, 0.0) for name in objective.choices])
    return [objective.choices[place] for place in nats.argmax(-1)]


def _told(reply: Any, objective: Objective, question: Question) -> dict[str, Any]:
    given: Any = reply.text if isinstance(question.expected, str) else reply.calls
    if objective.choices:
        given = objective.choice(reply.text)
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
