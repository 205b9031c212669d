"""`tailor plan`."""

from typing import Annotated, Any

import typer

from tailor import api
from tailor.cli.options import Base, Columns, parse_columns
from tailor.cli.output import Answer, face, table


def plan(
    data: Annotated[str, typer.Argument(help="What to learn from, or a recipe.")],
    base: Base = None,
    memory: Annotated[str | None, typer.Option(help="A device's memory, e.g. 24GB.")] = None,
    gpu: Annotated[str | None, typer.Option(help="A card, e.g. h100; instead of this machine.")] = None,
    goal: Annotated[str, typer.Option(help="task, or facts: answers must contain new facts.")] = "task",
    served: Annotated[int, typer.Option(min=1, help="How many models of this base will be served.")] = 1,
    text: Annotated[str | None, typer.Option(help="Raw text of the domain, to be read before the task.")] = None,
    columns: Columns = None,
    recipe: Annotated[str | None, typer.Option(help="Write a recipe that runs here.")] = None,
) -> Answer:
    """Which approach, with reasons and sources; what each method needs; where it fits."""
    found = api.plan(
        data,
        base=base,
        memory=memory,
        gpu=gpu,
        goal=goal,
        served=served,
        text=text,
        columns=parse_columns(columns),
        recipe=recipe,
        reporter=face.reporter,
    )
    return Answer(found, _text(found))


def _text(found: dict[str, Any]) -> str:
    data, tests = found["data"], found["test_rows"]
    rows = ", ".join(f"{count} {name}" for name, count in data["rows"].items())
    longest = f"{data['tokens']:,} tokens to train on, the longest row {data['longest']}"
    lines = [f"data: {data['form']} → {data['objective']} · {rows} · {longest}"]
    stages = "".join(f"{STAGES[lead]}, then " for lead in found["stages"])
    lines.append(f"recommended: {stages}{found['recommended'] or 'no fine-tuning'}")
    for reason in found["reasons"]:
        lines += [f"  {reason['text']}", f"    source: {reason['source']}. {reason['conditions']}."]
        lines.append(f"    unsure: {reason['uncertainty']}")
    lines += ["", f"on {found['hardware']['device']}, {found['hardware']['precision']}:"]
    lines.append(table([_row(entry) for entry in found["methods"]], ["method", "fits", "memory", "time", "moving", ""]))
    if found["where"]:
        places = [[place["device"], _yes(place["fits"]), _time(place["seconds"])] for place in found["where"]]
        lines += ["", table(places, [f"where ({found['where'][0]['method']})", "fits", "time"])]
    needed = ", ".join(f"{points} with {count:,} rows" for points, count in tests["rows_for_points"].items())
    seen = "none" if tests["detectable_points"] is None else f"{tests['detectable_points']} points or more"
    lines += ["", f"test rows: {tests['rows']} show differences of {seen} (points that are shown: {needed})"]
    if "recipe" in found:
        lines.append(f"recipe: {found['recipe']} (tailor fit {found['recipe']})")
    return "\n".join(lines)


STAGES = {"domain": "read the domain's text", "contrast": "pull texts of one label together"}


def _row(entry: dict[str, Any]) -> list[str]:
    memory, moving = entry["memory_bytes"], entry["trainable_parameters"]
    return [
        entry["method"],
        _yes(entry["fits"]),
        "" if memory is None else f"{memory / 2**30:,.2f} GiB",
        _time(entry["seconds"]),
        "" if moving is None else f"{moving:,}",
        "" if entry["fits"] and memory is not None else entry["why"],
    ]


def _yes(fits: bool) -> str:
    return "yes" if fits else "no"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
