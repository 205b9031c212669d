"""answers.jsonl of a run: what base and tuned model said to the test rows, side by side, for people and judges."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailor.core.contracts import Answer
from tailor.core.errors import RunError
from tailor.core.runs import made_by, write_text

ANSWERS = "answers.jsonl"


@dataclass(frozen=True, slots=True)
class Pair:
    """Both models' answers to one row, as text."""

    id: str
    prompt: str
    expected: str
    base: str
    tuned: str


def write_answers(folder: Path, base: Iterable[Answer], tuned: Iterable[Answer]) -> None:
    """One line a row; nothing where nothing is answered (raw text)."""
    others = {answer.example_id: answer for answer in base}
    lines = []
    for answer in tuned:
        other = others[answer.example_id]
        if answer.given is None and other.given is None:
            continue
        values = {"prompt": answer.prompt, "expected": answer.expected, "base": other.given, "tuned": answer.given}
        texts = {key: as_shown(value) for key, value in values.items()}
        lines.append(json.dumps({"id": answer.example_id, **texts}, ensure_ascii=True) + "\n")
    if lines:
        write_text(folder / ANSWERS, "".join(lines))


def read_answers(run: Path) -> list[Pair]:
    """The answers of a run (of its last stage); raises `RunError` where it has none."""
    file = made_by(run) / ANSWERS
    if not file.exists():
        raise RunError(
            f"this run holds no answers ({ANSWERS}): its answers are no texts, or it was made by an older version",
            where=str(run),
            fix="fit it again",
            code="no_answers",
        )
    return [Pair(**json.loads(line)) for line in file.read_text(encoding="utf-8").split("\n") if line]


def as_shown(value: Any) -> str:
    """An answer or a reference of any kind as text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple | list) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)
