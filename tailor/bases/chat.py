"""Conversations as tokens and what is learned of them, exactly as the tokenizer's chat template renders them.

The template renders the whole conversation once, and that text is what is tokenised; nothing is ever put together from
pieces. What is learned is found on the text: an assistant's turn starts where the generation prompt ends, and ends
with the mark by which the template ends it. Both are established by rendering the same conversation again, with the
turn left out (its generation prompt must be how the text begins) and with a placeholder in its place (what stands
around that must be what stands around the turn). A row for which this does not come out is refused.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from typing import Any, Literal

from tailor.bases.chat_builtin import find_template
from tailor.bases.chat_probe import ANSWER, SENTINEL, THOUGHT, TOOL, Template, measure, thinking_turn
from tailor.bases.chat_turns import Turns
from tailor.core.errors import BaseError, RowRefused, refuse
from tailor.core.examples import Conversation, Message, ToolCall

Thinking = Literal["auto", "train", "empty", "drop"]


@dataclass(frozen=True)
class Segment:
    """A stretch of a rendered conversation that is trained on as a whole, or not at all."""

    text: str
    token_ids: tuple[int, ...]
    trained: bool


@dataclass(frozen=True)
class Rendered:
    """A conversation of n tokens.

    Args:
        input_ids: n token ids.
        weights: n loss weights; 0 for what is not learned, and for the first token, which nothing predicts.
        roles: for each token the role of the turn it belongs to.
    """

    input_ids: list[int]
    weights: list[float]
    roles: list[str]


@dataclass(frozen=True)
class StopToken:
    """What ends an assistant's turn (None: nothing does) and whether it is learned. It can be ordinary text."""

    text: str | None
    labelled: bool


@dataclass(frozen=True)
class _Tokens:
    """A rendered text as tokens; token i carries the characters `spans[i]`, the pieces of one character all of it."""

    text: str
    ids: list[int]
    spans: list[tuple[int, int]]


class ChatTemplate:
    """A chat template with the settings in force: what training, evaluation and serving all render with.

    Args:
        tokenizer: a fast transformers tokenizer.
        template: a built-in name, a .jinja file or a template's source; None: the tokenizer's own, else `plain`.
        thinking: `train` learns the data's reasoning; `drop` ignores it; `empty` ignores it and lets every answer
            follow an empty thinking block; `auto` is `train` if the data has reasoning, else `drop`. Where reasoning is
            not learned, a template that can switch it off is switched off.
        data_has_thinking: whether any message of the data has `thinking`.

    Attributes:
        name: `tokenizer`, the built-in template's name, the file's path, or `custom`.
        warnings: what the user should know; grows when rows show more.

    Raises:
        BaseError: the tokenizer cannot tell where its tokens stand, or the template cannot render an answer.
        RecipeError: there is no such template.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        template: str | None = None,
        thinking: Thinking = "auto",
        data_has_thinking: bool = False,
    ) -> None:
        _require_offsets(tokenizer)
        self.tokenizer = tokenizer
        self.name, source = find_template(tokenizer, template)
        keep = thinking == "train" or (thinking == "auto" and data_has_thinking)
        try:
            self._measured = measure(tokenizer, source, keep_thinking=keep, close_thinking=thinking == "empty")
        except RowRefused as refusal:
            fix = "choose another base.chat_template (plain, chatml, or a .jinja file)"
            raise BaseError(f"{refusal.message} (a question and its answer)", where=self.name, fix=fix) from None
        self._template: Template = self._measured.template
        self._turns = Turns(self._measured)
        self.warnings = list(self._measured.warnings)
        begins = self._tokenise(self._template.render([*self._measured.start, ANSWER])).ids[:2]
        if begins == [tokenizer.bos_token_id] * 2:
            self._warn("the chat template begins a conversation with two BOS tokens; remove one from a copy of it")

    def encode(self, conversation: Conversation) -> Rendered:
        """Tokens and weights; raises `RowRefused`: `roles`, `nothing_to_train`, `template`, `tool_arguments`."""
        return self._encode(conversation.messages, conversation.tools)[1]

    def render(self, conversation: Conversation) -> list[Segment]:
        """The conversation cut where training starts and stops; the texts together are what the template renders."""
        written, rendered = self._encode(conversation.messages, conversation.tools)
        segments: list[Segment] = []
        place, index = 0, 0
        for trained, group in groupby(weight > 0 for weight in rendered.weights):
            count = len(list(group))
            index += count
            end = len(written.text) if index == len(written.ids) else max(stop for _, stop in written.spans[:index])
            segments.append(Segment(written.text[place:end], tuple(written.ids[index - count : index]), trained))
            place = end
        return segments

    def prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """What a model is given to answer: the very tokens that an answer followed in training.

        They are taken from the text with an answer in it. A tokenizer may cut a prompt's last characters differently
        when nothing follows them, and then the model would see what it was never trained on.
        """
        chat, tools = [self._as_dict(message) for message in messages], self._tools(tools)
        place = self._measured.thinking
        answered = [*chat, thinking_turn(ANSWER, THOUGHT, place) if place else ANSWER]
        try:
            text = self._template.render(answered, tools)
            start, _ = self._turns.find(text, answered, tools, len(chat))
        except RowRefused:
            return self._tokenise(self._template.render(chat, tools, ask=True)).ids
        written = self._tokenise(text)
        return written.ids[: next(index for index, (_, end) in enumerate(written.spans) if end > start)]

    def stop_ids(self) -> list[int]:
        """Ids of the tokens that end an assistant's turn, tool calls included, and the tokenizer's end of text.

        A stop that is ordinary text (`stop_token().text`) has no id of its own and must be looked for in the text.
        """
        ids = [self.tokenizer.convert_tokens_to_ids(mark) for mark in self._turns.marks()]
        if self.tokenizer.eos_token_id is not None:
            ids.append(self.tokenizer.eos_token_id)
        return list(dict.fromkeys(ids))

    def stop_token(self) -> StopToken:
        """What ends the last turn, and whether training on a question and its answer labels all of it."""
        stop = self._measured.stop
        if stop is None:
            return StopToken(None, False)
        messages = [Message(turn["role"], turn["content"]) for turn in [*self._measured.start, ANSWER]]
        written, rendered = self._encode(messages, ())
        start = written.text.index(stop, written.text.index(SENTINEL))
        end = start + len(stop)
        spans = zip(written.spans, rendered.weights, strict=True)
        return StopToken(stop, all(weight > 0 for (left, right), weight in spans if left < end and right > start))

    def apply_to(self, tokenizer: Any) -> None:
        """Put the template, with the settings in force, on a tokenizer, so that it is saved with the artefact."""
        tokenizer.chat_template = self._template.source

    def _encode(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> tuple[_Tokens, Rendered]:
        weights = _turn_weights(messages)
        chat, tools = [self._as_dict(message) for message in messages], self._tools(tools)
        text = self._template.render(chat, tools)
        turns = {index: self._turns.find(text, chat, tools, index) for index in weights}
        if self._turns.rewritten:
            self._warn(
                "the chat template writes earlier turns differently from the last one (without their reasoning, say): "
                "they are trained as it writes them, which is not quite how a model is prompted for them"
            )
        stretches = _stretches(text, messages, weights, turns)
        written = self._tokenise(text)
        rendered = Rendered(written.ids, *_label(written.spans, stretches))
        if not any(rendered.weights):
            raise refuse("nothing_to_train", "the assistant says nothing")
        return written, rendered

    def _tokenise(self, text: str) -> _Tokens:
        """The text's tokens, without any that the tokenizer would add: the template has written them (BOS, say)."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        spans, place = [], 0
        for start, end in encoded["offset_mapping"]:
            # Some tokenizers leave whitespace out of what they report: it belongs to the token that comes next.
            spans.append((start, end) if start < end else (place, max(place, end)))
            place = max(place, end)
        return _Tokens(text, list(encoded["input_ids"]), spans)

    def _as_dict(self, message: Message) -> dict[str, Any]:
        """A message as templates take it."""
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.thinking and message.role == "assistant" and self._measured.thinking:
            turn = thinking_turn(turn, message.thinking, self._measured.thinking)
        if message.tool_calls:
            turn["tool_calls"] = [self._call(call) for call in message.tool_calls]
        passed = {"tool_call_id": message.tool_call_id, "name": message.name}
        return turn | {key: value for key, value in passed.items() if value is not None}

    def _call(self, call: ToolCall) -> dict[str, Any]:
        form, arguments = self._turns.arguments_form, call.arguments
        if form is None:
            raise refuse("template", "the chat template does not render tool calls; choose another base.chat_template")
        if form == "text" and not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        if form == "object" and isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except json.JSONDecodeError as error:
                raise refuse("tool_arguments", f"the arguments of {call.name} are not JSON: {error}") from None
        named = {} if call.id is None else {"id": call.id}
        return {"type": "function", **named, "function": {"name": call.name, "arguments": arguments}}

    def _tools(self, tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        if tools and not self._shows_tools:
            self._warn(
                "the chat template does not show the model which tools it has; choose another base.chat_template"
            )
        bare = [dict(tool) for tool in tools]
        return [{"type": "function", "function": tool} if "function" not in tool else tool for tool in bare]

    def _warn(self, note: str) -> None:
        if note not in self.warnings:
            self.warnings.append(note)

    @cached_property
    def _shows_tools(self) -> bool:
        start = self._measured.start
        return self._template.attempt(start, [TOOL]) != self._template.render(start)


def _require_offsets(tokenizer: Any) -> None:
    if not tokenizer.is_fast:
        raise BaseError(
            f"{type(tokenizer).__name__} does not say where in the text a token stands, so answers cannot be told "
            "from prompts exactly",
            where="base",
            fix="use the base's fast tokenizer (a tokenizer.json beside the model)",
        )


def _turn_weights(messages: Sequence[Message]) -> dict[int, float]:
    """Index -> weight of the turns to be trained; raises `RowRefused` for roles out of order."""
    roles = [message.role for message in messages]
    for index, pair in enumerate(pairwise(roles)):
        if pair == ("assistant", "assistant"):
            raise refuse("roles", f"turns {index + 1} and {index + 2} are both the assistant's")
    if "assistant" not in roles:
        raise refuse("nothing_to_train", "the assistant has no turn")
    weights = {
        index: 1.0 if message.weight is None else float(message.weight)
        for index, message in enumerate(messages)
        if message.role == "assistant"
    }
    trained = {index: weight for index, weight in weights.items() if weight > 0}
    if not trained:
        raise refuse("nothing_to_train", "every turn of the assistant has weight 0")
    return trained


def _stretches(
    text: str, messages: Sequence[Message], weights: Mapping[int, float], turns: Mapping[int, tuple[int, int]]
) -> list[tuple[int, float, str]]:
    """The text cut into turns: (end, weight, role), in order. Between trained turns the borders only serve reports."""
    stretches: list[tuple[int, float, str]] = []
    place, between = 0, list[Message]()
    for index, message in enumerate([*messages, None]):
        if message is not None and index not in turns:
            between.append(message)
            continue
        start, end = (len(text), len(text)) if message is None else turns[index]
        if start < place:
            raise refuse("template", f"the chat template does not keep turn {index + 1} apart from the one before")
        for earlier in between[:-1]:
            found = text.find(earlier.content.strip(), place, start)
            place = place if found < 0 else found + len(earlier.content.strip())
            stretches.append((place, 0.0, earlier.role))
        stretches.append((start, 0.0, between[-1].role if between else "assistant"))
        if message is not None:
            stretches.append((end, weights[index], message.role))
        place, between = end, []
    return stretches


def _label(
    spans: Sequence[tuple[int, int]], stretches: Sequence[tuple[int, float, str]]
) -> tuple[list[float], list[str]]:
    """Each token's weight and role. A token across a border belongs to the trained side."""
    weights, roles, current = [], [], 0
    for start, end in spans:
        while current + 1 < len(stretches) and stretches[current][0] <= start:
            current += 1
        chosen = current
        while not stretches[chosen][1] and chosen + 1 < len(stretches) and stretches[chosen][0] < end:
            chosen += 1
        _, weight, role = stretches[chosen]
        weights.append(weight)
        roles.append(role if weight else stretches[current][2])
    weights[:1] = [0.0]
    return weights, roles
