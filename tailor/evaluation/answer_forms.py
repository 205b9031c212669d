"""What an answer is when read as a text, labels, a number, JSON or tool calls. None means no answer."""

import contextlib
import json
import math
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from tailor.core.examples import ToolCall


def as_text(value: Any) -> str:
    """An answer as text: none as the empty one, objects and calls as JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(as_calls(value) or value, ensure_ascii=False, sort_keys=True, default=str)


def as_plain(value: Any) -> str:
    """Text for exact comparison: composed Unicode (NFC), without the white space around it."""
    return unicodedata.normalize("NFC", as_text(value)).strip()


def as_labels(value: Any) -> frozenset[str]:
    """An answer as the set of its labels: one for a single label, none for no answer."""
    if value is None:
        return frozenset()
    if isinstance(value, str) or not isinstance(value, Iterable):
        return frozenset({str(value).strip()})
    return frozenset(str(label).strip() for label in value)


def as_number(value: Any) -> float | None:
    """An answer as a finite number; None where it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_json(value: Any) -> Any:
    """An answer as JSON; raises ValueError where a text is not strict JSON (NaN, code fences and remarks are not)."""
    if value is None:
        raise ValueError("no answer")
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, parse_constant=_not_json)
    except RecursionError:  # A model that repeats one bracket for ever.
        raise ValueError("nested too deeply") from None


def _not_json(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def as_calls(value: Any) -> list[dict[str, Any]]:
    """An answer's tool calls with parsed arguments, in an order of their own; empty where it calls nothing."""
    if isinstance(value, Mapping | ToolCall):
        value = [value]
    if not isinstance(value, list | tuple):
        return []
    calls = [call for item in value if (call := _as_call(item)) is not None]
    if len(calls) < len(value):
        return []
    return sorted(calls, key=lambda call: json.dumps(call, sort_keys=True, default=str))


def _as_call(item: Any) -> dict[str, Any] | None:
    """One tool call; None where the item is no call."""
    if isinstance(item, ToolCall):
        item = {"name": item.name, "arguments": item.arguments}
    if not isinstance(item, Mapping) or not {"name", "arguments"} <= item.keys():
        return None
    arguments = item["arguments"]
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError):  # What is not JSON is compared as the text that it is.
            arguments = as_json(arguments or "{}")
    return {"name": item["name"], "arguments": {} if arguments is None else arguments}


def same_json(first: Any, second: Any) -> bool:
    """Equality of JSON values: numbers by value, tuples as lists, and true is not 1."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same_json(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same_json, first, second))
    return isinstance(first, bool) == isinstance(second, bool) and bool(first == second)
