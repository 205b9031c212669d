"""`tailor compare`."""

from pathlib import Path
from typing import Annotated

import typer

from tailor import api
from tailor.cli.output import Answer, face, table
from tailor.evaluation.race_wording import HEADINGS, cells, sentence


def compare(
    recipe: Annotated[str, typer.Argument(help="A recipe: base, data, and how long to train.")],
    methods: Annotated[str | None, typer.Option(help="Names, by commas; all there are by default.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Training time of each method, search and seeds included: 90s, 10m, 1h.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each method.")] = 3,
    margin: Annotated[float, typer.Option(help="Points below the best that still count as good enough.")] = 2.0,
    output: Annotated[str | None, typer.Option(help="Where runs and report go.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on; finished rows are not run again.")] = False,
) -> Answer:
    """Race the methods on your data, and name the cheapest that is shown to be good enough."""
    found = api.compare(
        recipe,
        methods=None if methods is None else [name.strip() for name in methods.split(",") if name.strip()],
        budget=budget,
        seeds=seeds,
        margin=margin,
        output=output,
        resume=resume,
        reporter=face.reporter,
    )
    page = Path(found["output"]) / "report.html"
    lines = [table([cells(row) for row in found["rows"] if row["value"] is not None], list(HEADINGS)), ""]
    lines += [f"{row['method']} takes no part: {row['reason']}" for row in found["rows"] if row["value"] is None]
    return Answer(found, "\n".join([*lines, "", sentence(found), f"report: {page}"]))
