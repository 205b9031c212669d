"""The closed set of things data can say, before any model sees it.

An objective turns a row into one `Example`; a base registers an encoder for each kind that it understands. The set of
registered encoders is the objective x base table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Example):
    """Raw text, every token of which is learned; a `document` begins and ends, a block cut out of one does not."""

    text: str
    document: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation(Example):
    """Turns of a chat; an instruction with its answer is the shortest one. Tools are JSON schemas."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled(Example):
    """One or two texts with a label: a name (single-label), a tuple of names (multi-label) or a number (regression)."""

    texts: tuple[str, ...]
    label: str | float | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Features:
    """An example as a base's own numbers.

    Args:
        example_id: the example's id.
        input_ids: token ids, length n.
        weights: for token targets, the loss weight with which token i is predicted from what stands before it, length n
            (the first can never be predicted and holds 0); empty for other targets.
        extras: further inputs of the model's forward, each of length n (token_type_ids).
        target: class index, list of 0/1, or number, where the target is not the tokens themselves.
        truncated: how many tokens were cut off to fit `max_length`.
        trained: role -> how many of its tokens are learned, before truncation.
    """

    example_id: str
    input_ids: list[int]
    weights: list[float] = field(default_factory=list)
    extras: Mapping[str, list[int]] = field(default_factory=dict)
    target: Any = None
    truncated: int = 0
    trained: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.input_ids)
