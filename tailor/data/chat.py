"""Conversations, however they are written down, as one list of messages.

A message is `{"role": user | assistant | system | tool, "content": text}` and, where the data says so, `weight`,
`thinking`, `tool_calls` (a list of `{"name", "arguments", "id"?}`), `tool_call_id` and `name`.
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tailor.core.errors import refuse
from tailor.data.vocabulary import CONTENT_KEYS, ROLE_KEYS, SPEAKERS, THINKING_KEYS, WEIGHT_KEYS

Message = dict[str, Any]

_REASONED = re.compile(r"\s*(?:<think>)?(.*?)</think>\s*(.*)", re.DOTALL)


def looks_like_messages(value: Any) -> bool:
    """Whether a cell holds turns: a list of objects with a speaker, or the JSON text of one."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return False
    is_list = isinstance(value, list) and len(value) > 0
    return is_list and all(isinstance(turn, Mapping) and _first(turn, ROLE_KEYS) is not None for turn in value)


def messages(raw: Any, *, system: str = "") -> list[Message]:
    """A cell with turns as messages; `system` is put before them unless they begin with a system message.

    Raises:
        RowRefused: not turns, an unknown speaker, content that is no text, a tool call that cannot be read.
    """
    value = _parsed(raw, "messages")
    if isinstance(value, Mapping):
        value = [value]  # a single turn, as in {"chosen": {"from": "gpt", ...}}
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise refuse("no_messages", "the conversation has no turns")
    turns: list[Message] = []
    for number, turn in enumerate(value, start=1):
        _add(turns, _message(turn, number))
    _name_the_assistant(turns)
    if turns[0]["role"] == "system" and not turns[0]["content"].strip():
        del turns[0]
    if system.strip() and (not turns or turns[0]["role"] != "system"):
        turns.insert(0, {"role": "system", "content": system})
    if not turns:
        raise refuse("no_messages", "the conversation has no turns")
    return turns


def check_order(turns: Sequence[Message]) -> None:
    """Refuse what cannot be a conversation to learn from: two assistant turns in a row, none, none weighted."""
    for number, (one, two) in enumerate(itertools.pairwise(turns), start=1):
        if one["role"] == two["role"] == "assistant":
            raise refuse("roles_out_of_order", f"turns {number} and {number + 1} are both the assistant's")
    answers = [turn for turn in turns if turn["role"] == "assistant"]
    if not answers:
        raise refuse("no_assistant_turn", "no turn is the assistant's: there is nothing to learn")
    if all(turn.get("weight") == 0 for turn in answers):
        raise refuse("nothing_weighted", "every assistant turn has weight 0: there is nothing to learn")


def tools(raw: Any) -> list[dict[str, Any]]:
    """A cell with tool definitions, as a list or its JSON text, each as `{"type": "function", "function": {...}}`."""
    if raw is None or raw == "":
        return []
    value = _parsed(raw, "tools")
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
        raise refuse("bad_tools", "the tools are not a list of objects")
    return [_tool(tool) for tool in value]


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool.get("function", tool)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise refuse("bad_tools", "a tool has no name")
    return {"type": "function", "function": dict(function)}


def _parsed(raw: Any, what: str) -> Any:
    if not isinstance(raw, str):
        return raw
    try:
        return json.loads(raw)
    except ValueError as error:
        raise refuse(f"bad_{what}", f"the {what} are text, and not JSON: {error}") from error


def _first(turn: Mapping[str, Any], keys: Sequence[str]) -> Any:
    for key in keys:
        value = turn.get(key)
        if value is not None:
            return value
    return None


def _message(turn: Any, number: int) -> Message:
    if not isinstance(turn, Mapping):
        raise refuse("bad_messages", f"turn {number} is not an object with a role and a content")
    speaker = _first(turn, ROLE_KEYS)
    role = SPEAKERS.get(str(speaker).casefold())
    if role is None:
        raise refuse("unknown_role", f"turn {number} is by {speaker!r}; known are {', '.join(SPEAKERS)}")
    content, thinking, calls = _content(_first(turn, CONTENT_KEYS), number)
    if role == "call":
        role, calls, content = "assistant", _calls(content, number), ""
    for raw in (turn.get("tool_calls"), turn.get("function_call")):
        calls = [*calls, *(_calls(raw, number) if raw else [])]
    thought = _first(turn, THINKING_KEYS) or thinking
    if role == "assistant" and not thought:
        thought, content = split_thinking(content, alone=bool(calls))
    if role in {"user", "assistant"} and not content.strip() and not calls:
        raise refuse("empty_message", f"turn {number} ({role}) is empty")
    message: Message = {"role": role, "content": content}
    weight = _first(turn, WEIGHT_KEYS)
    if weight is not None and role == "assistant":
        message["weight"] = _weight(weight, number)
    if isinstance(thought, str) and thought.strip():
        message["thinking"] = thought
    if calls:
        message["tool_calls"] = calls
    return message | {key: str(turn[key]) for key in ("tool_call_id", "name") if turn.get(key)}


def split_thinking(text: str, *, alone: bool = False) -> tuple[str, str]:
    """(reasoning, answer) of a text that reasons between think tags first, as models write it; ("", text) of any other.

    The opening tag may be missing, since many generation prompts end with it. `alone`: reasoning needs no answer after it.
    """
    found = _REASONED.fullmatch(text)
    if found is None or "<think>" in found[1] or not (found[2] or alone):
        return "", text
    return found[1].strip(), found[2]


def _weight(value: Any, number: int) -> float:
    if not isinstance(value, bool | int | float) or not 0 <= value < float("inf"):
        raise refuse("bad_weight", f"turn {number} has the weight {value!r}, which is no number from 0 up")
    return float(value)


def _content(raw: Any, number: int) -> tuple[str, str, list[dict[str, Any]]]:
    """(text, thinking, tool calls) of a content: a text, nothing, or a list of typed parts."""
    if raw is None:
        return "", "", []
    if isinstance(raw, str):
        return raw, "", []
    if not isinstance(raw, Sequence):
        raise refuse("bad_messages", f"the content of turn {number} is neither text nor a list of parts")
    text, thinking, calls = "", "", []
    for part in raw:
        kind = part.get("type") if isinstance(part, Mapping) else None
        value = _first(part, ("text", "value", "thinking")) if isinstance(part, Mapping) else None
        if kind in {"text", "input_text", "output_text"} and isinstance(value, str):
            text += value
        elif kind in {"reasoning", "thinking"} and isinstance(value, str):
            thinking += value
        elif kind in {"tool_call", "tool_calls", "function_call"}:
            calls += _calls(value, number)
        elif kind in {"tools", "tool_result"} and isinstance(value, str):
            text += value
        else:
            raise refuse("not_text", f"turn {number} holds a part of type {kind!r}: only text can be learned in a chat")
    return text, thinking, calls


def _calls(raw: Any, number: int) -> list[dict[str, Any]]:
    """Tool calls from a list, a single one, or the JSON text of either. Arguments stay as they are: text or object."""
    value = raw
    if isinstance(raw, str):
        try:
            value = json.loads(raw)
        except ValueError as error:
            raise refuse("bad_tool_call", f"the tool call in turn {number} is not JSON: {error}") from error
    calls = []
    for call in value if isinstance(value, list) else [value]:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise refuse("bad_tool_call", f"a tool call in turn {number} names no function")
        arguments = function.get("arguments", function.get("parameters"))
        identity = {"id": str(call["id"])} if call.get("id") else {}
        calls.append({"name": function["name"], "arguments": {} if arguments is None else arguments, **identity})
    return calls


def _add(turns: list[Message], turn: Message) -> None:
    """Append a turn; a turn that is only a tool call belongs to the assistant's turn before it."""
    last = turns[-1] if turns else None
    if last and last["role"] == turn["role"] == "assistant" and not turn["content"] and turn.get("tool_calls"):
        last["tool_calls"] = [*last.get("tool_calls", []), *turn["tool_calls"]]
    else:
        turns.append(turn)


def _name_the_assistant(turns: Sequence[Message]) -> None:
    """Task-oriented corpora call their two speakers user and system; a system that answers users is the assistant."""
    roles = [turn["role"] for turn in turns]
    if "assistant" not in roles and "user" in roles:
        for turn in turns[roles.index("user") :]:
            if turn["role"] == "system":
                turn["role"] = "assistant"
