"""Where an assistant's turn stands in a rendered conversation, established by rendering the conversation again."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from tailor.bases.chat_probe import SENTINEL, TOOL, Chat, Measured, added_tokens, arguments_form, call_turn
from tailor.core.errors import refuse

Tools = Sequence[Mapping[str, Any]]


class Turns:
    """Finds turns in what one template renders.

    Attributes:
        rewritten: a turn was seen that does not follow the generation prompt, as a model's answers do.
    """

    def __init__(self, measured: Measured) -> None:
        self._measured = measured
        self._template = measured.template
        self._added = added_tokens(measured.template.tokenizer)
        self.rewritten = False

    def find(self, text: str, chat: Chat, tools: Tools, index: int) -> tuple[int, int]:
        """Where the assistant's turn `index` starts in `text`, after its header, and where its stop ends.

        Raises:
            RowRefused: what stands around the turn depends on what it says (reason `template`).
        """
        before, after = self._around(text, chat, tools, index)
        asked = self._ask(chat[:index], tools)
        start = self._start(text, asked, before)
        self.rewritten |= asked is not None and not text.startswith(asked)
        end = self._with_stop(text, len(text) - len(after)) if after is not None and text.endswith(after) else None
        if chat[index].get("tool_calls"):
            end = self._end_of_calls(text, chat, tools, index, end)
        if start is None or end is None or start > end:
            raise refuse(
                "template",
                f"the chat template renders turn {index + 1} in a way that depends on what it says, so what would be "
                "learned cannot be told from what would be given",
            )
        return start, end

    def marks(self) -> list[str]:
        """The special tokens that end turns, tool calls included."""
        found = [self._mark_at_end(stop) for stop in self._stops]
        return [mark for mark in found if mark is not None]

    @cached_property
    def arguments_form(self) -> Literal["object", "text"] | None:
        """The form in which the template takes a call's arguments; None: it renders no calls."""
        return arguments_form(self._template, self._measured.start)

    @cached_property
    def _stops(self) -> list[str]:
        """All that ends turns, longest first; a turn that calls a tool may end in a way of its own."""
        stops = list(self._measured.stops)
        if stops and self.arguments_form is not None:
            called = [*self._measured.start, call_turn(self.arguments_form)]
            mark = self._mark_at_end(self._template.render(called, [TOOL]).rstrip())
            stops += [mark] if mark and not any(stop.endswith(mark) for stop in stops) else []
        return sorted(stops, key=len, reverse=True)

    def _ask(self, chat: Chat, tools: Tools) -> str | None:
        """The generation prompt's text, where it ends as it should: some templates add theirs after a user only."""
        asked = self._template.attempt(chat, tools, ask=True) if self._measured.asks else None
        return asked if asked is not None and asked.endswith(self._measured.header) else None

    def _around(self, text: str, chat: Chat, tools: Tools, index: int) -> tuple[str | None, str | None]:
        """What stands around a placeholder in the turn's place; None if the template has no such conversation."""
        placeholder = _placeholder(text)
        turn = {"role": "assistant", "content": placeholder}
        told = self._template.attempt([*chat[:index], turn, *chat[index + 1 :]], tools)
        if told is None or told.count(placeholder) != 1:
            return None, None
        before, _, after = told.partition(placeholder)
        return before, after

    def _start(self, text: str, asked: str | None, before: str | None) -> int | None:
        if asked is not None and text.startswith(asked):
            return len(asked)
        if before is None or not text.startswith(before):
            return None
        # The prompt is not how the text begins (earlier reasoning was stripped, say): after the header, then.
        for opening in self._measured.openings:
            if before.endswith(self._measured.header + opening):
                return len(before) - len(opening)
        return len(before.removesuffix(" "))  # tokenizers join a space to the word after it

    def _with_stop(self, text: str, end: int) -> int:
        """Where the stop ends that follows a turn's content."""
        rest = text[end:]
        bare = rest.lstrip()
        stop = next((stop for stop in self._measured.stops if bare.startswith(stop)), None)
        return end if stop is None else end + len(rest) - len(bare) + len(stop)

    def _end_of_calls(self, text: str, chat: Chat, tools: Tools, index: int, end: int | None) -> int | None:
        """Where a turn with tool calls ends, given where it would end without: some templates write results into it."""
        placeholder = _placeholder(text)
        later = [{**message, "content": placeholder} for message in chat[index + 1 :]]
        told = self._template.attempt([*chat[: index + 1], *later], tools) or ""
        # Up to here the text depends on this turn and those before it, and on nothing that is said later.
        limit = told.index(placeholder) if placeholder in told else len(text)
        if text[:limit] != told[:limit]:
            return None
        if end is not None and end <= limit:
            return end
        # The same turn with other arguments: what follows those, as far as it depends on neither, follows these too.
        *calls, last = chat[index]["tool_calls"]
        arguments = {"q": placeholder} if self.arguments_form == "object" else json.dumps({"q": placeholder})
        last = {**last, "function": {**last["function"], "arguments": arguments}}
        told = (
            self._template.attempt([*chat[:index], {**chat[index], "tool_calls": [*calls, last]}, *later], tools) or ""
        )
        rest = [*told.split(placeholder), ""][1]
        stop = re.search("|".join(map(re.escape, self._stops)), rest) if self._stops else None
        if stop is None or not text[:limit].endswith(rest[stop.start() :]):
            return None
        return limit - (len(rest) - stop.end())

    def _mark_at_end(self, text: str) -> str | None:
        """The special token that a text ends with."""
        return max((token for token in self._added if text.endswith(token)), key=len, default=None)


def _placeholder(text: str) -> str:
    placeholder = SENTINEL
    while placeholder in text:
        placeholder += "q"
    return placeholder
