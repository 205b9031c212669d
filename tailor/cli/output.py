"""How answers leave: one JSON document on stdout, or a page of text; messages and errors on stderr."""

import json
import sys
from dataclasses import dataclass
from typing import Any

from tailor.core.errors import TailorError
from tailor.core.reporting import Reporter


@dataclass(frozen=True)
class Answer:
    """A verb's answer: values for `--json`, the text for people, and the exit code (1: done, and the answer is no)."""

    values: Any
    text: str
    code: int = 0


class Face:
    """The settings `--json` and `--quiet`, and what follows from them."""

    def __init__(self) -> None:
        self.json = False
        self.reporter = Reporter()

    def configure(self, *, json: bool, quiet: bool) -> None:
        """Set both, once per call."""
        self.json = json
        self.reporter = Reporter(quiet=quiet)

    def show(self, answer: Answer) -> int:
        """Print an answer and return its exit code."""
        text = json.dumps(answer.values, indent=1, ensure_ascii=False) if self.json else answer.text
        if text:
            sys.stdout.write(text + "\n")
        return answer.code

    def fail(self, error: TailorError) -> int:
        """Print an error: one line for people, the `error` object for programs."""
        if self.json:
            sys.stdout.write(json.dumps({"error": error.as_dict()}, ensure_ascii=False) + "\n")
        else:
            sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return error.exit_code


face = Face()


def table(rows: list[list[str]], headings: list[str]) -> str:
    """Left-aligned columns, as wide as their longest cell."""
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
