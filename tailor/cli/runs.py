"""`tailor runs` and `tailor show`."""

from pathlib import Path
from typing import Annotated

import typer

from tailor.cli.fit import summary_answer
from tailor.cli.output import Answer, table
from tailor.core.errors import RunError
from tailor.core.runs import SUMMARY, RunFolder, runs_below


def runs(folder: Annotated[str, typer.Argument(help="Where to look.")] = ".") -> Answer:
    """Runs below a folder."""
    if not Path(folder).is_dir():
        raise RunError("there is no such folder", where=folder, fix="`tailor runs` looks in the current one")
    found = []
    for run in runs_below(Path(folder)):
        summary = run.read(SUMMARY)
        tasks = summary["evaluation"].get("tasks", {}) if summary else {}
        verdict = ", ".join(task["verdict"] for task in tasks.values())
        found.append({"run": str(run.path), "status": "done" if summary else "unfinished", "verdict": verdict})
    rows = [[entry["run"], entry["status"], entry["verdict"].replace("_", " ")] for entry in found]
    return Answer({"runs": found}, table(rows, ["run", "status", "verdict"]) if rows else "no runs here")


def show(run: Annotated[str, typer.Argument(help="A run folder.")]) -> Answer:
    """One run's summary."""
    folder = RunFolder.existing(Path(run))
    summary = folder.read(SUMMARY)
    if summary is None:
        raise RunError(
            "this run is not finished", where=run, fix=f"tailor fit {folder.recipe} --resume", code="unfinished"
        )
    return summary_answer(summary)
