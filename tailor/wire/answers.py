"""What an answer of OpenAI's protocol says, and what is wrong with one that says nothing that can be read."""

from collections.abc import Mapping
from typing import Any

TEXT_PARTS = ("text", "output_text")


class Unreadable(ValueError):
    """An answer whose content is neither a text nor parts that are texts."""


def fault_of(answer: Any, protocol: str) -> str:
    """Why an answer is not what the protocol promises; empty where it is.

    Raises:
        Unreadable: it is, and yet what it says is no text.
    """
    try:
        choice = answer["choices"][0]
        said = choice["message"] if protocol == "chat" else choice["text"]
    except (KeyError, IndexError, TypeError):
        return "no choices"
    if protocol == "chat" and isinstance(said, dict):
        text_of(said)
        return ""
    return "" if protocol != "chat" and isinstance(said, str) else "no choices"


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message: its content, the texts of its parts one after the other, or its refusal."""
    content = message.get("content") or message.get("refusal") or ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Unreadable(f"content is {type(content).__name__}, which is no text")
    return "".join(map(_text_of_part, content))


def _text_of_part(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    text = part.get("text") if isinstance(part, dict) and kind in TEXT_PARTS else None
    if not isinstance(text, str):
        raise Unreadable(f"content has a part of type {kind}, which is no text")
    return text
