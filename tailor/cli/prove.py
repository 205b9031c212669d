"""`tailor prove`."""

from typing import Annotated

import typer

from tailor import api
from tailor.cli.options import Base
from tailor.cli.output import Answer, face


def prove(
    model: Annotated[
        str, typer.Argument(help="Run folder, PEFT adapter folder or merged folder, by whomever trained.")
    ],
    base: Base = None,
    served: Annotated[str | None, typer.Option(help="URL of an OpenAI-compatible server that should serve it.")] = None,
) -> Answer:
    """Is this artefact, or the model behind a server, really the tuned one?"""
    proof = api.prove(model, base=base, served=served, reporter=face.reporter)
    lines = [
        f"proof: {'passed' if proof['passed'] else 'FAILED'} · {proof['rows']} probe rows, by {proof['by']} libraries"
    ]
    lines += [f"problem: {problem}" for problem in proof["problems"]]
    return Answer(proof, "\n".join(lines), 0 if proof["passed"] else 1)
