"""How answers leave: one JSON document on stdout, or a page of text; messages and errors on stderr."""

import json
import sys
from dataclasses import dataclass
from typing import Any

from tailor.core.errors import Interrupted, TailorError
from tailor.core.reporting import Reporter

INTERRUPTED = 130
"""The exit code of what was stopped from outside."""


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
        self._tell(error, "error: ")
        return error.exit_code

    def stop(self, stopped: Interrupted) -> int:
        """Say that the wish to stop was heard, and how to go on: in the form that errors have."""
        self._tell(TailorError(stopped.message, fix=stopped.fix, code="interrupted"), "")
        return INTERRUPTED

    def _tell(self, error: TailorError, before: str) -> None:
        if self.json:
            sys.stdout.write(json.dumps({"error": error.as_dict()}, ensure_ascii=False) + "\n")
        else:
            sys.stderr.write(f"{before}{' '.join(str(error).split())}\n")


face = Face()


def table(rows: list[list[str]], headings: list[str]) -> str:
    """Left-aligned columns, as wide as their longest cell."""
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
