"""A prompt: what stands before and around a question, as data. What is scored is what is saved, exported and served.

There is one place where a prompt meets a question, `Prompt.apply`; search, evaluation, proof and serving all go through it
(a prompt that was taken out of its optimiser and sent otherwise fell from 47 to 28 per cent in DSPy #8042).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from tailor.core.errors import BaseError
from tailor.core.examples import Message
from tailor.core.nearest import Nearest

PROMPT_FILE = "prompt.json"
PROMPT_PAGE = "prompt.md"
INPUT = "{input}"
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A question and its answer, as they stand in the training rows."""

    question: str
    answer: str


@dataclass(frozen=True)
class Prompt:
    """What stands before and around a question.

    Args:
        instruction: what to do; may be empty.
        output_format: how the answer is to look, said after the instruction; may be empty.
        place: whose words instruction and format are: the system's, or the first user turn's.
        input_format: how a user's turn is written; `{input}` stands for its text.
        layout: demonstrations as turns of their own, or as text in front of the question in one turn.
        demonstrations: those shown, in order; with `nearest`, the pool they are taken from.
        nearest: how many of the pool are shown for a question: those most like it, the most alike last. 0: all, always.
        prior: nats of each choice where nothing is asked, which are subtracted where choices are compared (contextual
            calibration: Zhao et al. 2021, arXiv 2102.09690).
    """

    instruction: str = ""
    output_format: str = ""
    place: Literal["system", "user"] = "system"
    input_format: str = INPUT
    layout: Literal["turns", "text"] = "turns"
    demonstrations: tuple[Demonstration, ...] = ()
    nearest: int = 0
    prior: Mapping[str, float] = field(default_factory=dict)

    @property
    def lead(self) -> str:
        """Instruction and output format."""
        return "\n".join(part for part in (self.instruction, self.output_format) if part)

    @property
    def most(self) -> int:
        """How many demonstrations a question gets at most."""
        return self.nearest or len(self.demonstrations)

    def instruction_only(self) -> "Prompt":
        """The same without demonstrations: what a model that is trained with it needs."""
        return replace(self, demonstrations=(), nearest=0, prior={})

    def apply(self, messages: Sequence[Message], shown: int | None = None) -> tuple[Message, ...]:
        """Turns with the prompt before and around them; `shown` bounds the demonstrations (None: all that it has)."""
        own = [message.content for message in messages if message.role == "system"]
        turns = [message for message in messages if message.role != "system"]
        demonstrations = self._chosen(turns, self.most if shown is None else min(shown, self.most))
        turns = [self._formatted(turn) for turn in turns]
        said = list(own) if self.place == "user" else [part for part in (self.lead, *own) if part]
        opening = [self.lead] if self.place == "user" and self.lead else []
        if self.layout == "text":
            opening += [self._block(one) for one in demonstrations]
        else:
            turns = [turn for one in demonstrations for turn in self._turns(one)] + turns
        if opening:
            turns = _opened("\n\n".join(opening), turns)
        return (*([Message("system", "\n\n".join(said))] if said else ()), *turns)

    def variants(self, messages: Sequence[Message]) -> list[tuple[Message, ...]]:
        """Turns behind the prompt with all its demonstrations, and for a short context with ever fewer of them."""
        counts = [self.most]
        while counts[-1]:
            counts.append(counts[-1] // 2)
        return [self.apply(messages, count) for count in counts]

    def _chosen(self, turns: Sequence[Message], count: int) -> list[Demonstration]:
        if not self.nearest:
            return list(self.demonstrations[:count])
        asked = next((turn.content for turn in reversed(turns) if turn.role == "user"), "")
        places = self._index.closest(asked, count + 1)
        # A row of the pool that is asked itself would show its own answer.
        others = [place for place in places if self.demonstrations[place].question != asked][:count]
        return [self.demonstrations[place] for place in reversed(others)]

    @cached_property
    def _index(self) -> Nearest:
        return Nearest([one.question for one in self.demonstrations])

    def _formatted(self, turn: Message) -> Message:
        return replace(turn, content=self.filled(turn.content)) if turn.role == "user" else turn

    def filled(self, text: str) -> str:
        """A user's text in the form of the prompt."""
        return self.input_format.replace(INPUT, text)

    def _turns(self, one: Demonstration) -> tuple[Message, Message]:
        return Message("user", self.filled(one.question)), Message("assistant", one.answer, weight=0.0)

    def _block(self, one: Demonstration) -> str:
        """A demonstration as text: the answer follows on the line that asks for it, else on the next."""
        asked = self.filled(one.question)
        return f"{asked} {one.answer}" if asked.endswith(":") else f"{asked}\n{one.answer}"

    def as_dict(self) -> dict[str, Any]:
        """What `prompt.json` holds."""
        return {
            "schema": SCHEMA,
            "instruction": self.instruction,
            "output_format": self.output_format,
            "template": {"place": self.place, "input": self.input_format, "demonstrations": self.layout},
            "demonstrations": [{"question": one.question, "answer": one.answer} for one in self.demonstrations],
            "nearest": self.nearest,
            "prior": dict(self.prior),
        }

    def as_json(self) -> str:
        """`prompt.json`, byte for byte."""
        return json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n"

    def digest(self) -> str:
        """sha256 of `prompt.json`."""
        return hashlib.sha256(self.as_json().encode()).hexdigest()

    def as_markdown(self) -> str:
        """For a reader: the words in the order in which they are sent."""
        where = {"system": "as the system's words", "user": "at the head of the first user turn"}[self.place]
        lines = ["# Prompt", "", f"## Instruction ({where})", "", _fenced(self.lead or "(none)"), ""]
        lines += ["## Each user turn", "", _fenced(self.input_format), ""]
        if self.nearest:
            lines += [f"For every question the {self.nearest} most like it are shown, of these:", ""]
        lines += ["## Demonstrations" + (" (as turns)" if self.layout == "turns" else " (as text)"), ""]
        lines += [_fenced(self._block(one)) + "\n" for one in self.demonstrations] or ["(none)", ""]
        if self.prior:
            lines += ["## Nats of each choice where nothing is asked, subtracted", ""]
            lines += [f"- {name}: {nats:.4f}" for name, nats in self.prior.items()]
        return "\n".join(lines).rstrip() + "\n"


def _opened(text: str, turns: Sequence[Message]) -> list[Message]:
    """Turns with a text at the head of the first one of the user's; of a turn of its own where there is none."""
    place = next((place for place, turn in enumerate(turns) if turn.role == "user"), None)
    if place is None:
        return [Message("user", text), *turns]
    first = replace(turns[place], content=f"{text}\n\n{turns[place].content}")
    return [*turns[:place], first, *turns[place + 1 :]]


def _fenced(text: str) -> str:
    return f"````text\n{text}\n````"


def from_dict(values: Mapping[str, Any], where: str) -> Prompt:
    """`as_dict`, read back; raises `BaseError` naming the file where something is missing or of another kind."""
    try:
        template = values["template"]
        prompt = Prompt(
            instruction=str(values["instruction"]),
            output_format=str(values["output_format"]),
            place=template["place"],
            input_format=str(template["input"]),
            layout=template["demonstrations"],
            demonstrations=tuple(
                Demonstration(str(one["question"]), str(one["answer"])) for one in values["demonstrations"]
            ),
            nearest=int(values["nearest"]),
            prior={str(name): float(nats) for name, nats in values["prior"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BaseError(f"this is not a prompt: {type(error).__name__}: {error}", where=where, code="prompt") from None
    if (
        values.get("schema") != SCHEMA
        or prompt.place not in ("system", "user")
        or prompt.layout not in ("turns", "text")
    ):
        raise BaseError(
            "this prompt is of a form that this version does not know", where=where, fix="update tailor", code="prompt"
        )
    return prompt


def read_prompt(file: Path) -> Prompt:
    """The prompt that a folder's `prompt.json` holds."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseError(f"this prompt cannot be read: {error}", where=str(file), code="prompt") from None
    return from_dict(values, str(file))
