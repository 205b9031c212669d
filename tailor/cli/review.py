"""`tailor review`."""

from typing import Annotated

import typer

from tailor import api
from tailor.cli.output import Answer, face
from tailor.evaluation.votes import rate_sentence


def review(
    run: Annotated[str, typer.Argument(help="A run folder.")],
    port: Annotated[int, typer.Option(help="Of the local page; 0: any that is free.")] = 0,
) -> Answer:
    """Vote between base and tuned answers, blind, on a local page, and get the win rate."""
    found = api.review(run, port=port, reporter=face.reporter)
    return Answer(found, f"{rate_sentence(found)}\nvotes: {found['file']}")
