"""The closed set of things data can say, before any model sees it.

An objective turns a row into one `Example`; a base registers an encoder for each kind that it understands. The set of
registered encoders is the objective x base table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row came from: the file as the user named it, and the 1-based line (or record) in it."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a data file, untouched: column name -> value, as the file's own types."""

    values: Mapping[str, Any]
    origin: Origin


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function call made by an assistant. `arguments` is an object, or the string that the data held."""

    name: str
    arguments: Any
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `weight` scales its loss; None leaves it to the role (assistant 1, everything else 0)."""

    role: str
    content: str
    weight: float | None = None
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What every kind has. `id` is a hash of the content plus an ordinal among equals: it keys all randomness."""

    id: str
    origin: Origin

    @property
    def shown(self) -> str:
        """What the example asks, as readable text."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Example):
    """Raw text, every token of which is learned; a `document` begins and ends, a block cut out of one does not."""

    text: str
    document: bool = True

    @property
    def shown(self) -> str:
        """The text."""
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation(Example):
    """Turns of a chat; an instruction with its answer is the shortest one. Tools are JSON schemas.

    `options`: what its last answer was chosen from, where it has options of its own; it names one by its letter.
    `label`: what its last answer stands for, where that is not its text.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    options: tuple[str, ...] = ()
    label: str | float | tuple[str, ...] | None = None

    @property
    def shown(self) -> str:
        """The turns, each with its role."""
        return "\n".join(f"{message.role}: {message.content}" for message in self.messages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled(Example):
    """One or two texts with a label: a name (single-label), a tuple of names (multi-label) or a number (regression)."""

    texts: tuple[str, ...]
    label: str | float | tuple[str, ...]

    @property
    def shown(self) -> str:
        """The texts, a line each."""
        return "\n".join(self.texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged(Example):
    """Words, each with a tag such as B-PER or O."""

    words: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def shown(self) -> str:
        """The words."""
        return " ".join(self.words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span(Example):
    """A question about a context; answers are spans of it, as (text, first character). No answers: it cannot be told."""

    question: str
    context: str
    answers: tuple[tuple[str, int], ...]

    @property
    def shown(self) -> str:
        """The context and the question."""
        return f"{self.context}\n{self.question}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair(Example):
    """Texts that belong together: an anchor, what is like it, and what is not; or two texts with a score in 0..1.

    `group` is a number that pairs share whose texts all belong together; None: each pair stands for itself.
    """

    anchor: str
    positive: str
    negatives: tuple[str, ...] = ()
    score: float | None = None
    group: int | None = None

    @property
    def shown(self) -> str:
        """The anchor, and the other text where the two are scored."""
        return self.anchor if self.score is None else f"{self.anchor}\n{self.positive}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference(Example):
    """Turns, and two ways to go on: the one that is preferred, and the other."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def sides(self) -> tuple[Conversation, Conversation]:
        """The chosen and the rejected conversation; nothing of the prompt is learned."""
        given = tuple(replace(message, weight=0.0) for message in self.prompt)
        one, other = (
            Conversation(id=self.id, origin=self.origin, messages=given + answer, tools=self.tools)
            for answer in (self.chosen, self.rejected)
        )
        return one, other

    @property
    def shown(self) -> str:
        """The turns that both answers follow."""
        return "\n".join(f"{message.role}: {message.content}" for message in self.prompt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Captioned(Example):
    """A picture and the words for it. `image` is a path."""

    image: str
    caption: str

    @property
    def shown(self) -> str:
        """The caption."""
        return self.caption


@dataclass(frozen=True, slots=True)
class Features:
    """An example as a base's own numbers.

    Args:
        example_id: the example's id.
        input_ids: token ids, length n.
        weights: for token targets, the loss weight with which token i is predicted from what stands before it, length n
            (the first can never be predicted and holds 0); empty for other targets.
        extras: further inputs of the model's forward, each of length n (token_type_ids).
        marks: numbers for each token that its base reads when it makes a batch, each of length n (the word it belongs to).
        target: class index, list of 0/1, number or picture, where the target is not the tokens themselves.
        truncated: how many tokens were cut off to fit `max_length`.
        trained: role -> how many of its tokens are learned, before truncation.
        parts: lengths of the sequences that lie end to end in `input_ids`, where there are several (two answers).
        frozen: numbers that were computed once with the frozen weights (a reference's log-probabilities).
        task: which of several tasks it belongs to.
    """

    example_id: str
    input_ids: list[int]
    weights: list[float] = field(default_factory=list)
    extras: Mapping[str, list[int]] = field(default_factory=dict)
    marks: Mapping[str, list[int]] = field(default_factory=dict)
    target: Any = None
    truncated: int = 0
    trained: Mapping[str, int] = field(default_factory=dict)
    parts: tuple[int, ...] = ()
    frozen: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    task: str = ""

    def __len__(self) -> int:
        return len(self.input_ids)

    def with_target(self, target: Any) -> "Features":
        """The same with an objective's target, unless the base has set one itself (where a span lies in a window)."""
        return self if self.target is not None or target is None else replace(self, target=target)

    @property
    def sequences(self) -> list[list[int]]:
        """The token ids of each sequence."""
        if not self.parts:
            return [self.input_ids]
        starts = [sum(self.parts[:place]) for place in range(len(self.parts))]
        return [self.input_ids[start : start + length] for start, length in zip(starts, self.parts, strict=True)]
