"""What a chat template does, found out by rendering small conversations with it.

A template is a program, and nothing in it says where an answer begins, what ends it, whether reasoning can be switched
off or which form a tool call's arguments must have. All of that shows in what it renders: `measure` asks once per
template, `tailor.bases.chat` applies the findings to every row.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tailor.core.errors import RowRefused, refuse

Chat = Sequence[Mapping[str, Any]]

SENTINEL = "Tailorsentinel"
"""Stands for an answer. One plain capitalised word: no template trims, splits or escapes it."""

THOUGHT = "Tailorthought"
SYSTEM = {"role": "system", "content": "Tailorsystem"}
QUESTION = {"role": "user", "content": "Tailorquestion"}
ANSWER = {"role": "assistant", "content": SENTINEL}
SWITCHES = ("enable_thinking", "thinking")
"""Variables by which templates let a caller switch reasoning on and off."""

TOOL = {
    "type": "function",
    "function": {
        "name": "tailorprobe",
        "description": "A probe.",
        "parameters": {"type": "object", "properties": {"tailorfield": {"type": "string", "description": "A field."}}},
    },
}
ARGUMENTS = {"tailorkey": "Tailorvalue", "flag": True}
RESULT = {"role": "tool", "name": "tailorprobe", "tool_call_id": "tailor123", "content": "Tailorresult"}

# The template's whole text is caught in a variable, so that what it writes after the last turn can be cut off and the
# right header put in its place. The newlines after `%}` are eaten by trim_blocks, the empty expression keeps
# lstrip_blocks from eating the template's last spaces.
MENDED = """{%- set tailor_ask = add_generation_prompt and WHEN %}
{%- set add_generation_prompt = add_generation_prompt and not tailor_ask %}
{%- set tailor_text %}
SOURCE{{ "" }}{% endset %}
{{- tailor_text[:tailor_text | length - TAIL] + HEADER if tailor_ask else tailor_text }}"""


class Template:
    """A template's source bound to a tokenizer; renders as the tokenizer's own `apply_chat_template` does."""

    def __init__(self, tokenizer: Any, source: str) -> None:
        self.tokenizer = tokenizer
        self.source = source

    def render(
        self, chat: Chat, tools: Sequence[Any] = (), *, ask: bool = False, settings: Mapping[str, Any] | None = None
    ) -> str:
        """The text of a conversation, with the generation prompt if `ask`; refuses with the template's own message."""
        try:
            text = self.tokenizer.apply_chat_template(
                list(chat),
                tools=list(tools) or None,
                chat_template=self.source,
                tokenize=False,
                add_generation_prompt=ask,
                **(settings or {}),
            )
        except Exception as error:  # a template is foreign code: whatever it raises is its refusal
            raise refuse("template", f"the chat template refuses this conversation: {error}") from error
        return str(text)

    def attempt(
        self, chat: Chat, tools: Sequence[Any] = (), *, ask: bool = False, settings: Mapping[str, Any] | None = None
    ) -> str | None:
        """`render`, or None where the template refuses."""
        try:
            return self.render(chat, tools, ask=ask, settings=settings)
        except RowRefused:
            return None


@dataclass(frozen=True)
class Measured:
    """What a template was found to do.

    Args:
        template: with the settings in force, and its generation prompt mended where that was needed.
        start: the shortest conversation that awaits an answer.
        thinking: where reasoning goes: the template's own field, into the content between think tags, or nowhere.
        asks: whether its generation prompt is what stands before a trained answer.
        header: what the generation prompt adds, `<|im_start|>assistant\\n` say.
        openings: what the template writes between the header and an answer's content.
        stop: what ends the last turn, or None.
        stops: all that was seen to end a turn.
        warnings: what the user should know.
    """

    template: Template
    start: Chat
    thinking: Literal["field", "inline"] | None
    asks: bool
    header: str
    openings: tuple[str, ...]
    stop: str | None
    stops: tuple[str, ...]
    warnings: tuple[str, ...]


def measure(tokenizer: Any, source: str, *, keep_thinking: bool, close_thinking: bool) -> Measured:
    """Find out what a template does.

    Args:
        tokenizer: a transformers tokenizer.
        source: the template.
        keep_thinking: the data's reasoning is trained; otherwise the non-thinking form is taken where there is one.
        close_thinking: an answer always starts after an empty thinking block, where the template writes one.

    Raises:
        RowRefused: the template cannot render a question with its answer.
    """
    original = Template(tokenizer, _with_switch(tokenizer, source, keep_thinking))
    start = _start(original)
    thinking = _thinking_place(original, start) if keep_thinking else None
    notes = _thinking_notes(original, start, keep_thinking, close_thinking, thinking)
    asks = _asks_as_trained(original, start, thinking, close_thinking)
    mended = None if asks else _mend(original, start)
    template = mended or original
    if not asks:
        notes.append(_mending_note(original, start, mended is not None))
    asks = asks or mended is not None
    bare, asked = template.render(start), template.render(start, ask=True)
    header = asked[_shared(bare, asked) :] if asks else ""
    stop, stops = _stops(template, start, header if asks else None)
    notes += _stop_notes(tokenizer, stop)
    openings = _openings(template, start, asked, header) if asks else ()
    return Measured(template, start, thinking, asks, header, openings, stop, stops, tuple(notes))


def added_tokens(tokenizer: Any) -> set[str]:
    """The texts that this tokenizer never splits: special tokens and whatever else was added."""
    return {str(token) for token in tokenizer.added_tokens_decoder.values()} | set(tokenizer.all_special_tokens)


def arguments_form(template: Template, start: Chat) -> Literal["object", "text"] | None:
    """The form of a tool call's arguments that this template renders as JSON, once; None: it renders no calls."""
    shown = {}
    forms: tuple[Literal["object", "text"], ...] = ("object", "text")
    for form in forms:
        shown[form] = template.attempt([*start, call_turn(form)], [TOOL]) or ""
        if _holds_arguments(shown[form]):
            return form
    # Some write key by key, `<parameter=key>`: then an object is right, unless it was printed the way Python would.
    written = shown["object"]
    spoilt = "'tailorkey'" in written or '\\"tailorkey' in written
    return "object" if written.count("Tailorvalue") == 1 and "tailorkey" in written and not spoilt else None


def call_turn(form: Literal["object", "text"]) -> dict[str, Any]:
    """An assistant's turn that calls the probe tool."""
    arguments = ARGUMENTS if form == "object" else json.dumps(ARGUMENTS)
    call = {"type": "function", "id": "tailor123", "function": {"name": "tailorprobe", "arguments": arguments}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _holds_arguments(text: str) -> bool:
    if text.count("Tailorvalue") != 1:
        return False
    opening = text.rfind("{", 0, text.index("Tailorvalue"))
    try:
        return opening >= 0 and bool(json.JSONDecoder().raw_decode(text[opening:])[0] == ARGUMENTS)
    except json.JSONDecodeError:
        return False


def _with_switch(tokenizer: Any, source: str, on: bool) -> str:
    """The template with its thinking switch, if it has one, set for callers that say nothing about it."""
    template = Template(tokenizer, source)
    chat = _start(template)
    usual = template.render(chat, ask=True)
    for name in SWITCHES:
        if template.attempt(chat, ask=True, settings={name: on}) not in (usual, None):
            return f"{{%- set {name} = {name} | default({str(on).lower()}) %}}\n{source}"
    return source


def _start(template: Template) -> Chat:
    """The shortest conversation that the template lets an assistant answer."""
    openings: tuple[Chat, ...] = ([QUESTION], [SYSTEM, QUESTION])
    for chat in openings:
        if (template.attempt([*chat, ANSWER]) or "").count(SENTINEL) == 1:
            return chat
    template.render([QUESTION, ANSWER])
    raise refuse("template", "the chat template does not render what an assistant says")


def _thinking_place(template: Template, start: Chat) -> Literal["field", "inline"] | None:
    places: tuple[Literal["field", "inline"], ...] = ("field", "inline")
    for place in places:
        text = template.attempt([*start, thinking_turn(ANSWER, THOUGHT, place)]) or ""
        if text.count(THOUGHT) == text.count(SENTINEL) == 1:
            return place
    return None


def thinking_turn(turn: Mapping[str, Any], thought: str, place: Literal["field", "inline"]) -> dict[str, Any]:
    """A turn with its reasoning. Templates read it under either of two names."""
    if place == "field":
        return {**turn, "reasoning_content": thought, "thinking": thought}
    return {**turn, "content": f"<think>\n{thought}\n</think>\n\n{turn['content']}"}


def _thinking_notes(template: Template, start: Chat, keep: bool, close: bool, place: str | None) -> list[str]:
    if keep and place is None:
        return ["the chat template has no place for an assistant's reasoning: it is left out, only answers are trained"]
    if not keep and not close and template.render(start, ask=True).rstrip().endswith("<think>"):
        note = (
            "this base always thinks (its generation prompt opens <think>), and the data holds no reasoning: it will "
            "learn to answer without; give the data reasoning, or set data.thinking=empty to close the block at once"
        )
        return [note]
    return []


def _asks_as_trained(template: Template, start: Chat, thinking: Literal["field", "inline"] | None, close: bool) -> bool:
    """Whether the generation prompt ends where an answer starts, after the role header and nowhere else."""
    answer = thinking_turn(ANSWER, THOUGHT, thinking) if thinking else ANSWER
    for chat in (start, [*start, ANSWER, QUESTION]):
        asked, told = template.attempt(chat, ask=True), template.attempt([*chat, answer])
        if chat is not start and (asked is None or told is None):
            continue  # a template may take one question only
        if asked is None or told is None or not told.startswith(asked):
            return False
        plain = template.attempt([*chat, ANSWER]) or ""
        opening = _before(plain)[len(asked) :] if plain.startswith(asked) else None
        if close and (opening is None or "</think>" in opening):
            return False
        # Without any generation prompt, what stands before the content would be a role header.
        if asked == template.attempt(chat) and opening not in ("", " "):
            return False
    return True


def _mend(template: Template, start: Chat) -> Template | None:
    """The template with a generation prompt that is what stands before a trained answer, or None if that varies.

    After a tool's result some templates write no header; then theirs is left alone unless a user spoke last.
    """
    bare, before = template.render(start), _before(template.render([*start, ANSWER]))
    shared = _shared(bare, before)
    # Tokenizers join a space to the word after it: it belongs to the answer.
    header = before[shared:].removesuffix(" ")
    # Jinja drops one newline at a template's end, which is no longer the end.
    parts = {"SOURCE": template.source.removesuffix("\n"), "TAIL": str(len(bare) - shared)}
    parts["HEADER"] = json.dumps(header, ensure_ascii=False)
    user_spoke: list[Chat] = [start, [SYSTEM, *start], [*start, ANSWER, QUESTION]]
    form = arguments_form(template, start)
    tool_spoke: list[Chat] = [[*start, call_turn(form), RESULT]] if form else []
    for when, chats in (("true", user_spoke + tool_spoke), ("messages[-1].role == 'user'", user_spoke)):
        mended = Template(template.tokenizer, _filled(MENDED, {**parts, "WHEN": when}))
        if all(_prompts_as_trained(template, mended, chat) for chat in chats):
            return mended
    return None


def _filled(form: str, parts: Mapping[str, str]) -> str:
    return re.sub("|".join(parts), lambda match: parts[match[0]], form)  # in one pass: a part may hold another's name


def _prompts_as_trained(template: Template, mended: Template, chat: Chat) -> bool:
    told = template.attempt([*chat, {**ANSWER, "content": THOUGHT}])
    if told is None:
        return True
    before = told.rpartition(THOUGHT)[0].removesuffix(" ")
    return mended.attempt(chat) == template.attempt(chat) and mended.attempt(chat, ask=True) == before


def _mending_note(template: Template, start: Chat, mended: bool) -> str:
    bare, asked = template.render(start), template.render(start, ask=True)
    before = _before(template.render([*start, ANSWER]))
    said, needed = asked[_shared(bare, asked) :], before[_shared(bare, before) :]
    note = f"the chat template's generation prompt {said!r} is not what it writes before an answer, {needed!r}: "
    if mended:
        return note + "the template saved with the artefact prompts with the latter, as in training"
    return note + "Tailor prompts with the latter, other servers will not; mend the template or choose another"


def _openings(template: Template, start: Chat, asked: str, header: str) -> tuple[str, ...]:
    last = _before(template.render([*start, ANSWER]))
    found = {last[len(asked) :]} if last.startswith(asked) else set()
    earlier = template.attempt([*start, ANSWER, QUESTION])
    if earlier is not None and header and header in _before(earlier):
        found.add(_before(earlier).rpartition(header)[2])
    return tuple(sorted(found, key=len, reverse=True))


def _stops(template: Template, start: Chat, header: str | None) -> tuple[str | None, tuple[str, ...]]:
    """What ends the last turn, and all that ends turns: some templates end earlier ones differently."""
    known = added_tokens(template.tokenizer)
    stop = _first_mark(template.render([*start, ANSWER]).partition(SENTINEL)[2], known)
    found = {stop}
    # With a generation prompt the turn is not the last, and all that follows its end is the known header.
    earlier = template.attempt([*start, ANSWER], ask=True)
    if header is not None and earlier is not None and earlier.endswith(header):
        after = earlier.partition(SENTINEL)[2]
        found.add(_first_mark(after[: len(after) - len(header)], known))
    return stop, tuple(sorted((text for text in found if text), key=len, reverse=True))


def _stop_notes(tokenizer: Any, stop: str | None) -> list[str]:
    if stop is None:
        note = (
            "the chat template ends an assistant's turn with nothing, so no stop token is trained and the model will "
            "not know when to stop: choose another template (base.chat_template=plain or chatml), or write "
            "{{ eos_token }} after the assistant's content in a copy of this one"
        )
        return [note]
    if not any(stop.endswith(token) for token in added_tokens(tokenizer)):
        note = (
            f"what ends an assistant's turn, {stop!r}, is ordinary text to this tokenizer: it is trained, and whoever "
            "serves the model must set it as a stop string"
        )
        return [note]
    return []


def _first_mark(after: str, known: set[str]) -> str | None:
    """The first line of what follows an answer; special tokens in it and those right behind them end it."""
    line = after.lstrip().partition("\n")[0].rstrip()
    special = "|".join(re.escape(token) for token in sorted(known, key=len, reverse=True))
    if special and (match := re.search(f"(?:{special})+", line)):
        line = line[: match.end()]
    return line or None


def _before(text: str) -> str:
    return text.rpartition(SENTINEL)[0]


def _shared(one: str, other: str) -> int:
    return next(
        (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other))
    )
