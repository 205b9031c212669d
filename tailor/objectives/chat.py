"""Conversations: assistant turns are learned, each with the token that ends it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from tailor.core.contracts import ExampleSeat, Question
from tailor.core.examples import Conversation, Message, ToolCall
from tailor.objectives.tokens import TokenObjective
from tailor.recipe.objectives import ChatOptions


class Chat(TokenObjective):
    """Multi-turn instruction tuning."""

    name: ClassVar[str] = "chat"
    example: ClassVar[type[Conversation]] = Conversation

    def __init__(self, options: ChatOptions) -> None:
        super().__init__(options)
        self.last_only = options.train_on == "last"

    def read(self, row: Mapping[str, Any], seat: ExampleSeat) -> Conversation:
        """`messages` and `tools`, in the canonical form of `data.columns`."""
        messages = tuple(as_message(values) for values in row["messages"])
        if self.last_only:
            last = _last_assistant(messages)
            messages = tuple(
                dataclasses.replace(message, weight=0.0) if message.role == "assistant" and index != last else message
                for index, message in enumerate(messages)
            )
        return Conversation(id=seat.id, origin=seat.origin, messages=messages, tools=tuple(row.get("tools") or ()))

    def questions(self, example: Conversation) -> list[Question]:
        """For each assistant turn, the last first: everything before it, and that turn as the answer expected."""
        found: list[Question] = []
        for place in range(len(example.messages) - 1, 0, -1):
            answer = example.messages[place]
            if answer.role == "assistant":
                calls = tuple({"name": call.name, "arguments": call.arguments} for call in answer.tool_calls)
                found += self.posed(Question(example.messages[:place], example.tools, calls or answer.content))
        return found


def _last_assistant(messages: tuple[Message, ...]) -> int:
    places = [index for index, message in enumerate(messages) if message.role == "assistant"]
    return places[-1] if places else -1


def as_message(values: Mapping[str, Any]) -> Message:
    """A turn in the canonical form of `data.chat`, as an example holds it."""
    calls = tuple(ToolCall(**call) for call in values.get("tool_calls") or ())
    return Message(**{**values, "tool_calls": calls})
