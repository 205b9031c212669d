"""A comparison of methods in words: the cells of its table, and what it comes to."""

from collections.abc import Mapping
from typing import Any

from tailor.evaluation.wording import change, figure, named, number

HEADINGS = (
    "method",
    "quality",
    "95 %",
    "to the best",
    "95 %",
    "within margin",
    "made in",
    "memory",
    "artefact",
    "forgets",
)
MISSING = "–"


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row of compare.json that was measured, as texts under `HEADINGS`."""
    metric = row["metric"]
    own, gap = (
        " to ".join(write(metric, bound) for bound in row[key])
        for key, write in (("ci95", figure), ("delta_ci95", change))
    )
    is_best = row["p_value"] is None
    return [
        row["method"],
        figure(metric, row["value"]),
        own,
        "best" if is_best else change(metric, row["delta_to_best"]),
        "" if is_best else gap,
        row["within_margin"],
        duration(row["seconds"]),
        size(row["memory_bytes"]),
        size(row["artifact_bytes"]),
        MISSING if row["forgetting"] is None else change("loss", row["forgetting"]),
    ]


def sentence(found: Mapping[str, Any]) -> str:
    """What the race comes to: the method that is named, or why none is and how many rows would tell."""
    rows = {row["method"]: row for row in found["rows"]}
    best, named_, margin = rows[found["best"]], found["cheapest_adequate"], found["margin_points"]
    title, unit = named(best["metric"])[0], "points" if named(best["metric"])[1] != "plain" else "units"
    top = f"{best['method']} does best ({title} {figure(best['metric'], best['value'])} on {found['n']} rows)"
    if named_ == best["method"]:
        return f"Take {named_}: it does best, and no cheaper method is shown to be less than {margin:g} {unit} worse. {top}."
    if named_:
        row = rows[named_]
        low, high = (change(row["metric"], bound) for bound in row["delta_ci95"])
        gap = f"{change(row['metric'], row['delta_to_best'])} to the best, 95 % interval {low} to {high}"
        return (
            f"Take {named_}: made in {duration(row['seconds'])}, it is shown to be less than {margin:g} {unit} worse "
            f"than any other ({gap}). {top}."
        )
    needed = found["rows_needed"]
    told = (
        f"about {needed:,} test rows would tell"
        if needed
        else "no number of rows would tell: the seeds of a method differ too much, so raise --seeds"
    )
    return f"None can be named: no method is shown to be less than {margin:g} {unit} worse than every other; {told}. {top}."


def duration(seconds: float | None) -> str:
    """`2.3 s`, `4 min 10 s`."""
    if seconds is None:
        return MISSING
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def size(count: int | None) -> str:
    """Bytes in the unit that suits them."""
    if count is None:
        return MISSING
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= unit:
            return f"{number(count / unit)} {name}"
    return f"{count} B"
