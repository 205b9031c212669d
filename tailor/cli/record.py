"""`tailor record`."""

from typing import Annotated

import typer

from tailor import api
from tailor.cli.output import Answer, face


def record(
    model: Annotated[str, typer.Argument(help="Run folder, base, adapter or merged folder, URL#MODEL or a YAML file.")],
    data: Annotated[str, typer.Option(help="The rows to answer, all of them.")],
    out: Annotated[str, typer.Option(help="The file to write, ending in .jsonl.")],
) -> Answer:
    """Keep a model's answers, to compare with later: tailor evaluate OTHER --against ANSWERS.jsonl."""
    kept = api.record(model, data=data, out=out, reporter=face.reporter)
    return Answer(kept, f"{kept['answers']} answers of {kept['model']} are in {kept['out']}")
