"""`tailor chat`."""

import sys
from typing import Annotated

import typer

from tailor import api
from tailor.cli.output import Answer, face


def chat(
    model: Annotated[str, typer.Argument(help="Run folder, base, URL#MODEL or a YAML file.")],
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 256,
) -> Answer:
    """Talk to a run, base and tuned side by side; an empty line or Ctrl-D ends it."""
    sides = api.chat_sides(model, max_new_tokens=max_new_tokens)
    turns: list[dict[str, str]] = []
    while True:
        face.reporter.say("you:" if sys.stdin.isatty() else "")
        line = sys.stdin.readline().strip()
        if not line:
            return Answer({"turns": turns}, "")
        answers = {name: side(line) for name, side in sides.items()}
        turns.append({"user": line, **answers})
        if not face.json:
            sys.stdout.write("".join(f"{name}: {text}\n" for name, text in answers.items()))
            sys.stdout.flush()
