"""Answers that `tailor record` has kept, read back to compare with."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tailor.core.contracts import Answer
from tailor.core.errors import DataError

ENDING = ".jsonl"


def recorded(file: Path) -> Callable[[Sequence[Answer]], list[Answer]]:
    """A file of answers as a function that picks those to the rows that another model has answered.

    Raises:
        DataError: the file cannot be read; or, from the function, a row has no answer in it.
    """
    kept: dict[str, Mapping[str, Any]] = {}
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            kept[values["id"]] = {**values, "given": _as_given(values["given"])}
        except (ValueError, KeyError, TypeError):
            raise DataError(
                "this is no recorded answer", where=f"{file}:{number}", fix="`tailor record` writes them"
            ) from None

    def pick(answers: Sequence[Answer]) -> list[Answer]:
        missing = [answer for answer in answers if answer.example_id not in kept]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(answers)} rows have no recorded answer, the first: {missing[0].prompt[:80]!r}",
                where=str(file),
                fix="record the model on this data",
                code="not_recorded",
            )
        return [_as_answer(answer, kept[answer.example_id]) for answer in answers]

    return pick


def _lines(file: Path) -> list[str]:
    """Lines of JSON end at a line feed alone: other separators (U+2028, U+0085) may stand in an answer."""
    try:
        return file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the recorded answers cannot be read: {error}", where=str(file)) from None


def _as_given(given: Any) -> Any:
    return tuple(given) if isinstance(given, list) else given


def _as_answer(answer: Answer, values: Mapping[str, Any]) -> Answer:
    same = ("prompt", "given", "nll", "tokens", "bytes", "thinking", "cut")
    return replace(answer, **{name: values[name] for name in same if name in values})
