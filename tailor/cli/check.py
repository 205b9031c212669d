"""`tailor check`."""

from typing import Annotated, Any

import typer

from tailor import api
from tailor.cli.options import Base, Columns, parse_columns
from tailor.cli.output import Answer, face

DUPLICATES = ("exact", "normalised", "near", "contradictory")
LEAKAGE = ("exact", "normalised", "near", "overlap")
MOST_LABELS = 10


def check(
    data: Annotated[list[str], typer.Argument(help="Files, folders, globs, hub ids or pocket:NAME.")],
    base: Base = None,
    test: Annotated[str | None, typer.Option(help="A test set of its own.")] = None,
    columns: Columns = None,
    fix: Annotated[str | None, typer.Option(help="Write a cleaned copy, and its changes beside it.")] = None,
    redact: Annotated[
        bool, typer.Option("--redact", help="With --fix: no personal data or secrets in the copy.")
    ] = False,
    html: Annotated[str | None, typer.Option(help="Write a page of it.")] = None,
    show: Annotated[int, typer.Option(help="Print so many examples with the trained parts marked (needs --base).")] = 0,
) -> Answer:
    """What the data is, and what a model will learn from it."""
    source = data[0] if len(data) == 1 else data
    report = api.check(
        source,
        base=base,
        test=test,
        columns=parse_columns(columns),
        fix=fix,
        redact=redact,
        html=html,
        reporter=face.reporter,
    )
    if show:
        report = report | {"examples": api.examples(source, base=base, columns=parse_columns(columns), count=show)}
    stopping = any(problem["severity"] == "error" for problem in report["problems"])
    return Answer(report, _text(report), 1 if stopping else 0)


def _text(report: dict[str, Any]) -> str:
    rows = report["rows"]
    refused = ", ".join(f"{count} refused ({reason})" for reason, count in rows["refused"].items()) or "none refused"
    lines = [
        f"form: {report['form']} → objective {report['objective']}",
        "columns: " + ", ".join(f"{role}={column}" for role, column in report["columns"].items()),
        f"rows: {rows['in']} in = {rows['used']} used, {refused}",
    ]
    lines.append("split: " + ", ".join(f"{name} {count}" for name, count in report["splits"].items()))
    tokens = report.get("tokens")
    if tokens:
        roles = ", ".join(f"{role} {count:,}" for role, count in tokens["by_role"].items())
        lines.append(f"tokens: {tokens['total']:,} in all, {tokens['trained']:,} trained ({roles or 'labels'})")
    stop = report.get("stop_token")
    if stop:
        lines.append(f"stop token: {stop['text']!r}, {'trained' if stop['labelled'] else 'NOT trained'}")
    lines += _counts(report)
    for problem in report["problems"]:
        where = f"{problem['file']}:{problem['line']}: " if problem.get("file") else ""
        lines.append(f"{problem['severity']}: {where}{problem['message']}")
    if "fixed" in report:
        fixed = report["fixed"]
        lines.append(f"copy: {fixed['kept']} of {fixed['in']} rows in {fixed['file']}, changes in {fixed['changes']}")
    for example in report.get("examples", ()):
        lines += ["", "".join(f"⟦{part['text']}⟧" if part["trained"] else part["text"] for part in example)]
    if report.get("examples"):
        lines += ["", "⟦…⟧ marks what is trained"]
    return "\n".join(lines)


def _counts(report: dict[str, Any]) -> list[str]:
    """Duplicates, leakage, labels and languages, a line each where there is something to tell."""
    lines = []
    for title, kinds in (("duplicates", DUPLICATES), ("test rows in training", LEAKAGE)):
        held = report["duplicates" if title == "duplicates" else "leakage"]
        lines.append(f"{title}: " + ", ".join(f"{kind} {held[kind]}" for kind in kinds))
    labels = list(report.get("labels", {}).items())
    if labels:
        more = f", … ({len(labels)} labels)" if len(labels) > MOST_LABELS else ""
        lines.append("labels: " + ", ".join(f"{name} {count}" for name, count in labels[:MOST_LABELS]) + more)
    lines.append("languages: " + ", ".join(f"{name} {count}" for name, count in report["languages"].items()))
    return lines
