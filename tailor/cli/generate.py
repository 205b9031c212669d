"""`tailor generate`."""

from pathlib import Path
from typing import Annotated

import typer

from tailor import api
from tailor.cli.output import Answer


def generate(
    model: Annotated[str, typer.Argument(help="Run folder, base, URL#MODEL or a YAML file.")],
    prompt: Annotated[str, typer.Option(help="What to answer.")],
    number: Annotated[int, typer.Option("-n", min=1, help="How many answers; beyond the first they are sampled.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 256,
    output: Annotated[Path | None, typer.Option(help="Where pictures are written; RUN/generated if left out.")] = None,
) -> Answer:
    """One prompt, answered by the tuned model: in text, or in pictures by one that draws."""
    answers = api.generate(model, prompt, number=number, max_new_tokens=max_new_tokens, output=output)
    return Answer({"prompt": prompt, "answers": answers}, "\n---\n".join(answers))
