"""A generated turn taken apart: reasoning, tool calls, and the text that is left."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

THINKING = re.compile(r"<think(?:ing)?>(.*?)</think(?:ing)?>", re.DOTALL)
OPEN_THINKING = re.compile(r"<think(?:ing)?>(?!.*</think)", re.DOTALL)
CALL_BLOCKS = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)|\[TOOL_CALLS\]\s*(\[.*\]|\{.*\})", re.DOTALL)


@dataclass(frozen=True)
class AnswerParts:
    """Text without reasoning and special tokens; calls as name and arguments; what was reasoned, and whether it ended."""

    text: str
    calls: tuple[Mapping[str, Any], ...]
    thinking: str
    unfinished_thinking: bool


def split_answer(raw: str, specials: Sequence[str] = ()) -> AnswerParts:
    """Take a decoded turn apart; `specials` are the tokens that are no text.

    Reasoning opened by the prompt itself closes with `</think>` and has no opening tag.
    """
    thinking = "\n".join(part.strip() for part in THINKING.findall(raw))
    rest = THINKING.sub("", raw)
    head, closed, tail = rest.partition("</think>")
    if closed:
        thinking, rest = head.strip(), tail
    unfinished = bool(OPEN_THINKING.search(rest))
    if unfinished:
        rest, _, begun = rest.partition("<think")
        thinking = begun.partition(">")[2].strip()
    calls = tuple(call for block in CALL_BLOCKS.findall(rest) for call in _calls("".join(block)))
    text = CALL_BLOCKS.sub("", rest)
    if not calls:
        calls = tuple(_calls(_plain(text, specials)))
    return AnswerParts(_plain(text, specials), calls, thinking, unfinished)


def _plain(text: str, specials: Sequence[str]) -> str:
    for special in specials:
        text = text.replace(special, "")
    return text.strip()


def _calls(text: str) -> list[Mapping[str, Any]]:
    """Calls in a JSON object or list; nothing where the text is not JSON or names no function."""
    try:
        found = json.loads(text.strip())
    except ValueError:
        return []
    calls: list[Mapping[str, Any]] = []
    for item in found if isinstance(found, list) else [found]:
        if isinstance(item, dict):
            inner = item.get("function", item)
            if isinstance(inner, dict) and isinstance(inner.get("name"), str):
                calls.append({"name": inner["name"], "arguments": inner.get("arguments", inner.get("parameters", {}))})
    return calls
